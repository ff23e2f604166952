"""Does an alignment find the article of the same title? Beside BM25 on the same sentences.

    PYTHONPATH=src python reproductions/alignment.py PAIRS X_PASSAGES Z_PASSAGES [--out TABLE.md]

X: Simple English Wikipedia; Z: a sample of English Wikipedia. 537 titles are in both, 535 of them
no lists: 1,228 passages of X, 6,320 masked sentences. A core reads one in about 2 seconds (MiniLM,
8 candidates): --limit draws some.

    C=reproductions/shared_titles.py
    PYTHONPATH=src python $C simplewiki_2021.jsonl.gz enwiki_sample_2019.jsonl.gz shared.jsonl
    realm split enwiki_sample_2019.jsonl.gz --out Z
    realm split shared.jsonl --out X_passages
    realm mask X_passages --out X
    realm align X --passages Z --model RUN --out pairs.jsonl --limit 2000
"""

import argparse
import sys
from pathlib import Path

from realm.corpus.store import PassageStore
from realm.errors import RealmError
from realm.evaluation.alignment import title_agreement
from realm.retrieval.bm25 import Bm25Retriever


def main(arguments: list[str] | None = None) -> int:
    """Print the table, and write it where --out says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pairs", type=Path, help="from realm align")
    parser.add_argument("articles", type=Path, help="the passages X, from realm split")
    parser.add_argument("passages", type=Path, help="the passages Z, from realm split")
    parser.add_argument("--out", type=Path, help="Markdown file")
    told = parser.parse_args(arguments)
    try:
        store = PassageStore.open(told.passages)
        articles = PassageStore.open(told.articles)
        found = title_agreement(told.pairs, articles, store, Bm25Retriever.open(store))
    except RealmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(found.markdown())
    if told.out is not None:
        told.out.write_text(found.markdown(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
