"""The loop that every training stage shares: step, log, measure, save, resume.

On several ranks each runs this loop on its part of every batch. A job divides its loss by what the
whole batch holds, so that the sum of all ranks' gradients, which the loop takes once a step, is
the gradient of one rank with the same batch. torch's DistributedDataParallel would do the same by
hooks in the backward pass; a step here has several of those, their number differs between ranks,
and only the last could be overlapped with the sending.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from realm.checkpoint.checkpoints import (
    TrainingState,
    checkpoint_folder,
    load_state,
    remove_old_checkpoints,
    save_checkpoint,
)
from realm.checkpoint.parts import Model
from realm.checkpoint.run_folder import TrainReport, resume_point, start_run
from realm.config import TrainConfig
from realm.device import choose_device, on_threads
from realm.errors import ConfigError, DivergedError
from realm.memory import limit_kernel_cache, peak_memory_bytes, return_free_memory
from realm.model.bert import set_attention, set_dropout
from realm.ranks import ALONE, Ranks
from realm.storage import MANIFEST, Request, read_json, write_json
from realm.training.optimizer import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
    warmup_steps,
)
from realm.training.runlog import RunLog
from realm.versions import versions

SECONDS = "seconds.json"
"""How long all processes together worked on a run, up to its newest checkpoint."""
OWN = "job."
"""Before the names of a stage's own tensors in a checkpoint."""
OnMetrics = Callable[[int, int, Mapping[str, float]], None]
"""Called with (step, steps, metrics of the step)."""


