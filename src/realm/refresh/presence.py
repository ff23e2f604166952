"""What trainer and builders say of themselves, and whether they still live.

A process holds the lock of its file for as long as it lives, and writes into it what it does.
Nobody compares clocks: a process is alive if its lock is held; what it said is new if its `beat`
has moved.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realm.errors import ArtifactError
from realm.readable import counted
from realm.storage import is_locked, locked, read_json

PROCESSES = "processes"
SECONDS_BETWEEN_BEATS = 1.0
Tell = Callable[[str], None]
"""Called with a sentence when something happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process as another one sees it."""

    name: str
    is_alive: bool
    values: dict[str, Any]
    """state, step, pid, host, beat, and what its role adds."""


def whatever_happens(tell: Tell) -> Tell:
    """Return a `tell` that never fails: a log on a full disk stops nobody."""

    def told(sentence: str) -> None:
        with suppress(OSError):
            tell(sentence)

    return told


class Presence:
    """Writes what this process does; a full disk or a missing folder never stops it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._values: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
        self._beat = 0
        self._written = -SECONDS_BETWEEN_BEATS

    def tell(self, *, now: bool = False, **values: Any) -> None:  # noqa: ANN401
        """Say something; written at most once a second unless `now`."""
        is_news = values.get("state", self._values.get("state")) != self._values.get("state")
        self._values |= values
        moment = time.monotonic()
        if not (now or is_news) and moment - self._written < SECONDS_BETWEEN_BEATS:
            return
        self._beat += 1
        self._written = moment
        partial = self.file.with_name(f".{self.file.name}.partial")
        with suppress(OSError):
            partial.write_text(json.dumps({**self._values, "beat": self._beat}), encoding="utf-8")
            partial.replace(self.file)


@contextmanager
def present(file: Path) -> Generator[Presence]:
    """Hold the lock of a file while this process does something for a run.

    Raises:
        LockedError: another living process has this place.
    """
    with locked(file):
        yield Presence(file)


def see(file: Path) -> Seen | None:
    """Return what a process said last and whether it lives, None if there never was one."""
    try:
        values = read_json(file)
    except ArtifactError:
        if not is_locked(file):
            return None
        values = {}
    return Seen(name=file.stem, is_alive=is_locked(file), values=values)


def trainer_file(run: Path) -> Path:
    """Return the file in which a run's trainer says what it does."""
    return run / PROCESSES / "trainer.json"


def builder_file(run: Path, number: int) -> Path:
    """Return the file of one of a run's builders."""
    return run / PROCESSES / f"builder-{number}.json"


def builders_of(run: Path) -> list[Seen]:
    """Return the builders that a run has, or had."""
    files = sorted((run / PROCESSES).glob("builder-*.json"), key=lambda file: _number(file.stem))
    return [seen for file in files if (seen := see(file)) is not None]


def share_of(run: Path, number: int) -> tuple[int, int]:
    """Return (place among the living builders of a run, how many they are) of one of them."""
    living = {_number(seen.name) for seen in builders_of(run) if seen.is_alive} | {number}
    return sorted(living).index(number), len(living)


def furthest(run: Path, *, newest_step: int) -> tuple[int, int]:
    """Return (step of the parameters, passages done) of the living builder that is furthest.

    Args:
        run: the run's folder.
        newest_step: of the parameters that are published; a builder that has newer ones is still
            at work for a trainer that was killed.
    """
    seen = builders_of(run)
    told = [one.values for one in seen if one.is_alive] or [one.values for one in seen]
    done = [(int(v["for_step"]), int(v.get("done", 0))) for v in told if "for_step" in v]
    return max((one for one in done if one[0] <= newest_step), default=(-1, -1))


def _number(name: str) -> int:
    digits = name.removeprefix("builder-")
    return int(digits) if digits.isdigit() else -1


def state_of(seen: Seen) -> str:
    """Return in words what a process does."""
    state = str(seen.values.get("state", "starting"))
    if not seen.is_alive:
        return state if state.startswith(("ended", "stopped")) else f"dead (was {state})"
    if state.startswith("embedding") and "total" in seen.values:
        total = counted(int(seen.values["total"]), "passage")
        return f"{state}, {int(seen.values['done']):,} of {total}"
    return state
