"""Numbers of a run: metrics.jsonl, and TensorBoard where it is asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from realm.checkpoint.run_records import METRICS, read_metrics
from realm.errors import ConfigError
from realm.storage import write_text


class RunLog:
    """Appends one JSON line per step; a resumed run drops the lines of steps it repeats.

    One that does not write (on all ranks but the first) knows the newest values all the same.
    """

    def __init__(
        self, run: Path, *, resume_step: int, tensorboard: bool = False, writes: bool = True
    ) -> None:
        self.path = run / METRICS
        self._writes = writes
        # Resumed from step 0 means from the start: what was measured at step 0 is repeated too.
        kept = [line for line in read_metrics(run) if 0 < resume_step >= line["step"]]
        self.last: dict[str, float] = {}
        """The newest value of everything that was logged before the resume."""
        for line in kept:
            self.last |= {name: value for name, value in line.items() if name != "step"}
        self._writer = _tensorboard(run, resume_step) if tensorboard and writes else None
        if not writes:
            return
        # On disk before it takes the log's place: after a power cut nothing earlier is lost.
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep one step's numbers."""
        if not self._writes:
            return
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._writer:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what is open."""
        if self._writer:
            self._writer.close()


def _tensorboard(run: Path, resume_step: int) -> Any:  # noqa: ANN401
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise ConfigError(
            'tensorboard is not installed; run `pip install "realm-lm[track]"` or leave out '
            "`--tensorboard`"
        ) from None
    return cast("Any", SummaryWriter)(str(run / "tensorboard"), purge_step=resume_step + 1)
