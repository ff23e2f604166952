"""Break realm in every way we know for half an hour, and count what it survives: `make soak`.

Every part is real: processes killed with SIGKILL, calls that fail with the errors of a full,
broken, read-only or forbidden disk, bits flipped in every file. Each is looked at afterwards: the
same result as without, or an error of ours that names the file. What does not hold is a finding:
it is printed with its case, and the soak ends with exit code 1.
"""

import argparse
import json
import logging
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realm.versions import versions
from tests.faults.damage import Tally, check_file, damages, files_of, kind_of
from tests.faults.forks import LIMIT_SECONDS
from tests.faults.pipeline import make_everything
from tests.faults.servers import Acknowledged, Server, change_until_killed, check_documents
from tests.faults.trainers import (
    KILLS,
    Trainer,
    check_finished,
    environment,
    kill_at_random,
    orphans_end,
)
from tests.faults.writes import clear, content_of, cut_short, differences, fail_one, written_by
from tests.towns import World, call_realm

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"
FUZZERS = ROOT / "tests" / "fuzzing" / "run.py"
NUM_FUZZ_TARGETS = 12
TURN_SECONDS = 60.0
"""Each part has its turn for about this long, again and again."""
ASYNC_STEPS = 120
CHANGING_SECONDS = 4.0
"""Of a server's life, at most, before it is killed."""


@dataclass
class Soak:
    """What the parts share."""

    world: World
    """Damaged, and put back."""
    kept: World
    """A copy of it that stays whole."""
    room: Path
    """For what the parts write."""
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter[str])
    seconds: Counter[str] = field(default_factory=Counter[str])
    kinds: set[str] = field(default_factory=set[str])
    """Kinds of files damaged."""
    findings: list[str] = field(default_factory=list[str])
    """What did not hold."""
    expected: dict[str, Any] = field(default_factory=dict[str, Any])
    """What commands leave when nothing disturbs them."""


Part = Callable[[Soak, float], None]


def damage_files(soak: Soak, until: float) -> None:
    """Flip bits in files, and cut them."""
    places = files_of(soak.world)
    while time.monotonic() < until:
        place, tally = soak.chance.choice(places), Tally()
        size = (soak.world / place).stat().st_size
        some = damages(size, soak.chance.randrange(1 << 30), 3)
        check_file(soak.world, soak.kept, place, some, tally)
        soak.kinds.add(kind_of(place).pattern)
        soak.counts["damages"] += tally.total
        soak.counts["damages told by name"] += tally.told
        soak.counts["damages rebuilt from the source"] += tally.rebuilt
        soak.counts["damages that change nothing"] += tally.harmless


def fail_writes(soak: Soak, until: float) -> None:
    """Fail the calls of each command to the file system, one by one."""
    commands = written_by(soak.world, _room(soak, "writes"))
    while time.monotonic() < until:
        name = soak.chance.choice(list(commands))
        if name not in soak.expected:
            soak.expected[name] = commands[name].undisturbed()
        num_calls, expected = soak.expected[name]
        if soak.chance.random() < 0.25:
            limit_bytes = int(10 ** soak.chance.uniform(1.0, 5.5))
            cut_short(commands[name], limit_bytes, expected)
            soak.counts["commands with a limit on the size of files"] += 1
            continue
        ended = fail_one(commands[name], soak.chance.randrange(num_calls), expected)
        soak.counts["calls failed"] += len(ended.failed)
        soak.counts["commands with a failed call"] += 1
        soak.counts[f"commands with a failed call: {name}"] += 1


def kill_synchronous_trainers(soak: Soak, until: float) -> None:
    """Kill a training again and again; it ends bit for bit as one that was left alone."""
    out = _room(soak, "synchronous") / "run"
    command = soak.world.command("pretrain", out)
    if "synchronous" not in soak.expected:
        clear(out)
        assert call_realm(*command).code == 0
        soak.expected["synchronous"] = content_of(out)
    while time.monotonic() < until:
        clear(out)
        while _is_killed(command, soak.chance.uniform(0.05, 1.5)):
            soak.counts["kills: trainer, synchronous"] += 1
        differing = differences(content_of(out), soak.expected["synchronous"])
        assert not differing, f"not the run that was left alone: {differing}"
        soak.counts["synchronous runs equal bit for bit"] += 1


def kill_trainers_and_builders(soak: Soak, until: float) -> None:
    """Kill trainer, builder or both of an asynchronous training, until it comes to its end."""
    run = _room(soak, "asynchronous") / f"run-{soak.counts['asynchronous runs finished']}"
    started: list[Trainer] = []

    def kills() -> Iterator[str]:
        while time.monotonic() < until:
            yield soak.chance.choice(KILLS)

    def begin() -> Trainer:
        started.append(Trainer(soak.world, run, steps=ASYNC_STEPS))
        return started[-1]

    try:
        last = kill_at_random(begin, soak.chance, kills(), lambda which: _count_kill(soak, which))
        assert last.wait() == 0, last.told()
        check_finished(run, ASYNC_STEPS)
        orphans_end(run)
    finally:
        for one in started:
            one.end()
    soak.counts["asynchronous runs finished"] += 1
    shutil.rmtree(run)


