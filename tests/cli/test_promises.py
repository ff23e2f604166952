"""What every verb promises: quick help, one JSON object, silence in a pipe, no colour unasked."""

import json
import os
import pty
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import realm
from realm.cli.main import build_app

Run = Callable[..., Any]
World = Any
Command = Sequence[object]
SECONDS = 0.4
"""Of CPU, for help and completion."""
TIMES_RICH = 3.5
"""Where a machine is so busy that CPU seconds say little: as often what importing rich takes."""
NOT_WALKED = {"quickstart", "serve", "mcp", "docs watch", "study", "calibrate"}
"""A tour, what runs until Ctrl-C, a study of hours; test_calibrating.py asks the last for JSON."""
NEEDS = {"approximate": "faiss", "report": "matplotlib"}
PUBLISHED = Path(__file__).parents[1] / "exchange" / "published"
HEAVY = ("torch", "transformers", "pyarrow", "numpy", "matplotlib", "fastapi", "rich.progress")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7]|10[0-7])(?:;\d+)*m")
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"}
} | {"PYTHONPATH": str(Path(realm.__file__).parents[1]), "TERM": "xterm-256color"}


def verbs() -> list[tuple[str, ...]]:
    """Return every verb, those of a group with its name."""

    def within(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield path
            return
        for name, one in inner.items():
            yield from within(one, (*path, name))

    return list(within(typer.main.get_command(build_app()), ()))


def ran(*arguments: str, **more: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Return how `python -m realm` ended in a pipe, and its seconds of CPU."""
    return python("-m", "realm", *arguments, **more)


def python(*arguments: str, **more: str) -> tuple[subprocess.CompletedProcess[str], float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, *arguments],
        env=ENVIRONMENT | more,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def assert_quick(used: Callable[[], float]) -> None:
    """Check a command's seconds of CPU, under a loaded machine's noise: the best of five tries."""
    seconds: list[float] = []
    rich = 0.0
    while len(seconds) < 5:
        seconds.append(used())
        if min(seconds) < SECONDS:
            return
        rich = max(rich, python("-c", "import typer.rich_utils")[1])
        if min(seconds) < TIMES_RICH * rich:
            return
    pytest.fail(
        f"found {seconds} seconds of CPU, expected one below {SECONDS} or {TIMES_RICH} x {rich}"
    )


def at_a_terminal(*arguments: str, **more: str) -> str:
    """Return what `python -m realm` shows at a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "realm", *arguments]
    environment = ENVIRONMENT | {"COLUMNS": "100"} | more
    shown = bytearray()
    with subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs):
        os.close(theirs)
        try:
            while data := os.read(ours, 4_096):
                shown.extend(data)
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("verb", [(), *verbs()], ids=" ".join)
def test_help_is_quick_and_plain_in_a_pipe(verb: tuple[str, ...]) -> None:
    def used() -> float:
        ended, seconds = ran(*verb, "--help")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        assert "\x1b" not in ended.stdout
        assert "Usage: realm" in ended.stdout
        return seconds

    assert_quick(used)


@pytest.fixture
def commands(world: World, call: Run, tmp_path: Path) -> dict[str, Command]:
    """Return a command of each verb that tells something, and that is quick to run."""
    report = tmp_path / "evaluation.json"
    asked = ("--model", world / "qa", "--config", world / "settings.toml")
    evaluate = ("evaluate", world / "questions.jsonl", *asked, "--set", "limit=4")
    assert call(*evaluate, "--out", report).code == 0
    library, note = tmp_path / "library", tmp_path / "note.txt"
    note.write_text("The baker was born in Bado.", encoding="utf-8")
    run, blank = world / "pretrain", "The baker was born in [MASK]."
    stages = ("split", "mask", "ict", "mlm", "index", "pretrain", "finetune")
    found = (world.command(stage) for stage in stages)
    return {str(command[0]): command for command in found} | {
        "ask": ("ask", "Who was born in Bado?", "--model", world / "qa"),
        "evaluate": evaluate,
        "compare": ("compare", report, report),
        "explain": ("explain", blank, "--model", run, "--candidates", 4),
        "align": (
            *("align", world / "examples", "--model", run, "--limit", 3),
            *("--candidates", 4, "--out", tmp_path / "pairs.jsonl"),
        ),
        "status": ("status", run),
        "report": ("report", run, "--out", tmp_path / "report.html"),
        "export": ("export", run, "--to", "safetensors", "--out", tmp_path / "exported"),
        "pack": ("pack", world / "qa", "--out", tmp_path / "packed"),
        "average": ("average", world / "qa", world / "qa", "--out", tmp_path / "averaged"),
        "approximate": (
            *("approximate", world / "index", "--out", tmp_path / "approximate"),
            *("--set", "lists=2", "--set", "subquantizers=4", "--set", "bits=4"),
            *("--set", "recall_at=4", "--set", "recall_queries=4"),
        ),
        "import": (
            *("import", PUBLISHED / "embedder", "--out", tmp_path / "imported"),
            *("--tokenizer", PUBLISHED / "openqa" / "vocab.txt"),
        ),
        "plan": ("plan", "--passages", "100k", "--gpus", 2),
        "doctor": ("doctor",),
        "docs add": ("docs", "add", library, note, "--model", world / "qa"),
        "docs list": ("docs", "list", library),
        "docs reindex": ("docs", "reindex", library, "--model", world / "qa"),
        "docs remove": ("docs", "remove", library, note.name),
        "verify": ("verify", world / "qa", world / "passages"),
    }


