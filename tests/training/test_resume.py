"""A run that was killed and resumed equals one that was not, bit for bit."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from realm.config import (
    EncoderConfig,
    FinetuneConfig,
    IctConfig,
    MlmConfig,
    PretrainConfig,
    RefreshConfig,
)
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.masking.store import ExampleStore
from realm.records import Question
from realm.training.finetune import finetune
from realm.training.ict import ict
from realm.training.loop import TrainReport
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain

# Refreshes at 2, 4, ...; saves at 3, 6, 9, 10; measurements at 0, 4, 8, 10: every order occurs.
SHARED: dict[str, Any] = {
    "steps": 10,
    "batch_size": 4,
    "save_every_steps": 3,
    "eval_every_steps": 4,
    "log_every_steps": 1,
    "autocast": "none",
    "dropout": 0.1,
    "held_out": 0.2,
    "threads": 1,
}
SCRATCH = EncoderConfig(init="scratch:1x32")
KILLS = [(0, "eval/"), (2, "loss"), (4, "eval/"), (6, "loss"), (7, "loss"), (10, "eval/")]
"""(step, kind of metrics) at which the run dies: before, between and after saves."""

Stage = Callable[..., TrainReport]
Kill = Callable[[int, int, Mapping[str, float]], None]


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def kill_at(step: int, kind: str) -> Kill:
    def on_metrics(done: int, steps: int, metrics: Mapping[str, float]) -> None:
        del steps
        if done == step and any(name.startswith(kind) for name in metrics):
            raise Killed

    return on_metrics


@pytest.fixture(params=["ict", "ict-bfloat16", "mlm", "pretrain", "finetune"])
def stage(
    request: pytest.FixtureRequest,
    store: PassageStore,
    examples: ExampleStore,
    start: Any,
) -> Stage:
    """Return a training stage of ten steps as (out, **more) -> report."""
    questions = [
        Question(id=str(n), question=f"where was the builder {name} born", answers=(town,))
        for n, (name, town) in enumerate([("arlo", "Tarvik"), ("bexa", "Ulmer"), ("cimo", "Vosta")])
    ]

    def run(out: Path, *, settings: Mapping[str, Any] | None = None, **more: Any) -> TrainReport:
        changed = {**SHARED, **(settings or {})}
        match request.param:
            case "ict" | "ict-bfloat16":
                changed |= {"autocast": "bfloat16"} if "-" in request.param else {}
                ict_config = IctConfig(encoder=SCRATCH, projection_size=16, **changed)
                return ict(store, out, config=ict_config, **more)
            case "mlm":
                mlm_config = MlmConfig(encoder=SCRATCH, **changed)
                return mlm(store, out, config=mlm_config, examples=examples, **more)
            case "pretrain":
                pretrain_config = PretrainConfig(
                    num_candidates=4,
                    retriever_frozen_steps=2,
                    refresh=RefreshConfig(every_steps=2),
                    num_eval_examples=8,
                    **changed,
                )
                folders = {"embedder": start.embedder, "encoder": start.encoder}
                return pretrain(examples, store, out, config=pretrain_config, **folders, **more)
            case _:
                finetune_config = FinetuneConfig(
                    num_passages=3, retriever_beam=8, span_hidden=16, **changed
                )
                folders = {"run": start.embedder, "encoder": start.encoder}
                return finetune(questions, store, out, config=finetune_config, **folders, **more)

    return run


def test_a_run_killed_again_and_again_equals_one_that_was_not(
    stage: Stage, tmp_path: Path, assert_same_run: Callable[[Path, Path], None]
) -> None:
    whole = stage(tmp_path / "whole")
    for step, kind in KILLS:
        try:
            stage(tmp_path / "killed", on_metrics=kill_at(step, kind))
        except Killed:
            continue
    resumed = stage(tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert (whole.resumed_from, whole.steps, whole.already_done) == (0, 10, False)
    assert resumed.steps == 10
