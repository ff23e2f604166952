"""What every benchmark shares: rounds that interleave, medians with spread, targets, one report.

A benchmark is a file with a `measure(told) -> Measured` and this at its end:

    if __name__ == "__main__":
        sys.exit(run_benchmark("embedding", __doc__, measure, add_arguments))

Absolute times of a shared machine mean little. Every figure is a ratio against a peer or a limit
whose rounds alternate with ours, in random order, in one run; CPU seconds stand beside wall
seconds. Only the standard library is imported here: what starts quickly can be measured, too.
"""

import argparse
import gc
import json
import platform
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

from machine import commit, hardware, load_average

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS = 7
PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy", "faiss-cpu")
"""Those whose release can change a figure."""

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True, slots=True)
class Seconds:
    """What one call took. A call that measured itself (in another process) returns this."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Timings:
    """What the rounds of one action took, in the order of the rounds."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of a report; with `at_least` or `at_most`, a target."""

    what: str
    """In words, with the peer or limit: "against sentence-transformers at its defaults"."""
    value: Spread | float | None
    """None: not measured, and `note` says why."""
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the target; None without a target, or not measured."""
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        value = self.value.median if isinstance(self.value, Spread) else self.value
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a benchmark found."""

    figures: Sequence[Figure]
    timings: Mapping[str, Timings] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was measured: sizes, threads, data, in words or numbers."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Of peers in other environments."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is worth keeping in the file: points of a curve, fitted exponents."""


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    warm_up: bool = True,
) -> dict[str, Timings]:
    """Run every action once a round, in an order drawn anew each round.

    CPU seconds are those of all threads of this process and of children that ended meanwhile. An
    action that returns `Seconds` (a peer in another process) has measured itself. Garbage is
    collected before, never during, the timed part.

    Args:
        actions: what to run, by name.
        rounds: how often.
        seed: of the order.
        warm_up: run each action once before, untimed: kernels are made and pages are mapped then.

    Returns:
        For each name what its rounds took; the i-th values of all names are of the same round.
    """
    drawn = random.Random(seed)  # noqa: S311 - draws no secret
    timings = {name: Timings() for name in actions}
    if warm_up:
        for action in actions.values():
            action()
    for _ in range(rounds):
        for name in drawn.sample(list(actions), len(actions)):
            took = timed(actions[name])
            timings[name].cpu.append(took.cpu)
            timings[name].wall.append(took.wall)
    return timings


def timed(action: Callable[[], object]) -> Seconds:
    """Return what one call took, by its own account where it returns `Seconds`."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        cpu, wall = _cpu_seconds(), time.perf_counter()
        result = action()
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    finally:
        if was_enabled:
            gc.enable()
    return result if isinstance(result, Seconds) else Seconds(cpu, wall)


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles; of a single value, that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    cuts = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), cuts[0], cuts[2])


def ratio(over: Timings, under: Timings, *, clock: Clock = "cpu", weight: float = 1.0) -> Spread:
    """Return how often `under` fits into `over`, round by round: a peer over ours is our speed-up.

    Args:
        over: timings of the peer, for a speed-up.
        under: timings of ours.
        clock: which seconds.
        weight: multiplies the ratio, where the two did unequal amounts of work.
    """
    pairs = zip(getattr(over, clock), getattr(under, clock), strict=True)
    return spread([weight * a / b for a, b in pairs])


