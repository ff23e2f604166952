"""Growth: what search, split, mask, embed and a training step cost as their input grows.

    python benchmarks/growth.py
    python benchmarks/growth.py --full --out benchmarks/results/growth-full.json
    python scripts/plot_growth.py benchmarks/results/growth-full.json docs/figures/growth.svg

Each point is measured in a process of its own, with one thread, and kept in the folder of --work:
a run that was stopped goes on where it was. The exponent p of cost ~ size^p is fitted by least
squares of the logarithms; 1 is linear growth. --full goes to 5 M vectors and the whole of Simple
English Wikipedia.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import (
    ROOT,
    Figure,
    Measured,
    Seconds,
    Timings,
    interleaved,
    ratio,
    run_benchmark,
)

POINTS = Path(__file__).resolve().parent / "growth_points.py"
SIZES: dict[str, dict[str, Sequence[int]]] = {
    "quick": {
        "search, 1 query": (2_000, 8_000),
        "search, 16 queries": (2_000, 8_000),
        "split": (100, 200),
        "mask": (100, 200),
        "embed": (16, 32),
        "candidates": (2, 4),
    },
    "short": {
        "search, 1 query": (10_000, 100_000, 1_000_000),
        "search, 16 queries": (10_000, 100_000, 1_000_000),
        "split": (2_000, 4_000, 8_000),
        "mask": (500, 1_000, 2_000),
        "embed": (60, 125, 250),
        "candidates": (2, 4, 8, 16),
        "ranks": (1, 2),
    },
    "full": {
        "search, 1 query": (10_000, 100_000, 1_000_000, 5_000_000),
        "search, 16 queries": (10_000, 100_000, 1_000_000, 5_000_000),
        "split": (5_000, 20_000, 60_000, 192_073),
        "mask": (5_000, 20_000, 60_000),
        "embed": (125, 250, 500, 1_000, 2_000),
        "candidates": (2, 4, 8, 16, 32),
        "ranks": (1, 2),
    },
}
"""Vectors, articles (split and mask), passages, candidates, ranks."""
IN_PROCESSES = {"split": 3_000, "mask": 1_000}
"""Articles for one and two processes: some seconds of work, beside which starting is little."""
PROCESS_ROUNDS = 2
MOST_EXPONENT = 1.1
TWO_PROCESSES = 1.5
"""Least gain of a second process, where there is a second core."""
Points = dict[str, list[dict[str, float]]]


def main() -> int:
    """Measure."""
    return run_benchmark("growth", __doc__, measure, _add_arguments)


def measure(told: argparse.Namespace) -> Measured:
    """Return exponents, and what a second process or rank gains."""
    mode = "quick" if told.quick else "full" if told.full else "short"
    work: Path = told.work / f"growth-{mode}"
    work.mkdir(parents=True, exist_ok=True)
    sizes = {curve: wanted[: told.sizes] for curve, wanted in SIZES[mode].items()}
    points = measured_points(sizes, work, told.data)
    actions = {
        name: lambda name=name, size=100 if told.quick else size: as_seconds(
            measured_point(name, size, work, told.data)
        )
        for verb, size in IN_PROCESSES.items()
        for name in (verb, f"{verb}, 2 processes")
    }
    rounds = 1 if told.quick else min(told.rounds, PROCESS_ROUNDS)
    timings = interleaved(actions, rounds=rounds, warm_up=False)
    return Measured(
        figures=[
            *exponents(points),
            *(gain for verb in ("split", "mask") for gain in second_process(timings, verb)),
            *second_rank(points),
        ],
        timings=timings,
        settings={"mode": mode, "threads": 1, "articles_in_processes": IN_PROCESSES},
        more={"points": points},
    )


def measured_points(sizes: Mapping[str, Sequence[int]], work: Path, data: Path) -> Points:
    """Return the points of each curve; what was measured of the same sources is not again."""
    known = work / f"points-{sources()}.json"
    points: Points = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    # sizes by sizes, not curves by curves: search of one size uses the same vectors
    for place in range(max(map(len, sizes.values()))):
        for curve, wanted in sizes.items():
            done = points.setdefault(curve, [])
            if place >= len(wanted) or len(done) > place:
                continue
            done.append(measured_point(curve, wanted[place], work, data))
            known.write_text(json.dumps(points, indent=1), encoding="utf-8")
            sys.stderr.write(f"{curve}, {wanted[place]:,}: {done[-1]['cpu']:.4g} CPU seconds\n")
    return points


def sources() -> str:
    """Return a hash of the files of the package."""
    files = sorted((ROOT / "src" / "realm").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def measured_point(curve: str, size: int, work: Path, data: Path) -> dict[str, float]:
    """Return amount, CPU and wall seconds that a process of its own tells."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(POINTS), curve, str(size), str(work), str(data)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    point: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return point


def as_seconds(point: Mapping[str, float]) -> Seconds:
    """Return a point's times."""
    return Seconds(point["cpu"], point["wall"])


def exponents(points: Points) -> list[Figure]:
    """Return the fitted exponent of each curve with three points or more (two, if --quick)."""
    figures: list[Figure] = []
    for curve, measured in points.items():
        if curve == "ranks":
            continue
        amounts = [point["amount"] for point in measured]
        first, last = measured[0], measured[-1]
        figures.append(
            Figure(
                what=f"exponent of {curve}",
                value=exponent(amounts, [point["cpu"] for point in measured]),
                unit="",
                at_most=MOST_EXPONENT,
                note=f"{first['amount']:,.0f} to {last['amount']:,.0f}: "
                f"{first['cpu']:.3g} to {last['cpu']:.3g} CPU s",
            )
        )
    return figures


def exponent(amounts: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of the line through the logarithms, by least squares."""
    xs, ys = [math.log(value) for value in amounts], [math.log(value) for value in costs]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    up = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return up / sum((x - mean_x) ** 2 for x in xs)


def second_process(timings: Mapping[str, Timings], verb: str) -> list[Figure]:
    """Return how much a second process saves of the wall time, and costs in CPU time."""
    one, two = timings[verb], timings[f"{verb}, 2 processes"]
    return [
        Figure(
            what=f"{verb}: gain of a second process, wall",
            value=ratio(one, two, clock="wall"),
            at_least=TWO_PROCESSES,
            note="needs two idle cores",
        ),
        Figure(what=f"{verb}: CPU time of two processes over one", value=ratio(two, one)),
    ]


def second_rank(points: Points) -> list[Figure]:
    """Return how much a second rank saves of a step's wall time, and costs in CPU time."""
    if len(points.get("ranks", [])) < 2:
        return []
    one, two = points["ranks"]
    return [
        Figure(
            what="step of realm ict: gain of a second rank, wall",
            value=one["wall"] / two["wall"] if two["wall"] > 0 else None,
            note="a difference of two runs; needs two idle cores",
        ),
        Figure(
            what="step of realm ict: CPU time of two ranks over one", value=two["cpu"] / one["cpu"]
        ),
    ]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    data = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder of real data")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench", help="for the points")
    parser.add_argument("--sizes", type=int, help="only the first so many of each curve")
    parser.add_argument("--full", action="store_true", help="to 5 M vectors; an hour")


if __name__ == "__main__":
    sys.exit(main())
