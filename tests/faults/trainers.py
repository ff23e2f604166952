"""A `realm pretrain` with its builder in processes of their own, to be killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import realm
from realm.index.snapshot import Snapshot, list_snapshots
from realm.refresh.presence import builder_file, builders_of, see, trainer_file
from realm.storage import MANIFEST, read_json
from tests.towns import World

LIMIT_SECONDS = 180.0
"""Nothing here may take longer, even on a busy machine."""
SOON_SECONDS = 30.0
"""Within which an orphan ends; it takes some two seconds on a quiet machine."""
STEPS = 60
MAX_STALENESS = 25
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "num_candidates": 3,
    "save_every_steps": 10,
    "eval_every_steps": 1_000,
    "num_eval_examples": 2,
    "held_out": 0.2,
    "refresh.mode": "'async'",
    "refresh.every_steps": 4,
    "refresh.shard_rows": 16,
    "refresh.order": "sweep",
    "refresh.max_staleness_steps": MAX_STALENESS,
    "refresh.max_wait_seconds": LIMIT_SECONDS,
    "refresh.audit_passages": 0,
}
KILLS = ("builder", "trainer", "both")


class Trainer:
    """A training in a process of its own."""

    def __init__(self, world: World, run: Path, *, prelude: str = "", **changed: Any) -> None:
        settings = {"steps": STEPS, **SETTINGS}
        settings |= {name.replace("__", "."): value for name, value in changed.items()}
        self.run = run
        self.log = run.with_name(f"{run.name}.log")
        command = [
            *(sys.executable, *(("-c", prelude) if prelude else ("-m", "realm"))),
            *(str(part) for part in world.command("pretrain", run)),
            *(part for name, v in settings.items() for part in ("--set", f"{name}={v}")),
            "--quiet",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    def wait(self) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs: {self.told()}; {builders_of(self.run)}") from None

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

    def end(self) -> None:
        """Kill it, if it lives, and see that no builder is left over."""
        self.process.kill()
        self.process.wait()
        orphans_end(self.run)


def environment() -> dict[str, str]:
    """Return the environment of a process that runs this source, on one thread."""
    source = Path(realm.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}


def orphans_end(run: Path) -> None:
    """Check that builders end by themselves once their trainer is gone."""
    deadline = time.monotonic() + SOON_SECONDS
    while living := [seen for seen in builders_of(run) if seen.is_alive]:
        assert time.monotonic() < deadline, f"left over: {living}"
        time.sleep(0.05)


def check_finished(run: Path, steps: int = STEPS) -> None:
    """See that a run holds every step once, and no damaged snapshot."""
    assert read_json(run / MANIFEST)["content"]["steps"] == steps
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [one["step"] for one in logged if "loss" in one]
    assert trained == list(range(1, steps + 1))
    staleness = [one["index/staleness_steps"] for one in logged if "loss" in one]
    assert max(staleness) <= MAX_STALENESS
    for _, folder in list_snapshots(run):
        Snapshot.open(folder, verify=True)


def kill_at_random(
    begin: Callable[[], Trainer],
    chance: random.Random,
    kills: Iterable[str],
    on_kill: Callable[[str], None],
) -> Trainer:
    """Kill at random moments, and start again each time; return the one that runs at the end.

    Args:
        begin: starts the run, or goes on with it.
        chance: decides the moments.
        kills: who is killed: builder, trainer or both.
        on_kill: told of each.
    """
    one = begin()
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
        on_kill(which)
        if which != "builder":
            orphans_end(one.run)
            one = begin()
    return one
