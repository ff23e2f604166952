"""All stages together, what follows from them, and what is impossible about them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from realm.config import ApproximateConfig
from realm.index.ivfpq import choose_layout
from realm.planning.costs import StageCost, embedding_seconds
from realm.planning.machine import MachineRates
from realm.planning.question_stages import finetune_stage, serving_stage
from realm.planning.stages import (
    ict_stage,
    mask_stage,
    mlm_stage,
    pretrain_stage,
    refresh_stage,
    split_stage,
)
from realm.planning.workload import Workload
from realm.readable import counted, size

ROOM = 0.9
"""Share of a memory that a plan may fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run takes."""

    work: Workload
    rates: MachineRates
    stages: tuple[StageCost, ...]
    """In the order in which they run; `refresh` once, and `a question` of serving last."""
    step_seconds: float
    """Of pre-training, refreshes aside."""
    refresh_seconds: float
    builders_needed: int | None
    """Fewest builders that rebuild the index within refresh.every_steps steps; None: writing and
    handing over alone take longer."""
    staleness: tuple[float, float]
    """Steps that the searched index is behind: (mean, at most)."""
    total_seconds: float
    """From articles to a fine-tuned model."""
    warnings: tuple[str, ...]
    """What does not fit or does not work out, and what to do."""

    def stage(self, name: str) -> StageCost:
        """Return one stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        work = self.work
        return {
            "passages": work.passages,
            "encoder": work.encoder.name,
            "embedder": work.embedder.name,
            "dim": work.dim,
            "passage_wordpieces": work.passage_wordpieces,
            "trainers": work.trainers,
            "builders": work.builders,
            "rates": asdict(self.rates),
            "stages": [
                {
                    **asdict(stage),
                    "memory_bytes": stage.memory_bytes,
                    "disk_bytes": stage.disk_bytes,
                    "network_bytes": stage.network_bytes,
                }
                for stage in self.stages
            ],
            "step_seconds": self.step_seconds,
            "refresh_seconds": self.refresh_seconds,
            "builders_needed": self.builders_needed,
            "staleness_steps": {"mean": self.staleness[0], "max": self.staleness[1]},
            "total_seconds": self.total_seconds,
            "warnings": list(self.warnings),
        }


def make_plan(work: Workload, rates: MachineRates) -> Plan:
    """Return the costs of every stage and what follows from them."""
    first = refresh_stage(replace(work, builders=0), rates, name="first index")
    refresh, pretrain = refresh_stage(work, rates), pretrain_stage(work, rates)
    stages = (
        split_stage(work, rates),
        mask_stage(work, rates),
        ict_stage(work, rates),
        mlm_stage(work, rates),
        first,
        pretrain,
        refresh,
        finetune_stage(work, rates),
        serving_stage(work, rates),
    )
    waiting = 0.0 if work.builders else work.num_refreshes * refresh.seconds
    total = sum(s.seconds for s in stages if s.name not in {"refresh", "a question"})
    return Plan(
        work=work,
        rates=rates,
        stages=stages,
        step_seconds=sum(pretrain.parts.values()),
        refresh_seconds=refresh.seconds,
        builders_needed=builders_needed(work, rates),
        staleness=staleness(work, rates),
        total_seconds=total + waiting,
        warnings=tuple(_warnings(work, rates, stages)),
    )


def builders_needed(work: Workload, rates: MachineRates) -> int | None:
    """Return the fewest builders that rebuild the index within refresh.every_steps steps.

    ceil(passages x seconds a passage / (every_steps x step seconds - writing - handing over))
    """
    step = sum(pretrain_stage(work, rates).parts.values())
    beside = refresh_stage(replace(work, builders=1), rates).parts
    room = work.refresh.every_steps * step - beside["writing"] - beside["handing over"]
    if room <= 0:
        return None
    return max(1, math.ceil(embedding_seconds(work, rates, work.passages) / room))


def split_processes(work: Workload, rates: MachineRates, processes: int) -> Workload:
    """Return the workload with so many processes divided into trainers and builders.

    As few builders as keep pace with refresh.every_steps; where none do, half of them. One
    process, or no refresh, leaves none.
    """
    if processes == 1 or work.num_refreshes == 0:
        return replace(work, trainers=processes, builders=0)
    for builders in range(1, processes):
        divided = replace(work, trainers=processes - builders, builders=builders)
        needed = builders_needed(divided, rates)
        if needed is not None and needed <= builders:
            return divided
    return replace(work, trainers=processes - processes // 2, builders=processes // 2)


def staleness(work: Workload, rates: MachineRates) -> tuple[float, float]:
    """Return (mean, largest) age of the searched index in steps.

    A rebuild that takes r steps' time starts every e' = max(every_steps, r) steps and is used
    from r to r + e' steps after the parameters it was built with. Between steps r is 0.
    """
    if work.num_refreshes == 0:
        return work.pretrain.steps / 2, float(work.pretrain.steps)
    step = sum(pretrain_stage(work, rates).parts.values())
    age = refresh_stage(work, rates).seconds / step if work.builders else 0.0
    period = max(float(work.refresh.every_steps), age)
    return age + period / 2, age + period


def _warnings(work: Workload, rates: MachineRates, stages: Sequence[StageCost]) -> list[str]:
    told: list[str] = []
    room = ROOM * rates.memory_bytes
    for stage in stages:
        index = stage.mapped.get("index (16 bits)", 0.0)
        if stage.memory_bytes + index <= room:
            continue
        if stage.memory_bytes > room:
            told.append(
                f"{stage.name}: a process needs {size(stage.memory_bytes)}, there are "
                f"{size(rates.memory_bytes)}; lower batch_tokens or num_candidates, or take a "
                "smaller encoder"
            )
        else:
            told.append(_index_too_large(work, rates, stage))
    needed = builders_needed(work, rates)
    if work.builders and needed is None:
        told.append(
            "writing and handing over a snapshot alone takes longer than refresh.every_steps "
            "steps; raise refresh.every_steps or use faster storage"
        )
    elif work.builders and needed is not None and needed > work.builders:
        told.append(
            f"{counted(work.builders, 'builder')} cannot rebuild the index every "
            f"{counted(work.refresh.every_steps, 'step')}; {needed:,} could, or raise "
            "refresh.every_steps"
        )
    _, oldest = staleness(work, rates)
    limit = work.refresh.max_staleness_steps
    if work.refresh.mode != "off" and oldest > limit:
        waits = work.builders and work.refresh.when_stale == "wait"
        told.append(
            f"the index would be {counted(round(oldest), 'step')} stale, "
            f"refresh.max_staleness_steps is {limit:,}: "
            f"{'the trainer would wait for it' if waits else 'training would stop'}"
        )
    return told


def _index_too_large(work: Workload, rates: MachineRates, stage: StageCost) -> str:
    """Say how many processes would hold the index, and what IVF-PQ would take instead."""
    left = ROOM * rates.memory_bytes - stage.memory_bytes
    ranks = math.ceil(work.scan_bytes / left)
    layout = choose_layout(ApproximateConfig(), num_passages=work.passages, dim=work.dim)
    coded = layout.index_bytes(work.passages, work.dim)
    held = stage.mapped["index (16 bits)"]
    return (
        f"{stage.name}: the index takes {size(held)} of memory in 16 bits and only {size(left)} "
        f"are left beside the model; {ranks:,} processes hold it, or IVF-PQ with "
        f"{layout.passage_bytes} bytes a passage ({size(float(coded))} in all)"
    )
