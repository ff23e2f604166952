"""Writes that fail, one by one: what is told, what is left, and what going on makes of it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realm.storage import SEAL
from tests.faults.forks import Ended, run_with
from tests.faults.layer import CODES, Layer
from tests.towns import World

VARYING = {"metrics.jsonl", "seconds.json"}
"""A log with times, and how long a run took."""
VARYING_KEYS = {"seconds", "peak_memory_bytes", SEAL}
REMEDIES = ("free", "mend", "fix", "again", "permission", "choose", "make ")
"""Each error says what to do, in one of these words."""


def content_of(folder: Path) -> dict[str, Any]:
    """Return the content of every file below a folder, hidden ones too, without times.

    The times of a run, and what its memory took, differ between two equal runs.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in VARYING:
            found[path.relative_to(folder).as_posix()] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.name != "manifest.json":
        return path.read_bytes()
    told = json.loads(path.read_text(encoding="utf-8"))
    content = told.get("content", {})
    metrics = {k: v for k, v in content.get("metrics", {}).items() if not _is_a_time(k)}
    kept = {k: v for k, v in content.items() if k not in VARYING_KEYS}
    return {k: v for k, v in told.items() if k != SEAL} | {"content": {**kept, "metrics": metrics}}


def _is_a_time(name: str) -> bool:
    return "seconds" in name or "per_second" in name


def fail_one(
    world: World, command: Sequence[object], out: Path, number: int, expected: dict[str, Any]
) -> Ended:
    """Fail the call of this number, look what is told, run the command again, compare.

    Args:
        world: in whose folder calls are counted.
        command: writes `out`.
        out: is removed before, and at the end.
        number: of the call to fail; it decides the error and whether later calls fail too.
        expected: what `out` holds after a run that nothing disturbs.
    """
    clear(out)
    layer = Layer(
        root=str(out.parent),
        fail_at=number,
        code=CODES[number % len(CODES)],
        lasts=number // len(CODES) % 2 == 1,
    )
    ended = run_with(layer, command)
    case = f"{layer.code} at {ended.failed[:1]}: {ended.err}"
    assert ended.failed, f"call {number} of {command} was never made"
    check_told(ended, case)
    again = run_with(Layer(root=str(world.folder)), command)
    assert again.code == 0, f"{case}, and then {again.err}"
    found = content_of(out)
    assert found.keys() == expected.keys(), case
    differing = [name for name, value in found.items() if value != expected[name]]
    assert not differing, f"{case}: afterwards {differing} differ"
    clear(out)
    return ended


def check_told(ended: Ended, case: str) -> None:
    """See that a command came to its end, or told what to do, in one line."""
    assert ended.code in {0, 2}, case
    assert "Traceback" not in ended.err, case
    if ended.code:
        line = ended.err.strip().splitlines()[-1]
        assert line.startswith("error: "), case
        assert any(word in line.lower() for word in REMEDIES), f"it does not say what to do: {case}"


def clear(out: Path) -> None:
    """Remove a folder and what is hidden beside it."""
    for path in [out, *out.parent.glob(f".{out.name}*"), *out.parent.glob(f"{out.name}.*")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def calls_of(world: World, command: Sequence[object], out: Path) -> tuple[int, dict[str, Any]]:
    """Run a command undisturbed; return how many calls it makes, and what it leaves."""
    clear(out)
    ended = run_with(Layer(root=str(out.parent)), command)
    assert ended.code == 0, ended.err
    return len(ended.calls), content_of(out)


def written_by(world: World, folder: Path) -> dict[str, tuple[list[object], Path]]:
    """Return (command, folder it writes) by the name of a command."""
    qa, docs = world / "qa", sorted((world / "docs").iterdir())
    found: dict[str, tuple[list[object], Path]] = {
        verb: (world.command(verb, folder / verb), folder / verb)
        for verb in ("split", "mask", "ict", "index", "pretrain", "finetune")
    }
    library, packed = folder / "library", folder / "packed"
    found["pack"] = (["pack", qa, "--out", packed], packed)
    found["docs"] = (["docs", "add", library, *docs, "--model", world / "packed"], library)
    pairs = folder / "pairs" / "pairs.jsonl"
    found["align"] = (
        ["align", world / "examples", "--model", world / "pretrain", "--limit", 4]
        + ["--passages", world / "passages", "--out", pairs],
        pairs.parent,
    )
    return found
