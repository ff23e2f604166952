"""Fuzz every way in for some seconds each, and write down what was tried.

    PYTHONPATH=src python tests/fuzzing/run.py --seconds 60 [TARGET ...] --out fuzzing.json

Coverage-guided where atheris is installed, by random mutations elsewhere. Exits with 1 where
something was found, with the input saved beside the counts (`--save FOLDER`); to try it again:
`--try FOLDER/TARGET.bin TARGET`.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hostile.scratch import PLACE, quick_place
from hostile.search import COUNTS, FOUND, INPUT, Search

EXTRA_SECONDS = 180
"""Beyond its time, for a search to start and to finish its last input."""


def main() -> int:
    """Run the command; return its exit code."""
    told = _arguments()
    if told.child:
        Search(
            name=told.targets[0],
            out=told.child,
            seconds=told.seconds,
            seed=told.seed,
            engine=told.engine,
        ).run()
    from hostile.catalogue import TARGETS

    names = told.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        _say(f"found targets {sorted(unknown)}, expected some of {sorted(TARGETS)}")
        return 2
    if told.attempt:
        from hostile.target import attack

        (name,) = names
        _say("taken" if attack(TARGETS[name], told.attempt.read_bytes()) else "refused")
        return 0
    results = {name: _search(name, told) for name in names}
    found = [name for name, result in results.items() if result["finding"]]
    if told.out:
        told.out.write_text(json.dumps(_report(told, results), indent=1) + "\n", "utf-8")
    tried = sum(result["tried"] for result in results.values())
    _say(f"{tried:,} inputs, {len(results)} targets, {len(found)} findings")
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="none: all of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    parser.add_argument("--save", type=Path, default=Path("fuzzing-findings"))
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--engine", choices=("atheris", "random"), default=_best_engine())
    parser.add_argument("--try", dest="attempt", type=Path, help="give TARGET this file, once")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _best_engine() -> str:
    return "atheris" if importlib.util.find_spec("atheris") else "random"


def _search(name: str, told: argparse.Namespace) -> dict[str, Any]:
    """Search in a process of its own; return counts, and what was found, saved."""
    with tempfile.TemporaryDirectory(prefix="realm-fuzz-", dir=quick_place()) as folder:
        out = Path(folder) / "out"
        out.mkdir()
        command = [sys.executable, __file__, name, "--child", str(out)]
        command += ["--seconds", str(told.seconds), "--seed", str(told.seed)]
        began = time.monotonic()
        code, log = _run([*command, "--engine", told.engine], folder, told.seconds)
        counts = out / COUNTS
        found: dict[str, Any] = {"tried": 0, "taken": 0, "finding": None}
        if counts.is_file():
            found |= json.loads(counts.read_text("utf-8"))
        if code not in {0, FOUND}:
            found["finding"] = f"ended with {code}: {log[-600:]}"
        if found["finding"] and (out / INPUT).is_file():
            told.save.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / INPUT, told.save / f"{name}.bin")
    rate = found["tried"] / max(found.get("seconds", 0.0), 0.1)
    _say(
        f"{name:15} {found['tried']:9,} inputs, {found['taken']:9,} taken, {rate:6.0f} a second, "
        f"{time.monotonic() - began:.0f} s {found['finding'] or ''}"
    )
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(command: list[str], folder: str, seconds: float) -> tuple[int | str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", PLACE: folder}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            check=False,
            timeout=seconds + EXTRA_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "no end", "it was killed"
    return done.returncode, done.stderr.decode(errors="replace")


def _report(told: argparse.Namespace, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "engine": told.engine,
        "seconds_for_each_target": told.seconds,
        "seed": told.seed,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "tried": sum(result["tried"] for result in results.values()),
        "findings": sum(bool(result["finding"]) for result in results.values()),
        "targets": results,
    }


if __name__ == "__main__":
    sys.exit(main())
