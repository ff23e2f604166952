"""Run folders as training writes them, without training."""

import json
from collections.abc import Callable, Iterable
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


@pytest.fixture
def pretrain_lines() -> Callable[..., list[dict[str, Any]]]:
    """Return a function that gives the lines of so many steps."""
    return _lines


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run's folder."""

    def make(
        name: str = "run",
        *,
        settings: dict[str, Any] | None = None,
        lines: Lines = (),
        finished: bool = True,
        content: dict[str, Any] | None = None,
    ) -> Path:
        run = tmp_path / name
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
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run / "metrics.jsonl").write_text(text)
        return run

    return make