@runtime_checkable
class Job(Protocol):
    """One training stage, as the loop sees it.

    On several ranks `step` and `evaluate` return the numbers of all of them together.
    """

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
        """Run forward and backward of one batch, leave gradients, return metrics.

        The gradients are this rank's share: their sum over all ranks is the whole batch's.
        """
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
    at_end: Callable[[], object] = lambda: None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Run a job to its end, from its newest checkpoint if there is one; within `open_run`.

    Every random number is a function of (seed, step), so that on a CPU a run that was killed and
    resumed equals one that was not, bit for bit. It may go on with another number of ranks, and
    then equals the other up to rounding (without dropout and `gradient_candidates`: noise and draws
    are each rank's own).

    Args:
        job: what a step does.
        run: the run's folder, held by `open_run`.
        request: what the run was asked for; becomes its manifest.
        config: steps, cadence, optimiser.
        on_metrics: called after every logged step.
        tensorboard: also write TensorBoard events.
        at_end: called on all ranks after the last checkpoint, before the run counts as finished;
            again where it was killed in between.
        ranks: the processes that train together; the first one writes.

    Raises:
        DivergedError: a step's gradients are not finite; all that was saved before is whole.
        RankError: another rank died, or does not answer.
    """
    with on_threads(config.threads):
        ranks.from_first(partial(start_run, run, request))
        limit_kernel_cache()
        for part in job.model.modules.values():
            part.to(choose_device(config.device))
            set_attention(part, choose_device(config.device), dropout=config.dropout)
        optimizer = build_optimizer(job.trained(), config.optimizer)
        first = 0
        if (found := resume_point(run, ranks)) is not None:
            first = _restore(job, optimizer, load_state(found))
        ranks.copy_from_first(job.model.modules.values())
        on_metrics = on_metrics if ranks.is_first else None
        log = RunLog(run, resume_step=first, tensorboard=tensorboard, writes=ranks.is_first)
        started = time.monotonic() - _seconds_before(run, first)
        last = dict(log.last)
        if first == 0:
            _measure(job, 0, log, config, last, on_metrics)
        for step in range(first, config.steps):
            done = step + 1
            metrics = _update(job, optimizer, step, config, ranks)
            last |= metrics
            log.write(done, metrics)
            if on_metrics and (done % config.log_every_steps == 0 or done in {1, config.steps}):
                on_metrics(done, config.steps, metrics)
            if done % config.eval_every_steps == 0 or done == config.steps:
                _measure(job, done, log, config, last, on_metrics)
            if done % config.save_every_steps == 0 or done == config.steps:
                ranks.from_first(
                    partial(_save, job, run, request, optimizer, done, config, started)
                )
        log.close()
        at_end()
        report = TrainReport(
            run=run,
            steps=config.steps,
            seconds=time.monotonic() - started,
            resumed_from=first,
            already_done=False,
            metrics=last,
        )
        ranks.from_first(partial(_finish, request, report, str(choose_device(config.device))))
        return report


def check_ranks(config: TrainConfig, ranks: Ranks) -> None:
    """Refuse a batch that the ranks cannot share equally.

    Raises:
        ConfigError: some would wait for the others at every step.
    """
    size, world = config.batch_size, ranks.world
    if size % world:
        fits = [n for n in (size - size % world, size + world - size % world) if n]
        raise ConfigError(
            f"batch_size={size} is for all {world} ranks together, and cannot be shared equally; "
            f"use `--set batch_size={' or '.join(map(str, fits))}`, or another number of ranks"
        )


def _seconds_before(run: Path, first: int) -> float:
    """Return how long earlier processes worked on the steps before `first`."""
    known = run / SECONDS
    return float(read_json(known)["seconds"]) if first and known.is_file() else 0.0


def _update(
    job: Job, optimizer: torch.optim.Optimizer, step: int, config: TrainConfig, ranks: Ranks
) -> dict[str, float]:
    """Run one step and update the parameters with what it learnt; return its metrics."""
    began = time.monotonic()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    warmup = warmup_steps(config.optimizer, config.steps)
    metrics = dict(job.before_step(step))
    factor = learning_rate_factor(step, num_steps=config.steps, warmup=warmup)
    rate = config.optimizer.learning_rate * factor
    set_learning_rate(optimizer, rate)
    torch.manual_seed((ranks.rank << 40) + config.seed * 1_000_003 + step)
    _set_training(job, config.dropout)
    metrics |= job.step(step)
    ranks.sum_gradients(parameters)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm))
    if not math.isfinite(norm):  # on all ranks alike: it is of their sum
        loss = metrics.get("loss", math.nan)
        raise DivergedError(step=step + 1, loss=loss, norm=norm, learning_rate=rate)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return_free_memory(step + 1)
    seconds = time.monotonic() - began
    metrics |= {
        "gradient_norm": norm,
        "learning_rate": rate,
        "step_seconds": seconds,
    }
    if "tokens" in metrics:
        metrics["tokens_per_second"] = metrics["tokens"] / seconds
    return metrics


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
    config: TrainConfig,
    started: float,
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
    remove_old_checkpoints(run, keep=config.keep_checkpoints)
    write_json(run / SECONDS, {"seconds": time.monotonic() - started})


def _restore(job: Job, optimizer: torch.optim.Optimizer, state: TrainingState) -> int:
    """Put optimiser and job back; return the step to go on from."""
    own = {n.removeprefix(OWN): t for n, t in state.tensors.items() if n.startswith(OWN)}
    moments = {n: t for n, t in state.tensors.items() if not n.startswith(OWN)}
    restore_optimizer(optimizer, moments)
    job.restore({**state.values, **own, "step": state.step})
    return state.step


def _finish(request: Request, report: TrainReport, device: str) -> None:
    content = {
        "steps": report.steps,
        "seconds": report.seconds,
        "metrics": dict(report.metrics),
        "peak_memory_bytes": peak_memory_bytes(),
        "versions": versions(),
        "device": device,
    }
    newest = resume_point(report.run)
    fingerprint = read_json(newest / MANIFEST)["fingerprint"] if newest else ""
    write_json(
        report.run / MANIFEST, {**request.as_json(), "fingerprint": fingerprint, "content": content}
    )