def kill_servers(soak: Soak, until: float) -> None:
    """Kill a server while documents change; the next one has what was acknowledged."""
    library = _room(soak, "served") / "library"
    known = soak.expected.setdefault("documents", Acknowledged())
    while time.monotonic() < until:
        server = Server(library, soak.world / "packed")
        try:
            check_documents(server, known)
            seconds = soak.chance.uniform(0.1, CHANGING_SECONDS)
            change_until_killed(server, known, soak.chance.randrange(1 << 30), seconds)
        finally:
            server.kill()
        soak.counts["kills: server"] += 1
        soak.counts["changes of documents acknowledged"] = known.num_changes


def fuzz(soak: Soak, until: float) -> None:
    """Fuzz every way in, where the fuzzers are there."""
    if not FUZZERS.is_file():
        return
    out = _room(soak, "fuzz") / "counts.json"
    seconds = max(1, int((until - time.monotonic()) / NUM_FUZZ_TARGETS))
    told = ["--seconds", str(seconds), "--out", str(out), "--save", str(out.parent)]
    seed = ["--seed", str(soak.chance.randrange(1 << 30))]
    ended = subprocess.run(
        [sys.executable, str(FUZZERS), *told, *seed],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout[-2_000:]}{ended.stderr[-2_000:]}"
    report = json.loads(out.read_text(encoding="utf-8"))
    for target, found in report["targets"].items():
        soak.counts[f"inputs tried: {target}"] += found["tried"]


PARTS: dict[str, tuple[Part, float]] = {
    "files damaged": (damage_files, 0.5),
    "writes failed": (fail_writes, 1.5),
    "trainers killed, synchronous": (kill_synchronous_trainers, 0.5),
    "trainers and builders killed": (kill_trainers_and_builders, 3.0),
    "servers killed": (kill_servers, 2.5),
    "fuzzed": (fuzz, 1.0),
}
"""Name -> (what is done, its share of a turn)."""


def soak_for(minutes: float, seed: int, room: Path) -> Soak:
    """Run all parts in turn until the time is over.

    Args:
        minutes: how long.
        seed: of all that is drawn.
        room: an empty folder.
    """
    world = make_everything(room / "world")
    kept = World(shutil.copytree(world.folder, room / "kept"))
    soak = Soak(world, kept, room, random.Random(seed))  # noqa: S311
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for name, (part, share) in PARTS.items():
            began = time.monotonic()
            if began >= end:
                break
            try:
                part(soak, min(end, began + share * TURN_SECONDS))
            except AssertionError as error:
                _note(soak, f"{name}: {error}")
            soak.seconds[name] += time.monotonic() - began
            _say(f"{(end - time.monotonic()) / 60:5.1f} min left  {name}: {_told(soak)}")
    return soak


def main() -> int:
    """Soak; write and print what was survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    logging.disable()
    began, used = time.monotonic(), os.times()
    with tempfile.TemporaryDirectory(prefix="realm-soak-") as room:
        soak = soak_for(asked.minutes, asked.seed, Path(room))
    result = {
        "command": f"make soak MINUTES={asked.minutes:g} SEED={asked.seed}",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "cpu_minutes": round((sum(os.times()[:4]) - sum(used[:4])) / 60, 1),
        "kills": sum(n for name, n in soak.counts.items() if name.startswith("kills: ")),
        "counts": dict(sorted(soak.counts.items())),
        "findings": soak.findings,
        "kinds_of_files_damaged": len(soak.kinds),
        "seconds_by_part": {name: round(value) for name, value in soak.seconds.items()},
        "commit": _commit(),
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    width = max(map(len, soak.counts))
    for name, count in result["counts"].items():
        _say(f"{name:{width}}  {count:>9,}")
    _say(f"survived {result['kills']:,} kills in {result['minutes']} minutes; {asked.out}")
    return 1 if soak.findings else 0


def _is_killed(command: list[object], seconds: float) -> bool:
    """Run a command in a child that is killed after some time, unless it has ended before."""
    child = os.fork()
    if not child:
        code = 1
        signal.alarm(LIMIT_SECONDS)
        try:
            code = call_realm(*command).code
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0, f"{command} failed"
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _note(soak: Soak, finding: str) -> None:
    """Keep what does not hold; start again from what is whole."""
    soak.findings.append(finding.replace(f"{soak.room}/", "")[:1_000])  # no place of this machine
    _say(f"FOUND {finding}")
    shutil.rmtree(soak.world.folder)
    shutil.copytree(soak.kept.folder, soak.world.folder)
    for place in soak.room.iterdir():
        if place not in {soak.world.folder, soak.kept.folder}:
            shutil.rmtree(place, ignore_errors=True)
    soak.expected.pop("documents", None)


def _count_kill(soak: Soak, which: str) -> None:
    for one in ("trainer", "builder") if which == "both" else (which,):
        soak.counts[f"kills: {one}, asynchronous"] += 1


def _room(soak: Soak, name: str) -> Path:
    folder = soak.room / name
    folder.mkdir(exist_ok=True)
    return folder


def _told(soak: Soak) -> str:
    kills = sum(n for name, n in soak.counts.items() if name.startswith("kills: "))
    return (
        f"{kills:,} kills, {soak.counts['commands with a failed call']:,} commands with a failed "
        f"call, {soak.counts['damages']:,} damages"
    )


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
