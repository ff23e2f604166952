"""What is measured of a row, question by question; kept in a file, and not measured twice."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from realm.answering import Answerer
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import tower_hash
from realm.checkpoint.sources import run_of
from realm.config import EvaluateConfig, IndexConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.evaluation.evaluate import evaluate
from realm.evaluation.metrics import recall_at_k
from realm.evaluation.questions import questions_fingerprint
from realm.evaluation.recall import answer_ranks
from realm.evaluation.report import write_report
from realm.index.builder import EmbedderVersion, build_index
from realm.index.opening import find_snapshot
from realm.index.snapshot import snapshot_folder
from realm.records import Progress, Question
from realm.retrieval.dense import DenseRetriever
from realm.storage import MANIFEST, fingerprint_of, read_json, write_json

QUESTION_WORDPIECES = 64
RECALL_AT = 5
"""What the table and the log show of zero-shot recall (the paper's Table 2)."""


def measure_zero_shot(
    checkpoint: Path,
    store: PassageStore,
    questions: Sequence[Question],
    file: Path,
    *,
    depth: int,
    index: IndexConfig,
    device: str,
    progress: Progress | None = None,
) -> str:
    """Write the rank of the first passage with an answer to each question; return a line on it.

    Args:
        checkpoint: with an embedder, of its warm start or of joint pre-training.
        store: the passages Z.
        questions: what is asked.
        file: what is written: `ranks`, by the questions' ids, the checkpoint's `step`, and
            `depth`.
        depth: passages looked at, at least `RECALL_AT`.
        index: how passages are embedded, where its run has no fitting snapshot.
        device: where the embedder runs.
        progress: called while passages are embedded.

    Raises:
        ArtifactError: no checkpoint there, or a damaged one.
    """
    run, step = run_of(checkpoint), int(checkpoint.name.removeprefix("step-"))
    model = read_json(checkpoint / MANIFEST)["fingerprint"]
    asked = questions_fingerprint(questions)
    key = fingerprint_of([model, store.fingerprint, asked, depth])
    kept: dict[str, Any] = read_json(file) if file.is_file() else {}
    if kept.get("key") == key and kept["ranks"].keys() == {q.id for q in questions}:
        if "depth" not in kept:  # of an earlier release, which had it in the key alone
            write_json(file, {**kept, "depth": depth})
    else:
        towers = load_model(checkpoint).to(choose_device(device)).need_towers()
        snapshot = find_snapshot(run, towers.passage, store) or build_index(
            towers.passage,
            store,
            snapshot_folder(run, step),  # fine-tuning finds it there
            version=EmbedderVersion(model_hash=tower_hash(towers.passage), step=step),
            config=index,
            progress=progress,
        )
        retriever = DenseRetriever(
            towers.query, snapshot, store.tokenizer, question_wordpieces=QUESTION_WORDPIECES
        )
        found = answer_ranks(
            retriever, store, questions, deepest=min(depth, len(store)), progress=progress
        )
        ranks = {q.id: rank for q, rank in zip(questions, found, strict=True)}
        write_json(file, {"key": key, "step": step, "depth": depth, "ranks": ranks})
    recall = recall_at_k(list(read_json(file)["ranks"].values()), RECALL_AT)
    return f"zero-shot answer recall@{RECALL_AT} at step {step:,}: {recall:.1%}"


def measure_exact_match(
    run: Path,
    questions: Sequence[Question],
    file: Path,
    *,
    config: EvaluateConfig,
    split_name: str,
    device: str,
    progress: Progress | None = None,
) -> str:
    """Write the report on a fine-tuned run's answers; return a line on it.

    Questions with patterns alone (CuratedTREC) are judged by regex match.

    Args:
        run: from fine-tuning.
        questions: the whole split; `config.limit` draws from it.
        file: what is written.
        config: how answers are measured.
        split_name: of the split, for the report.
        device: where the model runs.
        progress: called with (answered, asked).

    Raises:
        ArtifactError: the run has no checkpoint, or a damaged one.
    """
    model = read_json(find_checkpoint(run) / MANIFEST)["fingerprint"]
    if not _is_reported(file, model, questions, config):
        answerer = Answerer.load(run, device=device)
        report = evaluate(
            answerer,
            answerer.store,
            questions,
            config=config,
            split_name=split_name,
            progress=progress,
        )
        write_report(report, file)
    metric, right = read_right(file)
    return f"{metric} {fmean(right.values()):.1%}"


def read_right(file: Path) -> tuple[str, dict[str, float]]:
    """Return what a report's answers were judged by, and 1 for each question that was right.

    Args:
        file: what `measure_exact_match` wrote.

    Returns:
        "exact match"; "regex match" where all questions have patterns alone; "right" (either of
        the two) where some have strings and some patterns. Id of a question -> 1 or 0.
    """
    records: list[dict[str, Any]] = read_json(file)["questions"]
    ways = ("exact_match", "regex_match")
    used = [way for way in ways if any(one[way] is not None for one in records)]
    metric = used[0].replace("_", " ") if len(used) == 1 else "right"
    return metric, {str(one["id"]): float(any(one[way] for way in ways)) for one in records}


def _is_reported(
    file: Path, model: str, questions: Sequence[Question], config: EvaluateConfig
) -> bool:
    if not file.is_file():
        return False
    found: dict[str, Any] = read_json(file)
    return (
        found["model"]["fingerprint"] == model
        and found["split"]["fingerprint"] == questions_fingerprint(questions)
        and {one["id"] for one in found["questions"]} <= {q.id for q in questions}
        and config.as_dict().items() <= found["settings"].items()
    )
