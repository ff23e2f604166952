"""What a training run's folder says to whoever only looks at it: its request and its numbers.

Nothing here is heavy to import, nothing is locked, and a run that is being written may be read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from realm.errors import ArtifactError, DamagedError, UnreadableError
from realm.storage import MANIFEST, REQUEST, is_locked, read_json, unreadable

METRICS = "metrics.jsonl"
HELD_OUT = "held-out.json"
"""What each candidate did for a few held-out examples of a pre-training run."""
BLOCK_BYTES = 1 << 16
"""What is read first of the end of a log; doubled until it reaches far enough back."""

MAX_BITS = 1_000
"""Of a whole number in a log; a float holds 1,024."""

STAGES = ("ict", "mlm", "pretrain", "finetune", "classify")
State = Literal["running", "finished", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A training run as its folder tells it."""

    folder: Path
    settings: dict[str, Any]
    inputs: dict[str, str]
    """Name of each input -> its fingerprint."""
    content: dict[str, Any]
    """steps, seconds, metrics, peak_memory_bytes; empty until the run is finished."""
    fingerprint: str | None
    """None until the run is finished."""
    state: State

    @property
    def stage(self) -> str:
        """What made it: ict, mlm, pretrain, finetune, classify, or import."""
        told = self.settings.get("task") or self.settings.get("stage", "")  # finetune --task
        return str(told)

    @property
    def num_steps(self) -> int:
        """Steps that the run is to have."""
        return int(self.settings.get("steps", 0))


def read_run(folder: Path) -> RunRecord:
    """Return what a run's folder says of it; nothing is changed.

    Raises:
        ArtifactError: there is no training run.
    """
    is_finished = (folder / MANIFEST).is_file()
    known = folder / (MANIFEST if is_finished else REQUEST)
    if not known.is_file():
        raise ArtifactError(
            f"found no run in {folder}; expected the folder that `realm pretrain --out` or another "
            "training verb writes"
        )
    told = read_json(known)
    settings = told.get("settings")
    if told.get("kind") != "run" or not isinstance(settings, dict):
        raise ArtifactError(
            f"{folder} holds {str(told.get('kind'))[:40]!r}, expected a training run: the folder "
            "that `realm pretrain --out` or another training verb writes"
        )
    _check(known, told)
    return RunRecord(
        folder=folder,
        settings=cast("dict[str, Any]", settings),
        inputs=told.get("inputs", {}),
        content=told.get("content", {}),
        fingerprint=told.get("fingerprint"),
        state="finished" if is_finished else "running" if is_locked(folder) else "stopped",
    )


def _check(file: Path, told: dict[str, Any]) -> None:
    """Refuse values of other types than a run writes, which would fail whoever uses them."""
    inputs, content = told.get("inputs", {}), told.get("content", {})
    right = {
        "inputs": _is_texts(inputs),
        "content": isinstance(content, dict),
        "fingerprint": isinstance(told.get("fingerprint", ""), str),
        "steps": is_number(told["settings"].get("steps", 0)),
    }
    if isinstance(content, dict):
        held = cast("dict[str, object]", content)
        right |= {name: is_number(held.get(name, 0)) for name in ("seconds", "peak_memory_bytes")}
        right["versions"] = _is_texts(held.get("versions", {}))
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise ArtifactError(
            f"{file} is damaged: found another kind of value than a run writes as "
            f"{', '.join(wrong)}; copy the file again, or make the run again"
        )


def _is_texts(value: object) -> bool:
    """Return whether a value is an object that holds texts."""
    return isinstance(value, dict) and all(
        isinstance(one, str) for one in cast("dict[str, object]", value).values()
    )


def is_trained(folder: Path) -> bool:
    """Return whether a training run stands there, begun or finished; an imported model is none."""
    try:
        return read_run(folder).stage in STAGES
    except ArtifactError:
        return False


def read_metrics(run: Path, *, after: int = -1) -> list[dict[str, Any]]:
    """Return a run's logged lines, oldest first; one cut by a kill, or half written, is left out.

    Args:
        run: the run's folder.
        after: leave out lines of this step and of those before. The log is read from its end, no
            further back than needed.

    Raises:
        UnreadableError: it is there and cannot be read.
    """
    size = BLOCK_BYTES
    while True:
        lines, is_whole = _last_lines(run, None if after < 0 else size)
        if is_whole or (lines and lines[0]["step"] <= after):
            return [line for line in lines if line["step"] > after]
        size *= 2


def read_held_out(run: Path) -> dict[str, Any]:
    """Return what candidates of held-out examples did, first and newest; {} where unknown.

    Raises:
        DamagedError: the file does not say what was written.
        UnreadableError: it cannot be read.
    """
    try:
        return read_json(run / HELD_OUT)
    except (DamagedError, UnreadableError):
        raise
    except ArtifactError:
        return {}


def newest_metrics(run: Path) -> dict[str, float]:
    """Return the newest value of each number that the run has logged lately.

    Raises:
        UnreadableError: its log is there and cannot be read.
    """
    newest: dict[str, float] = {}
    for line in _last_lines(run, BLOCK_BYTES)[0]:
        newest |= {name: float(value) for name, value in line.items() if is_number(value)}
    return newest


def is_number(value: object) -> bool:
    """Return whether a logged value is a number that a float can hold."""
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= MAX_BITS
    return isinstance(value, float)


def _last_lines(run: Path, size: int | None) -> tuple[list[dict[str, Any]], bool]:
    """Return the lines that stand whole in the last bytes of the log, and whether that is all."""
    try:
        with (run / METRICS).open("rb") as stream:
            start = 0 if size is None else max(0, stream.seek(0, 2) - size)
            stream.seek(start)
            told = stream.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return [], True
    except OSError as error:
        raise unreadable(run / METRICS, error) from None
    return _parsed(told[1:] if start else told), start == 0


def _parsed(lines: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            value: object = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut by a kill, or being written
        if isinstance(value, dict):
            entry = cast("dict[str, Any]", value)
            step = entry.get("step")
            if isinstance(step, int) and is_number(step):
                found.append(entry)
    return found
