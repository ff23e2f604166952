"""Reads that fail, one by one: what is told, what comes of it, and what was there stays."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realm.corpus.reading import NOT_READ
from realm.storage import SEAL
from tests.faults.forks import Ended, run_with
from tests.faults.layer import Layer
from tests.faults.pipeline import CACHE, DOCS, LIBRARY, QUESTION, STOPPED, approximate
from tests.faults.writes import check_told, clear, content_of, differences, documents_of
from tests.towns import World

OPENED = ("read", "mmap.__new__")
"""Calls on a file that was opened already: nobody is forbidden then."""


def printed(ended: Ended, _: Path) -> dict[str, Any]:
    """Return what a command says, without times."""
    return {"stdout": _timeless(json.loads(ended.out)), "code": ended.code}


def left(_: Ended, out: Path) -> dict[str, Any]:
    """Return what a command leaves, without times."""
    return content_of(out)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "second" not in k and k != "date"}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _reported(_: Ended, out: Path) -> dict[str, Any]:
    told = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return _timeless({name: value for name, value in told.items() if name != SEAL})


def _held(_: Ended, out: Path) -> dict[str, Any]:
    """Return a library's documents and vectors; who was added later stands later."""
    found = documents_of(out)
    return {**found, "vectors": sorted(found["vectors"])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A command, and what comes of it."""

    world: World
    """Is read, and must stay as it is."""
    command: Sequence[object]
    out: Path
    """Removed before each run."""
    source: Path | None = None
    """Copied there before a run: what the command goes on with."""
    look: Callable[[Ended, Path], dict[str, Any]] = left
    """Returns what two equal runs have in common."""

    def run(self, layer: Layer) -> Ended:
        """Run it from the start."""
        clear(self.out)
        if self.source:
            shutil.copytree(self.source, self.out)
        return run_with(layer, self.command)

    def layer(self, **told: Any) -> Layer:
        """Return a layer over the world and over what is written beside it."""
        root = Path(self.world.folder).parents[1]
        assert self.out.is_relative_to(root)
        return Layer(root=str(root), reads=True, **told)

    def undisturbed(self) -> tuple[list[str], dict[str, Any]]:
        """Run it; return the calls that it makes, and what comes of it."""
        ended = self.run(self.layer())
        assert ended.code == 0, ended.err
        return ended.calls, self.look(ended, self.out)


def fail_read(
    reading: Reading, number: int, call: str, expected: dict[str, Any], *, lasts: bool = False
) -> Ended:
    """Fail one call that reads; look what is told, and what the same command then makes.

    Args:
        reading: what is run.
        number: of the call to fail.
        call: what it is, as an undisturbed run told: it decides the error.
        expected: what comes of an undisturbed run.
        lasts: whether every later call fails too.
    """
    before = content_of(reading.world.folder)
    code = "EACCES" if number % 2 and not call.startswith(OPENED) else "EIO"
    ended = reading.run(reading.layer(fail_at=number, code=code, lasts=lasts))
    case = f"{code} at {number}, {ended.failed[:1]}: {ended.err}"
    assert ended.failed, f"{call} was never made: {case}"
    check_told(ended, case)
    touched = differences(content_of(reading.world.folder), before)
    assert not touched, f"{case}: it changed {touched}"
    is_left_out = NOT_READ in ended.err and Path(ended.failed[0]).name in ended.err
    if ended.code or is_left_out:  # a document that was left out comes when it is added again
        root = Path(reading.world.folder).parents[1]
        names = [str(root / failed.split(" ")[-1]) for failed in ended.failed]
        names += [str(Path(name).parent) for name in names if "/bm25-" in name]  # not told which
        is_named = is_left_out or any(name in ended.err for name in names)
        assert is_named, f"it names no file that failed: {case}"
        ended_again = run_with(reading.layer(), reading.command)
        assert ended_again.code == 0, f"{case}, and then {ended_again.err}"
        found = reading.look(ended_again, reading.out)
    else:
        found = reading.look(ended, reading.out)
    differing = differences(found, expected)
    assert not differing, f"{case}: a wrong result {differing}"
    return ended


def read_by(world: World, folder: Path) -> dict[str, Reading]:
    """Return small commands that read, by their names.

    Args:
        world: what they read.
        folder: where they write; beside the world.
    """
    out = {
        verb: (world.command(verb, folder / verb), left)
        for verb in ("split", "mask", "ict", "mlm", "index", "pretrain", "finetune")
    }
    qa, config = ["--model", world / "qa"], ["--config", world / "settings.toml"]
    questions = world / "questions.jsonl"
    reports, lists = folder / "reports", folder / "lists"
    evaluate = ["evaluate", questions, *qa, "--out", reports / "report.json", *config]
    passages = ["--passages", world / "passages"]
    found = {
        name: Reading(world=world, command=command, out=folder / name, look=look)
        for name, (command, look) in out.items()
    }

    def add(name: str, *command: object, **told: Any) -> None:
        found[name] = Reading(
            world=world, command=command, **{"out": folder / name, "look": left} | told
        )

    add("approximate", *approximate(world, folder / "approximate"))
    add("pack", "pack", world / "qa", "--out", folder / "pack")
    add(
        "export",
        *("export", world / "pretrain", "--to", "sentence-transformers"),
        *("--out", folder / "export"),
    )
    add(
        "align",
        *("align", world / "examples", "--model", world / "pretrain", "--limit", 4, *passages),
        *("--out", folder / "align" / "pairs.jsonl"),
    )
    add("evaluate", *evaluate, out=reports, look=_reported)
    add("evaluate-bm25", *evaluate, "--retriever", "bm25", out=reports, look=_reported)
    add("resume", *world.command("ict", folder / "resume"), source=world / STOPPED)
    add(
        "docs-add",
        *("docs", "add", folder / "docs-add", *sorted((world / DOCS).iterdir())),
        *("--model", world / "packed"),
        look=_held,
    )
    add("docs-list", "docs", "list", world / LIBRARY, "--json", look=printed, out=lists)
    add(
        "ask",
        *("ask", QUESTION, "--library", world / LIBRARY, "--model", world / "packed", "--json"),
        look=printed,
    )
    add(
        "ask-docs",
        *("ask", QUESTION, "--docs", world / DOCS, "--model", world / "packed", "--json"),
        *("--cache", folder / "ask-docs"),
        look=printed,
        source=world / CACHE,
    )
    add("ask-run", "ask", QUESTION, *qa, *passages, "--json", look=printed)
    add("report", "report", world / "pretrain", "--out", folder / "report" / "r.html")
    add("status", "status", world / "pretrain", "--once", "--json", look=printed)
    return found
