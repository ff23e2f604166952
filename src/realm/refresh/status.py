"""What a run that refreshes an index is doing: trainer, builders, snapshots; from any process."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realm.checkpoint.run_records import newest_metrics, read_run
from realm.errors import ArtifactError
from realm.index.snapshot import list_snapshots
from realm.refresh.parameters import list_parameters
from realm.refresh.patches import list_patches
from realm.refresh.presence import Seen, builders_of, see, trainer_file


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run at one moment."""

    run: Path
    is_finished: bool
    refresh: dict[str, Any]
    """The run's refresh settings."""
    trainer: Seen | None
    builders: list[Seen]
    snapshots: list[int]
    """Steps of the snapshots on disk."""
    parameters: list[int]
    """Steps of the parameters that builders can take."""
    num_patches: int
    metrics: dict[str, float]
    """The newest value of each number that the run has logged lately."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"run": str(self.run)}


def run_status(run: Path) -> RunStatus:
    """Look at a run's folder; nothing is changed.

    Raises:
        ArtifactError: it is no run that refreshes an index.
    """
    told = read_run(run)
    refresh = told.settings.get("refresh")
    if not isinstance(refresh, dict):
        raise ArtifactError(
            f"{run} refreshes no index; expected a run of `realm pretrain`, or of `realm finetune` "
            "with train_passages=true"
        )
    return RunStatus(
        run=run,
        is_finished=told.state == "finished",
        refresh=refresh,
        trainer=see(trainer_file(run)),
        builders=builders_of(run),
        snapshots=[step for step, _ in list_snapshots(run)],
        parameters=[one.step for one in list_parameters(run)],
        num_patches=len(list_patches(run)),
        metrics=newest_metrics(run),
    )
