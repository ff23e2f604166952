"""Real processes, killed at random moments: nothing hangs, nothing is lost, nobody is left over."""

import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from realm.index.snapshot import list_snapshots
from realm.refresh.presence import builders_of
from tests.faults.servers import Acknowledged, Server, change_until_killed, check_documents
from tests.faults.trainers import (
    KILLS,
    LIMIT_SECONDS,
    STEPS,
    Trainer,
    check_finished,
    kill_at_random,
    orphans_end,
)
from tests.towns import World

JUMPING = """
import random, runpy, sys, time
start = time.time()
time.time = lambda: start + random.uniform(-1e9, 1e9)
sys.argv = ["realm", *sys.argv[1:]]
runpy.run_module("realm", run_name="__main__")
"""
Start = Callable[..., Trainer]


@pytest.fixture
def trainer(tmp_path: Path, made: World) -> Iterator[Start]:
    """Start a run, or go on with it."""
    running: list[Trainer] = []

    def begin(**changed: Any) -> Trainer:
        running.append(Trainer(made, tmp_path / "run", **changed))
        return running[-1]

    yield begin
    for one in running:
        one.end()


def killed(trainer: Start, seed: int, kills: list[str], steps: int = STEPS) -> int:
    """Kill at random moments, come to the end; return how many kills there were before."""
    count: Counter[str] = Counter()
    one = kill_at_random(
        lambda: trainer(steps=steps),
        random.Random(seed),  # noqa: S311
        kills,
        lambda which: count.update([which]),
    )
    assert one.wait() == 0, one.told()
    check_finished(one.run, steps)
    orphans_end(one.run)
    return count.total()


def test_a_run_killed_at_random_moments_comes_to_its_end(trainer: Start) -> None:
    assert killed(trainer, 0, ["builder", "trainer", "both"]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_again_and_again_comes_to_its_end(seed: int, trainer: Start) -> None:
    chance = random.Random(1_000 + seed)  # noqa: S311
    assert killed(trainer, seed, chance.choices(KILLS, k=12), steps=400) >= 6


def test_ctrl_c_ends_it_within_five_seconds_and_leaves_no_builder(trainer: Start) -> None:
    one = trainer(steps=10_000)
    one.until(lambda: one.step() >= 2 and one.builder())
    began = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(timeout=LIMIT_SECONDS) == 130
    assert time.monotonic() - began < 5.0
    assert not any(seen.is_alive for seen in builders_of(one.run))
    assert "the same command resumes" in one.told()


def test_a_full_disk_stops_builders_until_there_is_room_but_not_the_trainer(
    trainer: Start,
) -> None:
    """A limit on the size of files stands for the disk: shards of the index are too large for it.

    It is set on the builder alone, so that the trainer can be seen to go on.
    """
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs prlimit (Linux), to limit the files of a process that runs")
    one = trainer(steps=10_000, refresh__max_staleness_steps=100_000, refresh__shard_rows=24)
    one.until(lambda: one.step() >= 2 and one.builder())
    builder = one.builder()
    resource.prlimit(builder, resource.RLIMIT_FSIZE, (1_200, resource.RLIM_INFINITY))
    one.until(lambda: "failed: cannot make" in str(builders_of(one.run)[0].values["state"]))
    assert "Free space" in str(builders_of(one.run)[0].values["state"])
    at = one.step()
    one.until(lambda: one.step() > at + 5)  # the trainer goes on
    assert one.builder() == builder
    newest = list_snapshots(one.run)[-1][0]
    resource.prlimit(builder, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    one.until(lambda: list_snapshots(one.run)[-1][0] > newest)


@pytest.mark.slow
def test_clocks_that_jump_and_times_of_files_change_nothing(trainer: Start) -> None:
    one = trainer(prelude=JUMPING)
    one.until(lambda: one.step() >= 0 and list_snapshots(one.run))
    set_times(one.run, 2100)
    time.sleep(1.0)
    one.kill("trainer")
    orphans_end(one.run)
    set_times(one.run, 1970)
    again = trainer(prelude=JUMPING)
    assert again.wait() == 0, again.told()
    check_finished(again.run)


def set_times(run: Path, year: int) -> None:
    seconds = (year - 1970) * 365.25 * 86_400
    for path in run.rglob("*"):
        with suppress(OSError):
            os.utime(path, (seconds, seconds))


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_a_server_killed_while_documents_change_keeps_what_it_acknowledged(
    kills: int, made: World, tmp_path: Path
) -> None:
    known, chance = Acknowledged(), random.Random(7)  # noqa: S311
    library = tmp_path / "library"
    for number in range(kills):
        server = Server(library, made / "packed")
        try:
            check_documents(server, known)
            change_until_killed(server, known, number, chance.uniform(0.5, 2.0))
        finally:
            server.kill()
    last = Server(library, made / "packed")
    try:
        check_documents(last, known)
    finally:
        last.kill()
    assert known.num_changes >= 3 * kills
