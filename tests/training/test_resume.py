"""A run that was killed and resumed equals one that was not, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from realm.checkpoint.checkpoints import find_checkpoint
from realm.checkpoint.run_folder import TrainReport
from realm.checkpoint.run_records import read_metrics
from realm.config import (
    ClassifyConfig,
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
from realm.records import Claim, Question
from realm.training.classify import classify
from realm.training.finetune import finetune
from realm.training.ict import ict
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
    "held_out": 0.3,
    "threads": 1,
}
SCRATCH = EncoderConfig(init="scratch:1x32")
KILLS = [(0, "eval/"), (2, "loss"), (4, "eval/"), (6, "loss"), (7, "loss"), (10, "eval/")]
"""(step, kind of metrics) at which the run dies: before, between and after saves and refreshes."""

Stage = Callable[..., TrainReport]
AssertSameRun = Callable[[Path, Path], None]


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def kill_at(step: int, kind: str) -> Callable[[int, int, Mapping[str, float]], None]:
    def on_metrics(done: int, steps: int, metrics: Mapping[str, float]) -> None:
        del steps
        if done == step and any(name.startswith(kind) for name in metrics):
            raise Killed

    return on_metrics


def pretrain_config(**changed: Any) -> PretrainConfig:
    return PretrainConfig(
        num_candidates=4,
        retriever_frozen_steps=2,
        refresh=RefreshConfig(mode="sync", every_steps=2),
        num_eval_examples=8,
        **{**SHARED, **changed},
    )


STAGES = ["ict", "ict-bfloat16", "mlm", "pretrain", "pretrain-drawn"]
STAGES += ["finetune", "finetune-passages", "classify"]


@pytest.fixture(params=STAGES)
def stage(
    request: pytest.FixtureRequest,
    store: PassageStore,
    examples: ExampleStore,
    start: dict[str, Path],
) -> Stage:
    """Return a training stage of ten steps as (out, settings, ...) -> report."""
    questions = [
        Question(id=str(number), question=f"where was the builder {name} born", answers=(town,))
        for number, (name, town) in enumerate(
            [("arlo", "Tarvik"), ("bexa", "Ulmer"), ("cimo", "Vosta"), ("dule", "Welan")]
        )
    ]

    def run(
        out: Path,
        settings: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> TrainReport:
        changed = {**SHARED, **(settings or {})}
        match request.param:
            case "ict" | "ict-bfloat16":
                changed |= {"autocast": "bfloat16"} if "-" in request.param else {}
                ict_config = IctConfig(encoder=SCRATCH, projection_size=16, **changed)
                return ict(store, out, config=ict_config, **more)
            case "mlm":
                mlm_config = MlmConfig(encoder=SCRATCH, **changed)
                return mlm(store, out, config=mlm_config, examples=examples, **more)
            case "pretrain" | "pretrain-drawn":
                changed |= {"gradient_candidates": 2} if "-" in request.param else {}
                return pretrain(
                    examples, store, out, config=pretrain_config(**changed), **start, **more
                )
            case "classify":
                claims = [
                    Claim(id=q.id, claim=q.question, label=q.answers[0][:1]) for q in questions
                ]
                claim_config = ClassifyConfig(num_passages=3, **changed)
                folders = {"run": start["embedder"], "encoder": start["encoder"]}
                return classify(claims, store, out, config=claim_config, **folders, **more)
            case _:
                if "-" in request.param:
                    refresh = RefreshConfig(mode="sync", every_steps=2, write_back=True)
                    changed |= {"train_passages": True, "fresh_passages": 4, "refresh": refresh}
                config = FinetuneConfig(num_passages=3, retriever_beam=8, span_hidden=16, **changed)
                folders = {"run": start["embedder"], "encoder": start["encoder"]}
                return finetune(questions, store, out, config=config, **folders, **more)

    return run


def test_a_run_killed_again_and_again_equals_one_that_was_not(
    stage: Stage, tmp_path: Path, assert_same_run: AssertSameRun
) -> None:
    whole = stage(tmp_path / "whole")
    for step, kind in KILLS:
        with pytest.raises(Killed):
            stage(tmp_path / "killed", on_metrics=kill_at(step, kind))
    resumed = stage(tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert (whole.resumed_from, whole.steps, whole.already_done) == (0, 10, False)
    assert (resumed.resumed_from, resumed.steps, resumed.already_done) == (9, 10, False)
    done = stage(tmp_path / "whole")
    assert done.already_done
    assert done.metrics == whole.metrics


def test_another_run_in_the_same_folder_is_refused_or_replaces_it(
    stage: Stage, tmp_path: Path
) -> None:
    short = {"steps": 1, "eval_every_steps": 100}
    with pytest.raises(Killed):
        stage(tmp_path / "run", short, on_metrics=kill_at(1, "loss"))
    with pytest.raises(ArtifactError, match=r"settings\.seed"):
        stage(tmp_path / "run", {**short, "seed": 1})
    stage(tmp_path / "run", short)
    with pytest.raises(ArtifactError, match=r"setting seed \(found 0, now 1\)"):
        stage(tmp_path / "run", {**short, "seed": 1})
    with pytest.raises(Killed):
        stage(tmp_path / "run", {**short, "seed": 1}, rebuild=True, on_metrics=kill_at(1, "loss"))
    assert stage(tmp_path / ".run.replaced", short).already_done  # nothing is lost yet
    report = stage(tmp_path / "run", {**short, "seed": 1}, rebuild=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (report.resumed_from, report.already_done) == (0, False)
    assert stage(tmp_path / "run", {**short, "seed": 1}).already_done


def test_settings_that_change_no_number_may_change_in_a_resume(
    store: PassageStore, tmp_path: Path
) -> None:
    def run(**changed: Any) -> TrainReport:
        config = IctConfig(encoder=SCRATCH, projection_size=16, **{**SHARED, "steps": 4, **changed})
        kill = kill_at(2, "loss") if not changed else None
        return ict(store, tmp_path / "run", config=config, on_metrics=kill)

    with pytest.raises(Killed):
        run()
    report = run(log_every_steps=100, keep_checkpoints=5, threads=None)
    assert report.steps == 4


def test_a_run_goes_on_with_other_batch_tokens(stage: Stage, tmp_path: Path) -> None:
    """Before its first checkpoint, with the index of step 0, and after one."""
    settings = {"steps": 4, "dropout": 0.0}
    whole = stage(tmp_path / "whole", settings)
    told: list[str] = []
    for batch_tokens, step in ((16_384, 2), (64, 4)):
        with pytest.raises(Killed):
            stage(
                tmp_path / "run",
                {**settings, "batch_tokens": batch_tokens},
                on_metrics=kill_at(step, "loss"),
                tell=told.append,
            )
    resumed = stage(tmp_path / "run", settings, tell=told.append)
    assert resumed.resumed_from == 3
    assert len([sentence for sentence in told if "goes on with batch_tokens=" in sentence]) == 2
    assert resumed.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-3, abs=5e-4)


def test_other_inputs_are_named(
    store: PassageStore, examples: ExampleStore, start: dict[str, Path], tmp_path: Path
) -> None:
    config = IctConfig(encoder=SCRATCH, projection_size=16, **{**SHARED, "steps": 1})
    ict(store, tmp_path / "ict", config=config)
    only = pretrain_config(steps=1, eval_every_steps=100)
    pretrain(examples, store, tmp_path / "run", config=only, **start)
    with pytest.raises(ArtifactError, match="input embedder"):
        folders = {**start, "embedder": tmp_path / "ict"}
        pretrain(examples, store, tmp_path / "run", config=only, **folders)


def test_the_snapshot_that_the_checkpoint_used_is_opened_again_and_checked(
    store: PassageStore, examples: ExampleStore, start: dict[str, Path], tmp_path: Path
) -> None:
    """Killed at step 5, after the refresh at 4: the checkpoint of step 3 searched snapshot 2."""

    def run() -> TrainReport:
        kill = kill_at(5, "loss")
        return pretrain(
            examples, store, tmp_path / "run", config=pretrain_config(), on_metrics=kill, **start
        )

    with pytest.raises(Killed):
        run()
    known = json.loads((find_checkpoint(tmp_path / "run") / "training.json").read_text())
    assert (known["step"], known["snapshot_step"]) == (3, 2)
    index = tmp_path / "run" / "index"
    assert sorted(path.name for path in index.iterdir()) == ["step-2", "step-4"]
    scan = index / "step-2" / "scan-00000.bf16"
    scan.write_bytes(bytes(scan.stat().st_size))
    with pytest.raises(ArtifactError, match=r"step-2.* is damaged"):
        run()


KILLED_IN_A_REFRESH = """
import os, signal, sys, torch
from pathlib import Path
from realm.config import PretrainConfig
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.training.pretrain import pretrain

