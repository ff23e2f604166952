"""Run folders as training writes them, without training."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

Lines = Iterable[dict[str, Any]]


def _lines(num_steps: int, *, every: int = 5) -> list[dict[str, Any]]:
    """Return what a pre-training run logs: each step, and held-out measurements."""
    lines: list[dict[str, Any]] = []
    for step in range(num_steps + 1):
        if step:
            stale = (step - 1) % every
            lines.append(
                {
                    "step": step,
                    "index/refreshed": float(stale == 0),
                    "index/staleness_steps": float(stale),
                    "index/score_drift": 0.01 * stale,
                    "index/rank_correlation": 1 - 0.02 * stale,
                    "loss": 10.0 / step,
                    "utility/marginal_minus_null": 0.1 * step,
                    "p_null": 0.5 / step,
                    "learning_rate": 1e-4,
                    "step_seconds": 0.5,
                    "tokens_per_second": 2_000.0,
                    "gradient_norm": 3.0,
                }
            )
        if step % every == 0:
            lines.append(
                {
                    "step": step,
                    "eval/loss": 12.0 / (step + 1),
                    "eval/utility/marginal_minus_null": 0.1 * step,
                    "eval/span_accuracy": step / 100,
                    "eval/span_accuracy_null": step / 200,
                    "eval/candidates_hold_span": 0.4,
                    "eval/index_recall": 0.9,
                }
            )
    return lines


@pytest.fixture(scope="session")
def pretrain_lines() -> Callable[..., list[dict[str, Any]]]:
    """Return a function that gives the lines of so many steps."""
    return _lines


def _run(
    folder: Path,
    name: str = "run",
    *,
    settings: dict[str, Any] | None = None,
    lines: Lines = (),
    finished: bool = True,
    content: dict[str, Any] | None = None,
) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    told = {
        "format_version": 1,
        "kind": "run",
        "settings": {"stage": "pretrain", "steps": 10, **(settings or {})},
        "inputs": {"passages": "5e" * 32, "examples": "3f" * 32},
    }
    if finished:
        told |= {
            "fingerprint": "ab" * 32,
            "content": {"steps": 10, "seconds": 90.0, "metrics": {}, **(content or {})},
        }
    (run / ("manifest.json" if finished else "request.json")).write_text(json.dumps(told))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run's folder."""
    return partial(_run, tmp_path)


@pytest.fixture(scope="module")
def make_run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The same for a whole file of tests."""
    return partial(_run, tmp_path_factory.mktemp("runs"))


def _question(number: int, *, right: bool, **more: Any) -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "question": f"Who was born in town {number}?",
        "answers": ["Ada", "Ada Byron"],
        "answer_patterns": [],
        "prediction": "Ada" if right else "Charles",
        "probability": 0.9 - number / 100,
        "exact_match": right,
        "regex_match": None,
        "f1": float(right),
        "rank": 1,
        "answer_was_read": True,
        "error": None,
        "refused": False,
        "evidence": {
            "passage_id": f"a#{number}",
            "title": "Ada",
            "excerpt": "It was Ada who was born there.",
            "start": 7,
            "end": 10,
            "article_start": 7,
            "passage_probability": 0.75,
        },
    } | more


def _evaluation(**more: Any) -> dict[str, Any]:
    share = {"mean": 0.5, "low": 0.4, "high": 0.6, "num_questions": 20}
    return {
        "format_version": 1,
        "kind": "report",
        "model": {"name": "qa", "fingerprint": "ab" * 32},
        "retriever": "realm",
        "corpus": {"fingerprint": "5e" * 32, "num_passages": 1_234},
        "split": {
            "name": "dev.jsonl",
            "fingerprint": "0",
            "num_questions": 40,
            "num_asked": 20,
        },
        "normalizer": "orqa",
        "settings": {"num_passages": 5, "num_retrieved": 100},
        "metrics": {"exact_match": share, "recall@5": {**share, "mean": 0.8}},
        "median_seconds_per_question": 0.25,
        "breakdowns": {"question_word": {"metric": "exact_match", "groups": {"who": share}}},
        "overlap_thirds": {"least": {"low": 0.0, "high": 0.4, "metrics": {"exact_match": share}}},
        "abstention": {
            "is_calibrated": True,
            "ece": 0.05,
            "ece_by_chance": 0.03,
            "aurc": 0.2,
            "min_probability": 0.3,
            "share_refused": 0.25,
            "share_of_right_refused": 0.1,
            "accuracy_of_answered": 0.6,
            "risk_at_coverage": [[0.5, 0.2], [1.0, 0.5]],
        },
        "questions": [_question(number, right=number % 2 == 0) for number in range(20)],
    } | more


@pytest.fixture
def question() -> Callable[..., dict[str, Any]]:
    """Return a function that gives a question's record."""
    return _question


@pytest.fixture
def evaluation() -> Callable[..., dict[str, Any]]:
    """Return a function that gives what `realm evaluate --out` writes."""
    return _evaluation


@pytest.fixture
def claim_evaluation() -> dict[str, Any]:
    """What it writes for claims."""
    share = {"mean": 0.5, "low": 0.4, "high": 0.6, "num_questions": 2}
    evidence = {
        "passage_id": "a#0",
        "title": "Ada",
        "excerpt": "Ada was born here.",
        "passage_probability": 0.5,
        "label_probability": 0.7,
    }
    shared = {"probability": 0.7, "p_label": 0.5, "error": None, "evidence": evidence}
    return {
        "format_version": 1,
        "kind": "claim-report",
        "model": {"name": "claims", "fingerprint": "ab" * 32},
        "retriever": "realm",
        "corpus": {"fingerprint": "5e" * 32},
        "split": {"name": "claims.jsonl", "fingerprint": "0", "num_claims": 2, "num_asked": 2},
        "settings": {"num_passages": 3},
        "metrics": {"accuracy": share},
        "majority": 0.5,
        "labels": {},
        "confusion": {"true": {"true": 1, "false": 0}, "false": {"true": 1, "false": 0}},
        "failures": {},
        "claims": [
            {"id": "1", "claim": "Ada is a town", "label": "true", "prediction": "true", **shared},
            {"id": "2", "claim": "Bo is a town", "label": "false", "prediction": "true", **shared},
        ],
    }
