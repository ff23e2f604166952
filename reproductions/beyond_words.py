"""Beyond lexical overlap: answer recall by how many words a question shares with its passage.

    PYTHONPATH=src python reproductions/beyond_words.py QUESTIONS PASSAGES RUN [RUN ...]

A row for each run's own retriever (a run of ict, pretrain or finetune), for BM25, and for
all-MiniLM as it comes; a column for each third of the questions, by the share of their content
words that stand in their gold passage. Questions need `passage_id`: squad_open.dev, nq_qed.train.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.sources import check_vocabulary, run_of
from realm.corpus.store import PassageStore
from realm.errors import ConfigError, RealmError
from realm.evaluation.metrics import hits_at_k, wilson_interval
from realm.evaluation.overlap import THIRDS, gold_overlap, overlap_thirds
from realm.evaluation.questions import read_questions
from realm.evaluation.recall import Finds, answer_ranks
from realm.evaluation.zero_shot import open_zero_shot
from realm.index.opening import open_snapshot
from realm.records import Question
from realm.retrieval.bm25 import Bm25Retriever
from realm.retrieval.dense import DenseRetriever

BASELINES = ("bm25", "minilm")
K = 5
QUESTION_WORDPIECES = 64


def open_run(run: Path, store: PassageStore) -> DenseRetriever:
    """Return the retriever of any run with towers; its passages are embedded on first use."""
    model = load_model(find_checkpoint(run))
    check_vocabulary(model, store)
    snapshot = open_snapshot(run_of(run), model, store)
    tower = model.need_towers().query.eval()
    return DenseRetriever(tower, snapshot, store.tokenizer, question_wordpieces=QUESTION_WORDPIECES)


def retrievers(
    runs: list[Path], store: PassageStore, baselines: list[str], cache: Path
) -> Iterator[tuple[str, Finds]]:
    """Yield every row's name and retriever; the baselines' indexes are kept in the cache."""
    for run in runs:
        yield str(run), open_run(run, store)
    if "bm25" in baselines:
        yield "BM25", Bm25Retriever.open(store, cache=cache / "bm25")
    if "minilm" in baselines:
        yield "all-MiniLM, as it comes", open_zero_shot(store, cache=cache / "zero-shot")


def draw(questions: list[Question], limit: int | None) -> list[Question]:
    """Return as many questions as are asked for, the same ones every time."""
    if limit is None or limit >= len(questions):
        return questions
    drawn = np.random.default_rng(0).choice(len(questions), size=limit, replace=False)
    return [questions[number] for number in sorted(drawn.tolist())]


def measure(
    questions: list[Question], store: PassageStore, rows: Iterable[tuple[str, Finds]]
) -> Iterator[str]:
    """Yield the lines of the table.

    Raises:
        ConfigError: fewer than three questions have a gold passage among these passages.
    """
    shares = [gold_overlap(store, question) for question in questions]
    thirds = overlap_thirds(shares, [question.id for question in questions])
    if not thirds:
        raise ConfigError(
            f"fewer than three questions name a passage of {store.folder}; expected `passage_id`"
        )
    columns = [
        f"{name} ({100 * min(held):.0f} to {100 * max(held):.0f} % of its words)"
        for name, part in zip(THIRDS, thirds, strict=True)
        if (held := [shares[number] or 0.0 for number in part])
    ]
    yield f"| recall@{K} of | all {len(questions):,} | {' | '.join(columns)} |"
    yield "|---" * (2 + len(columns)) + "|"
    for name, retriever in rows:
        hits = hits_at_k(answer_ranks(retriever, store, questions, deepest=K), K)
        cells = [hits, *([hits[number] for number in part] for part in thirds)]
        found = [wilson_interval(round(sum(values)), len(values)) for values in cells]
        told = [f"{100 * i.mean:.1f} ({100 * i.low:.1f} to {100 * i.high:.1f})" for i in found]
        yield f"| {name} | {' | '.join(told)} |"


def main(arguments: list[str] | None = None) -> int:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("questions", type=Path, help="JSONL with passage_id")
    parser.add_argument("passages", type=Path, help="from realm split")
    parser.add_argument("runs", type=Path, nargs="+", help="with an embedder")
    parser.add_argument("--limit", type=int, help="draw so many questions (default: all)")
    parser.add_argument("--cache", type=Path, help="keep the baselines here (default: first run)")
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=BASELINES)
    told = parser.parse_args(arguments)
    try:
        store = PassageStore.open(told.passages)
        questions = draw(read_questions(told.questions), told.limit)
        rows = retrievers(told.runs, store, told.baselines, told.cache or told.runs[0])
        for line in measure(questions, store, rows):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except RealmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
