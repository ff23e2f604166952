"""The loop that every stage shares, with a job that counts what is asked of it."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from realm.checkpoint.checkpoints import list_checkpoints, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.run_folder import TrainReport, open_run
from realm.checkpoint.run_records import read_metrics
from realm.config import OptimizerConfig, TrainConfig
from realm.errors import ArtifactError, DivergedError
from realm.model.encoder import build_encoder
from realm.storage import Request
from realm.tokenizer import WordpieceTokenizer
from realm.training import loop
from realm.training.loop import train

REQUEST = Request(kind="run", settings={"stage": "count"})
BERT = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
}


class CountingJob:
    """Pulls every parameter towards 0 and notes the calls."""

    def __init__(self, tokenizer: WordpieceTokenizer) -> None:
        torch.manual_seed(0)
        self.encoder = build_encoder({"bert": BERT})
        self.tokenizer = tokenizer
        self.calls: list[tuple[str, int]] = []
        self.dropouts: set[tuple[str, bool, float]] = set()
        self.noise: list[float] = []
        self.restored: Mapping[str, Any] | None = None

    @property
    def model(self) -> Model:
        """The encoder."""
        return Model(tokenizer=self.tokenizer, encoder=self.encoder)

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """The encoder."""
        return {"encoder": (self.encoder, 1.0)}

    def before_step(self, step: int) -> Mapping[str, float]:
        """Note it."""
        self.calls.append(("before", step))
        return {"before": float(step)}

    def step(self, step: int) -> Mapping[str, float]:
        """Note it, and leave gradients."""
        self.calls.append(("step", step))
        self._look("step")
        self.noise.append(float(torch.rand(())))
        loss = torch.stack([p.square().sum() for p in self.encoder.parameters()]).sum()
        loss.backward()
        return {"loss": float(loss.detach()), "tokens": 10.0}

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Note it."""
        self.calls.append(("evaluate", step))
        self._look("evaluate")
        return {"eval/loss": 1.0}

    def state(self) -> Mapping[str, Any]:
        """Return something to find again."""
        return {"kept": 7}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Note it."""
        self.restored = values

    def _look(self, when: str) -> None:
        for part in self.encoder.modules():
            if isinstance(part, nn.Dropout):
                self.dropouts.add((when, part.training, part.p))


def config(**changed: Any) -> TrainConfig:
    settings = {
        "steps": 7,
        "log_every_steps": 3,
        "eval_every_steps": 4,
        "save_every_steps": 2,
        "keep_checkpoints": 2,
        "dropout": 0.25,
        "threads": 1,
        "optimizer": OptimizerConfig(learning_rate=0.01, warmup_steps=2, clip_norm=0.5),
    }
    return TrainConfig(**{**settings, **changed})


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def run_all(
    tokenizer: WordpieceTokenizer,
    run: Path,
    **more: Any,
) -> tuple[CountingJob, TrainReport]:
    job = CountingJob(tokenizer)
    return job, train(job, run, REQUEST, config=config(), **more)


def test_each_step_is_prepared_run_and_measured_in_its_turn(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    job, report = run_all(tokenizer, tmp_path / "run")
    steps = [call for step in range(7) for call in (("before", step), ("step", step))]
    steps.insert(8, ("evaluate", 4))  # after four steps
    assert job.calls == [("evaluate", 0), *steps, ("evaluate", 7)]
    assert (report.steps, report.resumed_from, report.already_done) == (7, 0, False)
    assert report.metrics["eval/loss"] == 1.0
    assert report.metrics["before"] == 6.0


def test_all_steps_are_written_and_some_are_shown(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    shown: list[tuple[int, int, bool]] = []
    run_all(
        tokenizer,
        tmp_path / "run",
        on_metrics=lambda step, steps, m: shown.append((step, steps, "loss" in m)),
    )
    assert shown == [
        (0, 7, False),
        (1, 7, True),
        (3, 7, True),
        (4, 7, False),
        (6, 7, True),
        (7, 7, True),
        (7, 7, False),
    ]
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 7]
    first = lines[1]
    assert first["tokens_per_second"] == pytest.approx(10.0 / first["step_seconds"])
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.008, 0.006, 0.004, 0.002])


def test_gradients_are_clipped_and_their_own_norm_is_told(
    tokenizer: WordpieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def look(self: torch.optim.AdamW, closure: None = None) -> None:
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    run_all(tokenizer, tmp_path / "run")
    assert seen == pytest.approx([0.5] * 7, rel=1e-4)
    norms = [line["gradient_norm"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert min(norms) > 1


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_run_computes_on_its_own_threads_and_leaves_those_of_the_process_as_they_were(
    tokenizer: WordpieceTokenizer, tmp_path: Path, *, ends_well: bool
) -> None:
    counts: set[int] = set()

    def look(step: int, *_: object) -> None:
        counts.add(torch.get_num_threads())
        if step == 7 and not ends_well:
            raise Killed

    torch.set_num_threads(3)
    try:
        with nullcontext() if ends_well else pytest.raises(Killed):
            run_all(tokenizer, tmp_path / "run", on_metrics=look)
        assert counts == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_a_step_whose_gradients_are_not_finite_ends_the_run_and_updates_nothing(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    """The checkpoints before it are healthy, and stay."""
    job = CountingJob(tokenizer)
    before: list[torch.Tensor] = []

    def step(number: int) -> Mapping[str, float]:
        measures = CountingJob.step(job, number)
        if number < 4:
            return measures
        before.extend(p.detach().clone() for p in job.encoder.parameters())
        next(job.encoder.parameters()).grad[0] = torch.inf  # pyright: ignore[reportOptionalSubscript]
        return {**measures, "loss": torch.inf}

    job.step = step
    told = r"step 5: found gradients with a norm of (nan|inf) \(loss inf\).*lower .*learning_rate"
    with pytest.raises(DivergedError, match=told):
        train(job, tmp_path / "run", REQUEST, config=config())
    for found, expected in zip(job.encoder.parameters(), before, strict=True):
        assert torch.equal(found, expected)
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-2", "step-4"]
    for parameter in load_model(tmp_path / "run").need_encoder().parameters():
        assert torch.isfinite(parameter).all()


def test_dropout_is_on_in_steps_and_off_in_measurements(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    job, _ = run_all(tokenizer, tmp_path / "run")
    assert {when for when, _, _ in job.dropouts} == {"step", "evaluate"}
    for when, training, rate in job.dropouts:
        assert training == (when == "step")
        assert rate == 0.25 or when == "evaluate"


def test_the_newest_checkpoints_are_kept(tokenizer: WordpieceTokenizer, tmp_path: Path) -> None:
    job, _ = run_all(tokenizer, tmp_path / "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-6", "step-7"]
    saved = load_model(tmp_path / "run").need_encoder()
    for found, expected in zip(saved.parameters(), job.encoder.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_step_draws_the_same_random_numbers_after_a_resume(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    whole, _ = run_all(tokenizer, tmp_path / "whole")
    assert len(set(whole.noise)) == 7

    def kill(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        del steps
        if step == 6 and "loss" in metrics:
            raise Killed

    with pytest.raises(Killed):
        run_all(tokenizer, tmp_path / "run", on_metrics=kill)
    resumed, report = run_all(tokenizer, tmp_path / "run")
    assert report.resumed_from == 4
    assert resumed.noise == whole.noise[4:]
    assert resumed.restored == {"kept": 7, "step": 4}
    assert ("evaluate", 0) not in resumed.calls


def test_a_run_killed_just_before_its_manifest_ends_without_a_step(
    tokenizer: WordpieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_finish", kill)
        with pytest.raises(Killed):
            run_all(tokenizer, tmp_path / "run")
    job, report = run_all(tokenizer, tmp_path / "run")
    assert job.calls == []
    assert report.resumed_from == report.steps == 7
    lines = read_metrics(tmp_path / "run")
    assert report.metrics["loss"] == next(x["loss"] for x in reversed(lines) if "loss" in x)
    assert report.metrics["eval/loss"] == 1.0
    with open_run(tmp_path / "run", REQUEST) as again:
        assert again is not None
        assert again.metrics == report.metrics


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used_once_it_is_gone(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    def kill(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        del steps, metrics
        if step == 6:
            raise Killed

    with pytest.raises(Killed):
        run_all(tokenizer, tmp_path / "run", on_metrics=kill)
    newest = list_checkpoints(tmp_path / "run")[-1]
    content = bytearray((newest / "training.safetensors").read_bytes())
    content[-3] ^= 1
    (newest / "training.safetensors").write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"step-4/training\.safetensors is damaged") as error:
        run_all(tokenizer, tmp_path / "run")
    assert f"remove {newest}" in str(error.value)
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    _, report = run_all(tokenizer, tmp_path / "run")
    assert report.resumed_from == 2


def test_the_manifest_tells_what_it_cost(tokenizer: WordpieceTokenizer, tmp_path: Path) -> None:
    run_all(tokenizer, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "manifest.json").read_text())["content"]
    assert content["steps"] == 7
    assert content["seconds"] > 0
    assert content["peak_memory_bytes"] > 1e6


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_processes(
    tokenizer: WordpieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as their steps were kept: killed at 6, resumed at 4."""
    clock = iter(range(10_000))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    _, whole = run_all(tokenizer, tmp_path / "whole")

    def kill(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        del steps
        if step == 6 and "loss" in metrics:
            raise Killed

    with pytest.raises(Killed):
        run_all(tokenizer, tmp_path / "run", on_metrics=kill)
    first = json.loads((tmp_path / "run" / loop.SECONDS).read_text())["seconds"]
    _, resumed = run_all(tokenizer, tmp_path / "run")
    assert resumed.seconds == pytest.approx(whole.seconds, abs=1)  # one reading of the clock more
    assert 0 < first < resumed.seconds
    content = json.loads((tmp_path / "run" / "manifest.json").read_text())["content"]
    assert content["seconds"] == resumed.seconds
