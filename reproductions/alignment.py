"""Does an alignment find the article of the same title? Beside BM25 on the same sentences.

    PYTHONPATH=src python reproductions/alignment.py PAIRS X_PASSAGES Z_PASSAGES [TABLE.md]

X: Simple English Wikipedia; Z: a sample of English Wikipedia; 537 titles are in both.

    realm split enwiki_sample_2019.jsonl.gz --out Z
    realm split simplewiki_2021.jsonl.gz --out X_passages
    realm mask X_passages --out X
    realm align X --passages Z --model RUN --out pairs.jsonl --limit 5000

Sentences of articles whose title Z does not have are left out here; it is cheaper to split only
those that it has.
"""

import sys
from pathlib import Path

from realm.corpus.store import PassageStore
from realm.errors import RealmError
from realm.evaluation.alignment import title_agreement
from realm.evaluation.bm25 import Bm25Retriever


def main(arguments: list[str]) -> int:
    """Print the table, and write it where a fourth argument says."""
    if len(arguments) not in {3, 4}:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        store = PassageStore.open(Path(arguments[2]))
        found = title_agreement(
            Path(arguments[0]),
            PassageStore.open(Path(arguments[1])),
            store,
            Bm25Retriever.open(store),
        )
    except RealmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(found.markdown())
    if len(arguments) == 4:
        Path(arguments[3]).write_text(found.markdown(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
