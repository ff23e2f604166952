"""Real processes, killed at random moments: nothing hangs, nothing is lost, nobody is left over."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import realm
from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot, list_snapshots
from realm.masking.store import ExampleStore
from realm.refresh.presence import builder_file, builders_of, see, trainer_file
from realm.storage import MANIFEST, read_json

LIMIT_SECONDS = 120.0
"""Nothing here may take longer, even on a busy machine."""
SOON_SECONDS = 20.0
"""Within which an orphan ends; it takes some two seconds on a quiet machine."""
STEPS = 60
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 2,
    "num_candidates": 3,
    "save_every_steps": 10,
    "eval_every_steps": 1_000,
    "num_eval_examples": 2,
    "threads": 1,
    "autocast": "'none'",
    "held_out": 0.2,
    "refresh.every_steps": 4,
    "refresh.shard_rows": 4,
    "refresh.order": "sweep",
    "refresh.max_staleness_steps": 25,
    "refresh.max_wait_seconds": LIMIT_SECONDS,
    "refresh.audit_passages": 0,
}
JUMPING = """
import random, runpy, sys, time
start = time.time()
time.time = lambda: start + random.uniform(-1e9, 1e9)
sys.argv = ["realm", *sys.argv[1:]]
runpy.run_module("realm", run_name="__main__")
"""
Start = Callable[..., "Trainer"]


class Trainer:
    """A `realm pretrain` in a process of its own."""

    def __init__(self, run: Path, command: list[str], **options: Any) -> None:
        self.run = run
        self.log = run.with_name(f"{run.name}.log")
        source = Path(realm.__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, **options
            )

    def wait(self) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it hangs: {self.told()}; {builders_of(self.run)}")

    def told(self) -> str:
        """Return what it wrote."""
        return self.log.read_text(errors="replace")[-3_000:]

    def until(self, what: Callable[[], object], seconds: float = LIMIT_SECONDS) -> None:
        """Wait for something, while it runs."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"waited in vain: {self.told()}"
            assert self.process.poll() is None, f"it ended: {self.told()}"
            time.sleep(0.02)

    def step(self) -> int:
        """Return the step it is at, as told about once a second."""
        seen = see(trainer_file(self.run))
        return int(seen.values.get("step", 0)) if seen and seen.is_alive else -1

    def builder(self) -> int:
        """Return the process that builds, 0 if there is none."""
        seen = see(builder_file(self.run, 0))
        return int(seen.values.get("pid", 0)) if seen and seen.is_alive else 0

    def has_ended(self) -> bool:
        """Return whether it has come to its end."""
        return self.process.poll() is not None

    def kill(self, which: str) -> None:
        """Kill trainer, builder, or both, without notice."""
        builder = self.builder()
        if which in {"builder", "both"} and builder:
            with suppress(ProcessLookupError):
                os.kill(builder, signal.SIGKILL)
        if which in {"trainer", "both"}:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def trainer(
    tmp_path: Path, store: PassageStore, examples: ExampleStore, start: dict[str, Path]
) -> Iterator[Start]:
    """Start a run, or go on with it."""
    running: list[Trainer] = []

    def begin(
        *, run: Path | None = None, prelude: str = "", options: Any = None, **changed: Any
    ) -> Trainer:
        settings = SETTINGS | {name.replace("__", "."): v for name, v in changed.items()}
        out = run or tmp_path / "run"
        command = [
            *(sys.executable, *(("-c", prelude) if prelude else ("-m", "realm")), "pretrain"),
            *(str(examples.folder), str(store.folder), "--out", str(out), "--quiet"),
            *("--embedder", str(start["embedder"]), "--encoder", str(start["encoder"])),
            *(part for name, v in settings.items() for part in ("--set", f"{name}={v}")),
        ]
        running.append(Trainer(out, command, **(options or {})))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()
        orphans_end(one.run)


def orphans_end(run: Path) -> None:
    """Check that builders end by themselves once their trainer is gone."""
    deadline = time.monotonic() + SOON_SECONDS
    while living := [seen for seen in builders_of(run) if seen.is_alive]:
        assert time.monotonic() < deadline, f"left over: {living}"
        time.sleep(0.05)


def check_finished(run: Path, steps: int = STEPS) -> None:
    assert read_json(run / MANIFEST)["content"]["steps"] == steps
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [one["step"] for one in logged if "loss" in one]
    assert trained == list(range(1, steps + 1))
    staleness = [one["index/staleness_steps"] for one in logged if "loss" in one]
    assert max(staleness) <= SETTINGS["refresh.max_staleness_steps"]
    for _, folder in list_snapshots(run):
        Snapshot.open(folder, verify=True)


def kill_at_random(trainer: Start, seed: int, kills: list[str], steps: int = STEPS) -> int:
    """Kill at random moments, go on, come to the end; return how many kills there were before."""
    chance = random.Random(seed)  # noqa: S311
    one, num_kills = trainer(steps=steps), 0
    for which in kills:
        # Some kills come while it starts; the builder is killed only once it is there.
        if which == "trainer" and chance.random() < 0.3:
            time.sleep(chance.uniform(0.0, 6.0))
        else:
            one.until(lambda: (one.step() >= 0 and one.builder()) or one.has_ended())  # noqa: B023
            time.sleep(chance.uniform(0.0, 1.0))
        if one.has_ended():
            break
        one.kill(which)
        num_kills += 1
        if which != "builder":
            orphans_end(one.run)
            one = trainer(steps=steps)
    assert one.wait() == 0, one.told()
    check_finished(one.run, steps)
    orphans_end(one.run)
    return num_kills


def test_a_run_killed_at_random_moments_comes_to_its_end(trainer: Start) -> None:
    assert kill_at_random(trainer, 0, ["builder", "trainer", "both"]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_again_and_again_comes_to_its_end(seed: int, trainer: Start) -> None:
    chance = random.Random(1_000 + seed)  # noqa: S311
    kills = chance.choices(["builder", "trainer", "both"], k=12)
    assert kill_at_random(trainer, seed, kills, steps=400) >= 6


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
