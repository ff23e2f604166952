"""The folder of a training run: is it new, to be resumed, finished, or another run's?

A run is written in place, so that it can be resumed. The one that it replaces is kept aside, as
`.NAME.replaced`, from its start to its end.
"""

import json
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realm.checkpoint.checkpoints import list_checkpoints
from realm.errors import ArtifactError, RealmError
from realm.ranks import ALONE, Ranks
from realm.storage import (
    MANIFEST,
    REQUEST,
    Request,
    compared,
    is_done,
    locked,
    mend,
    read_json,
    remove,
    replaced_folder,
    scratch_folder,
    set_aside,
    sync,
    write_json,
)


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


@contextmanager
def open_run(
    run: Path,
    request: Request,
    *,
    rebuild: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> Generator[TrainReport | None]:
    """Yield a report when the run is already finished, None when it is to start or to go on.

    Nobody else may write the run meanwhile. Nothing is written yet (`start_run`), so that settings
    that turn out to be impossible leave no folder behind. With `rebuild`, what stands there is
    set aside. It comes back if the new run does not start, and is removed once that is finished;
    asked again before, the new run goes on. Of several ranks, the first opens it for all.

    A run may go on with other `batch_tokens`; `tell` is called with a sentence that says so.

    Raises:
        ArtifactError: the folder belongs to a run with other settings or inputs, or to a process
            that is writing it.
        RankError: the first rank could not open it, or died.
    """
    report: TrainReport | None = None
    with ExitStack() as held:

        def enter() -> bool:
            nonlocal report
            report = held.enter_context(_open_run(run, request, rebuild, tell))
            return report is not None

        if ranks.from_first(enter) and report is None:
            report = _report(run)
        yield report


@contextmanager
def _open_run(
    run: Path,
    request: Request,
    rebuild: bool,  # noqa: FBT001
    tell: Callable[[str], None],
) -> Generator[TrainReport | None]:
    if (run / MANIFEST).is_file() and is_done(run, request, rebuild=rebuild):
        yield _report(run)
        return
    with locked(run):
        try:
            yield _look(run, request, rebuild, tell)
        except BaseException as error:
            mend(run)
            if isinstance(error, RealmError) and (old := replaced_folder(run)).exists():
                error.args = (f"{error}. What {run} is to replace is kept in {old}",)
            raise
        mend(run)


def start_run(run: Path, request: Request) -> None:
    """Create a run's folder unless it is there; from here on the run can be resumed.

    It appears with its request in it, so that a kill leaves no folder that nobody knows. One that
    is there gets the request that it goes on with.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    new = scratch_folder(run)
    try:
        if (run / REQUEST).is_file():
            if read_json(run / REQUEST) != _as_in_file(request):
                write_json(run / REQUEST, request.as_json())
            return
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        write_json(new / REQUEST, request.as_json())
        new.rename(run)
        sync(run.parent)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {run}: {error.strerror or error}; free space, fix the permissions, or "
            "choose another --out"
        ) from error


def is_unfinished(run: Path) -> bool:
    """Return whether a run was started there and not finished."""
    return (run / REQUEST).is_file() and not (run / MANIFEST).is_file()


def resume_point(run: Path, ranks: Ranks = ALONE) -> Path | None:
    """Return the newest checkpoint that a run can go on from; the same on every rank."""

    def newest() -> str | None:
        found = list_checkpoints(run)
        return str(found[-1]) if found else None

    found = ranks.from_first(newest)
    return Path(found) if found else None


def _look(
    run: Path,
    request: Request,
    rebuild: bool,  # noqa: FBT001
    tell: Callable[[str], None],
) -> TrainReport | None:
    old = replaced_folder(run)
    if not run.exists():
        mend(run)  # somebody was killed before the new run started
    if not is_unfinished(run):
        if is_done(run, request, rebuild=rebuild):
            return _report(run)
        if run.exists():
            set_aside(run)
        return None
    found = read_json(run / REQUEST)
    wanted = _as_in_file(request)
    is_same = compared(found) == compared(wanted)
    if rebuild and found.get("kind") == request.kind and not (old.exists() and is_same):
        remove(run) if old.exists() else set_aside(run)  # what was finished is kept
    elif not is_same:
        keys = _differing(compared(found), compared(wanted))
        raise ArtifactError(
            f"{run} holds an unfinished run with other {', '.join(keys) or 'format version'}; "
            "run it with the same settings to resume, choose another --out, or pass --rebuild"
        )
    elif keys := _differing(found, wanted):
        names = [key.partition(".")[2] for key in keys]
        now, before = (
            ", ".join(f"{name}={told['settings'].get(name)}" for name in names)
            for told in (wanted, found)
        )
        tell(
            f"{run} goes on with {now}, it was begun with {before}: its steps are the same but for "
            "rounding and for what dropout draws"
        )
    return None


def _as_in_file(request: Request) -> dict[str, Any]:
    return json.loads(json.dumps(request.as_json()))


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return which settings and inputs are others."""
    return sorted(
        f"{part}.{name}"
        for part in ("settings", "inputs")
        for name in found[part].keys() | wanted[part].keys()
        if found[part].get(name) != wanted[part].get(name)
    )


def _report(run: Path) -> TrainReport:
    """Return how a finished run ended."""
    content = read_json(run / MANIFEST)["content"]
    return TrainReport(
        run=run,
        steps=int(content["steps"]),
        seconds=float(content["seconds"]),
        resumed_from=int(content["steps"]),
        already_done=True,
        metrics=content["metrics"],
    )
