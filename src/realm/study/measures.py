"""What is measured of a row, question by question; kept in a file, and not measured twice."""

from collections.abc import Sequence
from pathlib import Path
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
        file: what is written: `ranks`, by the questions' ids, and the checkpoint's `step`.
        depth: passages looked at.
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
    if not (file.is_file() and read_json(file)["key"] == key):
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
        write_json(file, {"key": key, "step": step, "ranks": ranks})
    ranks = read_json(file)["ranks"]
    return f"zero-shot answer recall@5 at step {step:,}: {recall_at_k(list(ranks.values()), 5):.1%}"


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
    if not _is_reported(file, model, questions_fingerprint(questions), config):
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
    return f"exact match {read_json(file)['metrics']['exact_match']['mean']:.1%}"


def _is_reported(file: Path, model: str, questions: str, config: EvaluateConfig) -> bool:
    if not file.is_file():
        return False
    found: dict[str, Any] = read_json(file)
    return (
        found["model"]["fingerprint"] == model
        and found["split"]["fingerprint"] == questions
        and config.as_dict().items() <= found["settings"].items()
    )
