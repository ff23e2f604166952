"""A run's curves, read from its folder alone, also while it is being written.

Nothing heavy is imported: a server reads curves every few seconds.
"""

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realm.checkpoint.run_records import (
    STAGES,
    RunRecord,
    State,
    is_number,
    is_trained,
    read_metrics,
    read_run,
)
from realm.errors import ArtifactError
from realm.storage import MANIFEST, REQUEST

REFRESHED = "index/refreshed"
"""1 in the line of a step before which a new snapshot came into use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What a run has logged after a step."""

    name: str
    stage: str
    """ict, mlm, pretrain, finetune or classify."""
    state: State
    step: int
    """Of the newest line, whatever was asked for; -1 before the first. It falls when a run that
    was cut goes on from its newest checkpoint: its later steps are then done again."""
    num_steps: int
    """Steps that the run is to have."""
    series: dict[str, list[tuple[int, float]]]
    """Metric as in metrics.jsonl ("eval/...": held out) -> (step, value), oldest first. A value
    that is no finite number is left out."""
    refreshes: list[int]
    """Steps that were the first to search a new snapshot."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def read_curves(run: Path, *, after: int = -1) -> Curves:
    """Return the curves of a run; nothing is changed, and nobody who writes it is held up.

    Args:
        run: the run's folder.
        after: only what was logged after this step; the log is then read from its end.

    Raises:
        ArtifactError: there is no training run.
    """
    record = read_run(run)
    if record.stage not in STAGES:
        raise ArtifactError(
            f"{run} holds a model that was imported, expected a training run "
            f"({', '.join(STAGES)}): only those have curves"
        )
    return curves_of(record, after=after)


def curves_of(record: RunRecord, *, after: int = -1) -> Curves:
    """Return the curves of a run that is known."""
    newest = -1
    series: dict[str, list[tuple[int, float]]] = {}
    # A line more than asked for, to know the newest step when nothing has come since.
    for line in read_metrics(record.folder, after=max(-1, after - 1)):
        newest = int(line["step"])
        for name, value in line.items():
            if newest > after and name != "step" and is_number(value) and math.isfinite(value):
                series.setdefault(name, []).append((newest, float(value)))
    if newest < 0 <= after:  # the run has gone back to before that step
        newest = max((int(line["step"]) for line in read_metrics(record.folder)), default=-1)
    return Curves(
        name=record.folder.resolve().name,
        stage=record.stage,
        state=record.state,
        step=newest,
        num_steps=record.num_steps,
        series=series,
        refreshes=[step for step, refreshed in series.get(REFRESHED, []) if refreshed],
    )


def find_runs(folder: Path) -> list[Path]:
    """Return the training runs in a folder, at any depth, or the folder itself; sorted.

    Nothing is looked for inside of runs and other folders that a stage has made, nor in hidden
    ones.

    Raises:
        ArtifactError: there is no folder.
    """
    if not folder.is_dir():
        raise ArtifactError(f"found no folder {folder}; expected one with training runs in it")
    runs: list[Path] = []
    for place, names, files in os.walk(folder):
        if MANIFEST in files or REQUEST in files:
            names.clear()
            if is_trained(Path(place)):
                runs.append(Path(place))
        else:
            names[:] = [name for name in names if not name.startswith(".")]
    return sorted(runs)
