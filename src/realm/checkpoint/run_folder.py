"""The folder of a training run: is it new, to be resumed, finished, or another run's?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from realm.checkpoint.checkpoints import list_checkpoints
from realm.errors import ArtifactError
from realm.storage import MANIFEST, REQUEST, Request, is_done, read_json, remove, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """How a training stage ended."""

    run: Path
    steps: int
    seconds: float
    resumed_from: int
    already_done: bool
    metrics: Mapping[str, float]
    """The last values measured."""


def prepare_run(run: Path, request: Request, *, rebuild: bool = False) -> TrainReport | None:
    """Return a report when the run is already finished, None when it is to start or to go on.

    With `rebuild`, what stands in the folder is removed. Nothing is written yet (`start_run`),
    so that settings that turn out to be impossible leave no folder behind.

    Raises:
        ArtifactError: the folder belongs to a run with other settings or inputs.
    """
    if is_unfinished(run) and not rebuild:
        found = read_json(run / REQUEST)
        wanted = json.loads(json.dumps(request.as_json()))
        if found != wanted:
            keys = sorted(
                f"{part}.{name}"
                for part in ("settings", "inputs")
                for name in found[part].keys() | wanted[part].keys()
                if found[part].get(name) != wanted[part].get(name)
            )
            raise ArtifactError(
                f"{run} holds an unfinished run with other {', '.join(keys) or 'format version'}; "
                "run it with the same settings to resume, choose another --out, or pass --rebuild"
            )
        return None
    if is_unfinished(run):
        remove(run)
    if is_done(run, request, rebuild=rebuild):
        content = read_json(run / MANIFEST)["content"]
        return TrainReport(
            run=run,
            steps=int(content["steps"]),
            seconds=float(content["seconds"]),
            resumed_from=int(content["steps"]),
            already_done=True,
            metrics=content["metrics"],
        )
    return None


def start_run(run: Path, request: Request) -> None:
    """Create a run's folder unless it is there; from here on the run can be resumed.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    if (run / REQUEST).is_file():
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / REQUEST, request.as_json())
    except OSError as error:
        raise ArtifactError(
            f"cannot write {run}: {error.strerror or error}; free space, fix the permissions, or "
            "choose another --out"
        ) from error


def is_unfinished(run: Path) -> bool:
    """Return whether a run was started there and not finished."""
    return (run / REQUEST).is_file() and not (run / MANIFEST).is_file()


def resume_point(run: Path) -> Path | None:
    """Return the newest checkpoint that a run can go on from."""
    found = list_checkpoints(run)
    return found[-1] if found else None
