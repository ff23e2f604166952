"""The loop that every training stage shares: step, log, measure, save, resume."""

import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from realm.checkpoint.checkpoints import (
    Model,
    TrainingState,
    checkpoint_folder,
    load_state,
    remove_old_checkpoints,
    save_checkpoint,
)
from realm.checkpoint.run_folder import TrainReport, resume_point, start_run
from realm.config import TrainConfig
from realm.model.bert import set_dropout
from realm.storage import MANIFEST, Request, read_json, write_json
from realm.training.memory import limit_kernel_cache, return_free_memory
from realm.training.optimizer import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
    warmup_steps,
)
from realm.training.runlog import RunLog

SECONDS = "seconds.json"
"""How long all processes together worked on a run, up to its newest checkpoint."""
OWN = "job."
"""Before the names of a stage's own tensors in a checkpoint."""
OnMetrics = Callable[[int, int, Mapping[str, float]], None]
"""Called with (step, steps, metrics of the step)."""


@runtime_checkable
class Job(Protocol):
    """One training stage, as the loop sees it."""

    @property
    def model(self) -> Model:
        """The parts that are saved."""
        ...

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the parts that learn, with relative learning rates."""
        ...

    def before_step(self, step: int) -> Mapping[str, float]:
        """Do what stands between two steps (index refresh); return its metrics."""
        ...

    def step(self, step: int) -> Mapping[str, float]:
        """Run forward and backward of one batch, leave gradients, return metrics."""
        ...

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure on held-out data."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Return JSON values and tensors that a resume needs beside parameters and optimiser."""
        ...

    def restore(self, values: Mapping[str, Any]) -> None:
        """Put back what `state` returned; `step` is among the values."""
        ...


def train(
    job: Job,
    run: Path,
    request: Request,
    *,
    config: TrainConfig,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
) -> TrainReport:
    """Run a job to its end, from its newest checkpoint if there is one; within `open_run`.

    Every random number is a function of (seed, step), so that on a CPU a run that was killed and
    resumed equals one that was not, bit for bit.

    Args:
        job: what a step does.
        run: the run's folder, held by `open_run`.
        request: what the run was asked for; becomes its manifest.
        config: steps, cadence, optimiser.
        on_metrics: called after every logged step.
        tensorboard: also write TensorBoard events.
    """
    start_run(run, request)
    limit_kernel_cache()
    if config.threads:
        torch.set_num_threads(config.threads)
    optimizer = build_optimizer(job.trained(), config.optimizer)
    first = 0
    if (found := resume_point(run)) is not None:
        first = _restore(job, optimizer, load_state(found))
    log = RunLog(run, resume_step=first, tensorboard=tensorboard)
    started = time.monotonic() - _seconds_before(run, first)
    last = dict(log.last)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    warmup = warmup_steps(config.optimizer, config.steps)
    if first == 0:
        _measure(job, 0, log, config, last, on_metrics)
    for step in range(first, config.steps):
        began = time.monotonic()
        metrics = dict(job.before_step(step))
        factor = learning_rate_factor(step, num_steps=config.steps, warmup=warmup)
        set_learning_rate(optimizer, config.optimizer.learning_rate * factor)
        torch.manual_seed(config.seed * 1_000_003 + step)
        _set_training(job, config.dropout)
        metrics |= job.step(step)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        return_free_memory(done)
        seconds = time.monotonic() - began
        metrics |= {
            "gradient_norm": float(norm),
            "learning_rate": config.optimizer.learning_rate * factor,
            "step_seconds": seconds,
        }
        if "tokens" in metrics:
            metrics["tokens_per_second"] = metrics["tokens"] / seconds
        last |= metrics
        log.write(done, metrics)
        if on_metrics and (done % config.log_every_steps == 0 or done in {1, config.steps}):
            on_metrics(done, config.steps, metrics)
        if done % config.eval_every_steps == 0 or done == config.steps:
            _measure(job, done, log, config, last, on_metrics)
        if done % config.save_every_steps == 0 or done == config.steps:
            _save(job, run, request, optimizer, done, keep=config.keep_checkpoints)
            write_json(run / SECONDS, {"seconds": time.monotonic() - started})
    log.close()
    return _finish(run, request, config, last, started=started, first=first)


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _seconds_before(run: Path, first: int) -> float:
    """Return how long earlier processes worked on the steps before `first`."""
    known = run / SECONDS
    return float(read_json(known)["seconds"]) if first and known.is_file() else 0.0


def _set_training(job: Job, dropout: float) -> None:
    for part in job.model.modules.values():
        part.train()
        set_dropout(part, dropout)


def _measure(
    job: Job,
    step: int,
    log: RunLog,
    config: TrainConfig,
    last: dict[str, float],
    on_metrics: OnMetrics | None,
) -> None:
    for part in job.model.modules.values():
        part.eval()
    measured = dict(job.evaluate(step))
    if not measured:
        return
    log.write(step, measured)
    last |= measured
    if on_metrics:
        on_metrics(step, config.steps, measured)


def _save(
    job: Job,
    run: Path,
    request: Request,
    optimizer: torch.optim.Optimizer,
    step: int,
    *,
    keep: int,
) -> None:
    told = job.state()
    own = {f"{OWN}{name}": value for name, value in told.items() if isinstance(value, torch.Tensor)}
    state = TrainingState(
        step=step,
        tensors={**optimizer_tensors(optimizer), **own},
        values={n: value for n, value in told.items() if not isinstance(value, torch.Tensor)},
    )
    folder = checkpoint_folder(run, step)
    if not folder.exists():
        save_checkpoint(
            folder, job.model, settings=request.settings, inputs=request.inputs, state=state
        )
    remove_old_checkpoints(run, keep=keep)


def _restore(job: Job, optimizer: torch.optim.Optimizer, state: TrainingState) -> int:
    """Put optimiser and job back; return the step to go on from."""
    own = {n.removeprefix(OWN): t for n, t in state.tensors.items() if n.startswith(OWN)}
    moments = {n: t for n, t in state.tensors.items() if not n.startswith(OWN)}
    restore_optimizer(optimizer, moments)
    job.restore({**state.values, **own, "step": state.step})
    return state.step


def _finish(
    run: Path,
    request: Request,
    config: TrainConfig,
    last: Mapping[str, float],
    *,
    started: float,
    first: int,
) -> TrainReport:
    seconds = time.monotonic() - started
    content = {
        "steps": config.steps,
        "seconds": seconds,
        "metrics": dict(last),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    newest = resume_point(run)
    fingerprint = read_json(newest / MANIFEST)["fingerprint"] if newest else ""
    write_json(
        run / MANIFEST, {**request.as_json(), "fingerprint": fingerprint, "content": content}
    )
    return TrainReport(
        run=run,
        steps=config.steps,
        seconds=seconds,
        resumed_from=first,
        already_done=False,
        metrics=dict(last),
    )
