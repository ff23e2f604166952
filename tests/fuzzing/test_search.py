"""The search itself: it finds a bug that was planted, keeps the input, and counts what it tried."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.search import COUNTS, FOUND, INPUT
from hostile.target import FindingError, Target, attack

import realm
from realm.errors import CorpusError

ROOM = Path(__file__).parent
PLANTED = """
import json, pathlib, sys
from hostile.search import Search
from hostile.target import Target

def take(data):
    from realm.corpus.articles import parse_line
    from realm.corpus.reading import Place, Reading
    from realm.records import Skipped
    reading = Reading(drop_titles=(), on_error="fail", skipped=Skipped())
    article = parse_line(data, Place("a", 1), "1", reading)
    if article is not None and len(article.title) > 40:
        raise ZeroDivisionError("planted")

def extra():
    seed = b'{"title": "April", "text": "It is a month."}'
    return {"planted": Target(name="planted", take=take, seeds=lambda: [seed])}

out = pathlib.Path(sys.argv[1])
Search(name="planted", out=out, seconds=60, seed=0, engine=sys.argv[2]).run(extra)
"""
"""Only an input that is still an article, with a long title, meets the bug."""


def environment() -> dict[str, str]:
    source = Path(realm.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOM}", "OMP_NUM_THREADS": "1"}


def raising(error: Exception) -> Target:
    def take(data: bytes) -> None:
        del data
        raise error

    return Target(name="planted", take=take, seeds=list)


@pytest.mark.parametrize("engine", ["random", "atheris"])
def test_a_planted_bug_is_found_and_its_input_kept(engine: str, tmp_path: Path) -> None:
    if engine == "atheris" and not importlib.util.find_spec("atheris"):
        pytest.skip("atheris is not installed: inputs are found by random mutation alone")
    done = subprocess.run(
        [sys.executable, "-c", PLANTED, str(tmp_path), engine],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == FOUND, done.stderr[-2_000:]
    assert "ZeroDivisionError" in done.stderr
    counts = json.loads((tmp_path / COUNTS).read_text("utf-8"))
    assert counts["tried"] > 1
    assert "planted" in counts["finding"]
    assert len(json.loads((tmp_path / INPUT).read_bytes())["title"]) > 40


def test_the_command_counts_what_it_tried_and_can_try_one_input_again(tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOM / "run.py"), *map(str, arguments)],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    done = run("--seconds", 2, "claims", "--out", tmp_path / "counts.json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "counts.json").read_text("utf-8"))
    assert set(told["targets"]) == {"claims"}
    assert told["findings"] == 0
    assert told["tried"] == sum(one["tried"] for one in told["targets"].values()) > 20
    (tmp_path / "input").write_bytes(b"{}")
    assert run("--try", tmp_path / "input", "claims").stdout == "refused\n"
    assert run("no-such-target").returncode == 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("x"), "ZeroDivisionError"),
        (RecursionError("x"), "RecursionError"),
        (MemoryError("x"), "MemoryError"),
        (CorpusError("x" * 30_000), "a message of 30,000 characters"),
        (CorpusError(""), "a message of 0 characters"),
    ],
)
def test_what_is_not_our_own_readable_error_is_a_finding(error: Exception, told: str) -> None:
    with pytest.raises(FindingError, match=told):
        attack(raising(error), b"x")
    assert attack(raising(CorpusError("found x, expected y")), b"x") is False


def test_a_message_can_be_shown_whatever_it_repeats() -> None:
    error = CorpusError("found \ud800\u65e5")
    assert str(error) == "found \\ud800\u65e5"
    assert attack(raising(error), b"x") is False


def test_an_input_that_takes_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostile.target.MAX_CPU_SECONDS", 0.01)
    slow = Target(name="slow", take=lambda data: sorted(data * 1_000_000) and None, seeds=list)
    with pytest.raises(FindingError, match=r"took \d"):
        attack(slow, b"x")


def test_an_input_that_takes_much_memory_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = iter([0, 1 << 40])
    monkeypatch.setattr("hostile.target._peak_bytes", lambda: next(grown))
    with pytest.raises(FindingError, match="MiB more memory"):
        attack(Target(name="large", take=lambda _: None, seeds=list), b"x")
