"""Writes that fail, one by one: what is told, what is left, and what going on makes of it."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realm.library.library import Library
from realm.storage import SEAL
from tests.faults.forks import Ended, run_with
from tests.faults.layer import CODES, Layer
from tests.faults.pipeline import approximate
from tests.towns import World

VARYING = {"metrics.jsonl", "seconds.json"}
"""A log with times, and how long a run took."""
VARYING_KEYS = {"seconds", "peak_memory_bytes", SEAL}
REMEDIES = ("free", "mend", "fix", "again", "permission", "choose", "make ")
"""Each error says what to do, in one of these words."""


def content_of(folder: Path) -> dict[str, Any]:
    """Return the content of every file below a folder, without times.

    The times of a run, and what its memory took, differ between two equal runs; hidden files are
    what a killed writer left, and nobody takes for finished.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        if path.is_file() and path.name not in VARYING and not re.search(r"(^|/)\.", place):
            found[place] = _content(path)
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of what is not the same in two contents, with what is told of them."""
    names = sorted(found.keys() | expected.keys())
    return [
        f"{name}: {str(found.get(name))[:300]} for {str(expected.get(name))[:300]}"
        for name in names
        if found.get(name) != expected.get(name)
    ]


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


def documents_of(folder: Path) -> dict[str, Any]:
    """Return what a library holds, but for the time at which each document was added."""
    edition = Library(folder).current()
    found: dict[str, Any] = {
        name: (replace(info, added_at=""), edition.document(name))
        for name in edition.held
        if (info := edition.info(name)) is not None
    }
    rows = zip(edition.segment_of.tolist(), edition.at.tolist(), strict=True)
    return found | {"vectors": [edition.segments[s].exact[at].tolist() for s, at in rows]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A command, and what it writes."""

    command: Sequence[object]
    out: Path
    """Removed before and after."""
    look: Callable[[Path], dict[str, Any]] = content_of
    """Returns what two equal runs have in common."""

    def undisturbed(self) -> tuple[int, dict[str, Any]]:
        """Run it; return how many calls it makes, and what it leaves."""
        clear(self.out)
        ended = run_with(Layer(root=str(self.out.parent)), self.command)
        assert ended.code == 0, ended.err
        left = self.look(self.out)
        clear(self.out)
        return len(ended.calls), left


def fail_one(written: Written, number: int, expected: dict[str, Any]) -> Ended:
    """Fail the call of this number, look what is told, run the command again, compare.

    Args:
        written: what is run.
        number: of the call to fail; it decides the error and whether later calls fail too.
        expected: what is left by a run that nothing disturbs.
    """
    command, out = written.command, written.out
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
    again = run_with(Layer(root=str(out.parent)), command)
    assert again.code == 0, f"{case}, and then {again.err}"
    found = written.look(out)
    differing = differences(found, expected)
    assert not differing, f"{case}: afterwards {differing}"
    clear(out)
    return ended


def cut_short(written: Written, limit_bytes: int, expected: dict[str, Any]) -> Ended:
    """Let no file become larger than a limit, look what is told, run it again, compare.

    Native writers meet a full disk in the midst of a file, too.

    Args:
        written: what is run.
        limit_bytes: the limit.
        expected: what is left by a run that nothing disturbs.
    """
    clear(written.out)
    layer = Layer(root=str(written.out.parent))
    ended = run_with(layer, written.command, limit_bytes=limit_bytes)
    case = f"files of at most {limit_bytes:,} bytes: {ended.err}"
    check_told(ended, case)
    again = run_with(layer, written.command)
    assert again.code == 0, f"{case}, and then {again.err}"
    differing = differences(written.look(written.out), expected)
    assert not differing, f"{case}: afterwards {differing}"
    clear(written.out)
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


def written_by(world: World, folder: Path) -> dict[str, Written]:
    """Return small commands by their names.

    Args:
        world: what they read.
        folder: where they write.
    """
    found = {
        verb: Written(command=world.command(verb, folder / verb), out=folder / verb)
        for verb in ("split", "mask", "ict", "index", "pretrain", "finetune")
    }
    library, packed, pairs = folder / "library", folder / "packed", folder / "pairs"
    docs = sorted((world / "docs").iterdir())
    found["pack"] = Written(command=["pack", world / "qa", "--out", packed], out=packed)
    found["docs"] = Written(
        command=["docs", "add", library, *docs, "--model", world / "packed"],
        out=library,
        look=documents_of,
    )
    found["approximate"] = Written(
        command=approximate(world, folder / "approximate"), out=folder / "approximate"
    )
    exported = folder / "exported"
    found["export"] = Written(
        command=[
            *("export", world / "pretrain", "--to", "sentence-transformers", "--out", exported),
        ],
        out=exported,
    )
    found["align"] = Written(
        command=[
            *("align", world / "examples", "--model", world / "pretrain", "--limit", 4),
            *("--passages", world / "passages", "--out", pairs / "pairs.jsonl"),
        ],
        out=pairs,
    )
    return found
