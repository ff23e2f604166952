"""Search by all-MiniLM with sentence-transformers, read by a plain BertForQuestionAnswering."""

import json
import sys
from pathlib import Path

import torch
from peer import serve
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertForQuestionAnswering

from realm.checkpoint.folders import pretrained_folder

LONGEST, MAX_ANSWER, READ = 352, 10, 5


def main(folder: Path) -> None:
    """Load, and answer calls."""
    minilm = str(pretrained_folder("minilm"))
    search = SentenceTransformer(minilm, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    reader = BertForQuestionAnswering.from_pretrained(minilm).eval()
    texts: list[str] = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(len(texts), 384), dim=-1)

    @torch.no_grad()
    def ask(questions: list[str], rows: list[list[int]]) -> list[str]:
        """Search, then read the passages that ours found: what is read takes equally long."""
        asked = search.encode(questions, convert_to_tensor=True)
        (asked @ vectors.T).topk(READ, dim=-1)
        pairs = [(q, texts[row]) for q, mine in zip(questions, rows, strict=True) for row in mine]
        inputs = tokenizer(
            [question for question, _ in pairs],
            [text for _, text in pairs],
            padding=True,
            truncation="only_second",
            max_length=LONGEST,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = inputs.pop("offset_mapping")
        logits = reader(**inputs)
        spans = logits.start_logits[:, :, None] + logits.end_logits[:, None, :]
        allowed = torch.ones(spans.shape[1:], dtype=torch.bool).triu().tril(MAX_ANSWER - 1)
        in_passage = (inputs["token_type_ids"] == 1) & (inputs["attention_mask"] == 1)
        spans = spans.masked_fill(~(allowed & in_passage[:, :, None]), float("-inf"))
        answers: list[str] = []
        for number, mine in enumerate(spans.view(len(questions), -1).argmax(dim=-1).tolist()):
            length = spans.shape[-1]
            place, span = divmod(mine, length * length)
            start, end = divmod(span, length)
            row = number * len(rows[number]) + place
            first, last = int(offsets[row, start, 0]), int(offsets[row, end, 1])
            answers.append(pairs[row][1][first:last])
        return answers

    serve({"ask": ask, "use_threads": lambda count: torch.set_num_threads(count)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