def test_every_verb_is_walked(commands: dict[str, Command]) -> None:
    """A new verb is to be added here: it tells what it did as JSON, too."""
    names = {" ".join(verb) for verb in verbs()}
    assert names - NOT_WALKED == commands.keys()


def test_json_is_one_object_on_stdout_and_nothing_else(
    commands: dict[str, Command], call: Run, subtests_of: Callable[[str], Any]
) -> None:
    for name, command in commands.items():
        with subtests_of(name):
            if find_spec(NEEDS.get(name, "json")) is None:
                continue  # an extra that is not installed
            result = call(*command, "--json")
            assert result.code == 0, result.err
            assert result.out.count("\n") == 1
            assert isinstance(json.loads(result.out), dict)
            assert "\x1b" not in result.out + result.err
            assert "\r" not in result.err


@pytest.fixture
def subtests_of() -> Callable[[str], Any]:
    """Return a context that names the verb whose promise is broken."""
    from contextlib import contextmanager

    @contextmanager
    def named(name: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"realm {name} --json: {error}") from error

    return named


def test_a_table_in_a_pipe_keeps_its_lines_whole(capsys: pytest.CaptureFixture[str]) -> None:
    from realm.cli import display

    display.out.print(display.table("", ("name", "value"), [("n" * 150, "v" * 150)]))
    assert f"{'n' * 150}  {'v' * 150}" in capsys.readouterr().out


def test_an_error_leaves_stdout_empty(call: Run, tmp_path: Path) -> None:
    result = call("status", tmp_path, "--json")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: found no run")


def test_numbers_that_json_has_not_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    from realm.cli.options import print_json

    print_json({"loss": float("nan"), "parts": (float("inf"), 1.5), "run": Path("a/b")}, out="c")
    told = capsys.readouterr().out
    assert json.loads(told) == {"loss": None, "parts": [None, 1.5], "run": "a/b", "out": "c"}


def test_colours_are_for_terminals_and_no_color_turns_them_off() -> None:
    assert COLOUR.search(at_a_terminal("--help"))
    assert not COLOUR.search(at_a_terminal("--help", NO_COLOR="1"))


def test_bars_and_colours_of_a_verb_follow_no_color_too(tmp_path: Path) -> None:
    plan = ("plan", "--passages", "100k", "--gpus", "2", "--json")
    assert not COLOUR.search(at_a_terminal(*plan))
    missing = at_a_terminal("status", str(tmp_path), NO_COLOR="1")
    assert "error: found no run" in missing
    assert not COLOUR.search(missing)


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("bash", {"COMP_WORDS": "realm pre", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "realm pre"}),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "realm pre", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        ),
    ],
)
def test_every_shell_completes_verbs_quickly(shell: str, asked: dict[str, str]) -> None:
    def used() -> float:
        ended, seconds = ran(**asked, _REALM_COMPLETE=f"complete_{shell}")
        assert "pretrain" in ended.stdout
        assert "finetune" not in ended.stdout
        assert ended.stderr == ""
        return seconds

    assert_quick(used)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell: str) -> None:
    ended, _ = ran("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.returncode == 0, ended.stderr
    assert f"complete_{shell}" in ended.stdout


def test_bash_itself_completes_verbs_and_options(tmp_path: Path) -> None:
    program = tmp_path / "realm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m realm "$@"\n')
    program.chmod(0o755)
    script, _ = ran("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    (tmp_path / "script.bash").write_text(script.stdout)

    def completed(*words: str) -> list[str]:
        listed = " ".join(f"'{word}'" for word in words)
        ask = (
            f"source script.bash; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
            "_realm_completion realm; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        path = f"{tmp_path}:{ENVIRONMENT['PATH']}"
        shown = subprocess.run(
            ["bash", "-c", ask],
            cwd=tmp_path,
            env=ENVIRONMENT | {"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return shown.stdout.split()

    assert completed("realm", "ev") == ["evaluate"]
    assert "--docs" in completed("realm", "ask", "--d")
    assert completed("realm", "ask", "--device", "c") == ["cpu", "cuda"]


COMPLETING = {"_REALM_COMPLETE": "complete_bash", "COMP_WORDS": "realm ask --d", "COMP_CWORD": "2"}


@pytest.mark.parametrize(
    ("arguments", "asked"), [([], COMPLETING), (["ask", "--help"], {})], ids=["completion", "help"]
)
def test_neither_completion_nor_help_imports_what_is_heavy(
    arguments: list[str], asked: dict[str, str]
) -> None:
    code = (
        f"import sys; sys.argv = ['realm', *{arguments}]\n"
        "from realm.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        f"heavy = set({HEAVY!r}) & sys.modules.keys()\n"
        "print(sorted(heavy), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--docs" in ended.stdout
    assert ended.stderr == "[]\n"