def run_benchmark(
    name: str,
    doc: str | None,
    measure: Callable[[argparse.Namespace], Measured],
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the arguments, measure, write results/NAME.json, print, return the exit code.

    Every benchmark takes --out, --rounds, --quick and --check. With --check the code is 1 where a
    target is missed.

    Args:
        name: of the benchmark and its file of results.
        doc: the benchmark's docstring; its first line describes it.
        measure: does the work.
        add_arguments: adds those of this benchmark.
        arguments: instead of the command line's.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the interleaved timings")
    parser.add_argument("--quick", action="store_true", help="smallest form, on shipped data")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--out", type=Path, help="of the results; default: results/NAME.json")
    if add_arguments:
        add_arguments(parser)
    told = parser.parse_args(arguments)
    before, began = load_average(), time.perf_counter()
    measured = measure(told)
    content = {
        "benchmark": name,
        "title": (doc or "").partition("\n")[0].rstrip("."),
        "command": f"python benchmarks/{name}.py",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": told.quick,
        "seconds": round(time.perf_counter() - began, 1),
        **commit(ROOT),
        "hardware": hardware(),
        "load_average": {"before": before, "after": load_average()},
        "versions": installed() | dict(measured.versions),
        "settings": dict(measured.settings),
        "figures": [_figure_content(figure) for figure in measured.figures],
        "timings": {key: _timings_content(value) for key, value in measured.timings.items()},
        **measured.more,
    }
    out: Path = told.out or (RESULTS / f"{name}{'.quick' if told.quick else ''}.json")
    if told.out is not None or not told.quick:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(table(content) + "\n")
    missed = [figure for figure in content["figures"] if figure["met"] is False]
    for figure in missed:
        sys.stderr.write(f"missed: {name}, {figure['what']}: {shown(figure)}\n")
    return int(told.check and bool(missed))


def installed(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Return the releases of Python and of packages, None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def table(content: Mapping[str, Any]) -> str:
    """Return a report's timings and figures as text."""
    lines = [f"{content['benchmark']}: {content['title']}"]
    if content["timings"]:
        width = max(len(name) for name in content["timings"])
        lines.append(f"  {'seconds a round':{width}}  {'CPU':>24}  {'wall':>24}")
        for name, took in content["timings"].items():
            cpu, wall = (_seconds(took[clock]) for clock in ("cpu_seconds", "wall_seconds"))
            lines.append(f"  {name:{width}}  {cpu:>24}  {wall:>24}")
    width = max((len(figure["what"]) for figure in content["figures"]), default=0)
    lines += [f"  {figure['what']:{width}}  {shown(figure)}" for figure in content["figures"]]
    load = content["load_average"]
    lines.append(
        f"  load average {load['before']:.2f} before, {load['after']:.2f} after; "
        f"{content['seconds']:.0f} s in all"
    )
    return "\n".join(lines)


def shown(figure: Mapping[str, Any]) -> str:
    """Return a figure of a report, with its quartiles, target and outcome, as text."""
    if figure["value"] is None:
        return f"not measured: {figure['note']}"
    unit = {"x": "x", "": ""}.get(figure["unit"], f" {figure['unit']}")
    text = f"{number(figure['value'])}{unit}"
    if figure["low"] != figure["high"]:
        text += f" [{number(figure['low'])}-{number(figure['high'])}]"
    bounds = [
        f"{word} {number(figure[key])}"
        for key, word in (("at_least", "at least"), ("at_most", "at most"))
        if figure[key] is not None
    ]
    if bounds:
        text += f", target {' and '.join(bounds)}: {'met' if figure['met'] else 'MISSED'}"
    return text + (f" ({figure['note']})" if figure["note"] else "")


def number(value: float) -> str:
    """Return a number with three or four decimal places that count."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if 0.99 < abs(value) < 1:
        return f"{value:.5f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure_content(figure: Figure) -> dict[str, Any]:
    value = figure.value
    found = value if isinstance(value, Spread) else Spread(value, value, value) if value else None
    if value == 0:
        found = Spread(0.0, 0.0, 0.0)
    low, middle, high = (found.low, found.median, found.high) if found else (None, None, None)
    told = {key: item for key, item in asdict(figure).items() if key != "value"}
    return {
        "what": told.pop("what"),
        "value": middle,
        "low": low,
        "high": high,
        **told,
        "met": figure.is_met,
    }


def _timings_content(timings: Timings) -> dict[str, Any]:
    """Return medians, quartiles and all rounds."""
    return {
        f"{clock}_seconds": {**asdict(spread(values)), "rounds": values}
        for clock, values in (("cpu", timings.cpu), ("wall", timings.wall))
    }


def _seconds(told: Mapping[str, Any]) -> str:
    return f"{told['median']:.4g} [{told['low']:.4g}-{told['high']:.4g}]"


def _cpu_seconds() -> float:
    """Return CPU seconds of this process, all threads, and of its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime
