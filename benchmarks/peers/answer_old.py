"""RealmForOpenQA of transformers 4.57.6: one question at a time, as its documentation shows."""

import os
import sys
from pathlib import Path

os.environ["TRUST_REMOTE_CODE"] = "True"  # it unpickles the passages, which we have just written

import torch
from peer import serve
from transformers.models.deprecated.realm import (
    RealmForOpenQA,
    RealmRetriever,
    RealmTokenizerFast,
)


def main(folder: Path) -> None:
    """Load, and answer calls."""
    tokenizer = RealmTokenizerFast.from_pretrained(folder)
    retriever = RealmRetriever.from_pretrained(folder)
    model = RealmForOpenQA.from_pretrained(folder, retriever=retriever).eval()

    @torch.no_grad()
    def ask(question: str) -> str:
        inputs = tokenizer([question], return_tensors="pt")
        found = model(**inputs, answer_ids=None)
        return tokenizer.decode(found.predicted_answer_ids)

    serve({"ask": ask, "use_threads": lambda count: torch.set_num_threads(count)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