torch.set_num_threads(1)
passages, examples, out, embedder, encoder, settings = sys.argv[1:]
builds = 0

def progress(done, total):
    global builds
    builds += done == total
    if builds == 4:  # snapshots 0, 2 and 4 are published, 6 is embedded but not published
        os.kill(os.getpid(), signal.SIGKILL)

pretrain(
    ExampleStore.open(Path(examples)),
    PassageStore.open(Path(passages)),
    Path(out),
    embedder=Path(embedder),
    encoder=Path(encoder),
    config=PretrainConfig.model_validate_json(settings),
    progress=progress,
)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_in_the_middle_of_a_refresh_resumes(
    store: PassageStore,
    examples: ExampleStore,
    start: dict[str, Path],
    tmp_path: Path,
    assert_same_run: AssertSameRun,
) -> None:
    config = pretrain_config(steps=8, save_every_steps=5)
    places = [store.folder, examples.folder, tmp_path / "killed", *start.values()]
    source = Path(__file__).parents[2] / "src"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_REFRESH, *places, config.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "killed" / "index" / ".step-6.partial").is_dir()
    assert [line["step"] for line in read_metrics(tmp_path / "killed")][-1] == 6
    report = pretrain(examples, store, tmp_path / "killed", config=config, **start)
    pretrain(examples, store, tmp_path / "whole", config=config, **start)
    assert report.resumed_from == 5
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
