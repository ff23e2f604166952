"""Builders that a trainer starts: again after a death, not for ever, and none is left over."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from realm.refresh import processes
from realm.refresh.processes import MAX_FAILURES, BuilderProcesses, follow_command

Make = Callable[..., BuilderProcesses]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, told: list[str]) -> Make:
    def start(code: str, count: int = 1) -> BuilderProcesses:
        return BuilderProcesses(
            tmp_path,
            count,
            threads=1,
            tell=told.append,
            command=lambda _run, _threads: [sys.executable, "-c", code],
        )

    return start


def wait_until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30.0
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_each_death_the_pause_is_twice_as_long_and_then_it_is_given_up(
    make: Make, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    builders = make("import sys; print('first'); sys.exit('error: no passages there')")
    pauses: list[float] = []
    for _ in range(MAX_FAILURES + 1):
        builders.look()
        process = builders._builders[0].process
        assert process is not None
        process.wait()
        builders.look()
        pauses.append(builders._builders[0].not_before - now[0])
        builders.look()
        assert not builders.pids()  # not before the pause is over
        now[0] += 60.0
    assert pauses[:MAX_FAILURES] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert told[0] == "builder 0 ended with exit code 1; started again in 1 s"
    assert "9 times in a row: given up. error: no passages there" in told[-1]
    builders.look()
    assert not builders.pids()
    assert builders.last_words() == "error: no passages there"


def test_a_death_after_a_long_life_is_the_first(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    builders = make("raise SystemExit(3)")
    for _ in range(2 * MAX_FAILURES):
        builders.look()
        builders._builders[0].process.wait()  # type: ignore[union-attr]
        now[0] += 61.0
        builders.look()
        assert builders._builders[0].failures == 1
        now[0] += 1.0


def test_one_that_came_to_its_end_is_not_started_again(make: Make, told: list[str]) -> None:
    builders = make("")
    builders.look()
    wait_until(lambda: not builders.pids())
    builders.look()
    builders.look()
    assert not builders.pids()
    assert told == []


def test_a_program_that_is_not_there_is_told(tmp_path: Path, told: list[str]) -> None:
    builders = BuilderProcesses(
        tmp_path, 1, threads=1, tell=told.append, command=lambda *_: [str(tmp_path / "none")]
    )
    builders.look()
    assert "cannot start a builder" in told[0]


def test_stop_ends_also_those_that_do_not_want_to_and_nothing_is_started_after_it(
    make: Make, tmp_path: Path
) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path)!r} + f'/ready-{{os.getpid()}}', 'w').close()\n"
        "time.sleep(60)\n"
    )
    builders = make(code, count=2)
    builders.look()
    pids = builders.pids()
    wait_until(lambda: all((tmp_path / f"ready-{pid}").exists() for pid in pids))
    began = time.monotonic()
    builders.stop()
    assert time.monotonic() - began < 4.0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    builders.look()
    assert builders.pids() == []


def test_a_builder_is_this_program_and_is_told_its_parent(tmp_path: Path) -> None:
    command = follow_command(tmp_path, 2)
    assert command[0] == sys.executable
    assert command[-1] == str(os.getpid())
    assert ["realm", "index", "--follow", str(tmp_path)] == command[3:7]
