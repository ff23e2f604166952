"""The tables of docs/performance.md, from the results of the benchmarks.

Between `<!-- benchmark: NAME -->` and `<!-- end -->` stands what benchmarks/results/NAME.json says;
between `<!-- benchmark: summary -->` and its end, every figure that has a target. What was
measured on another processor has a folder and a table of its own.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))
from harness import number  # noqa: E402 - not a package: what runs there has to start quickly

PARTS = {
    "embedding": "embedding a corpus",
    "exact_search": "exact search",
    "training_step": "a pre-training step",
    "answering": "answering",
    "start_up": "start-up",
    "growth": "growth",
}
OTHERS = {"summary_avx2": "avx2"}
"""Name of a table -> folder of what was measured on another processor."""
REGION = re.compile(r"(<!-- benchmark: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
MISSING = "Not measured yet: `make bench`.\n"


def performance_page(text: str, results: Path) -> str:
    """Return the page with each table as the results have it.

    Args:
        text: the page.
        results: folder of the results.

    Raises:
        SystemExit: the page has no table of some benchmark, or one of an unknown benchmark.
    """
    named = {name for _, name, _ in REGION.findall(text)}
    wanted = {"summary", *OTHERS, *PARTS}
    if named != wanted:
        wrong = ", ".join(sorted(named ^ wanted))
        raise SystemExit(f"docs/performance.md: expected one table of each benchmark, see {wrong}")

    def filled(match: re.Match[str]) -> str:
        name = match[2]
        if name in PARTS:
            return f"{match[1]}{_table(_read(results / f'{name}.json'))}{match[3]}"
        folder = results / OTHERS.get(name, "")
        found = {part: _read(folder / f"{part}.json") for part in PARTS}
        measured = [content for content in found.values() if content]
        machine = f"Measured on {_machine(measured[0])}.\n\n" if name in OTHERS and measured else ""
        return f"{match[1]}{_summary(found)}{machine}{match[3]}"

    return REGION.sub(filled, text)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _summary(found: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return a row for each figure with a target."""
    rows = [
        f"| {PARTS[name]} | {_cells(figure)} |"
        for name, content in found.items()
        if content is not None
        for figure in content["figures"]
        if _target(figure)
    ]
    if not rows:
        return MISSING
    head = "| | figure | measured [quartiles] | target | |\n|---|---|---|---|---|"
    return "\n".join(["", head, *rows, "", ""])


def _table(content: Mapping[str, Any] | None) -> str:
    """Return all figures of one benchmark, its timings, and on what it ran."""
    if content is None:
        return MISSING
    lines = ["", "| figure | measured [quartiles] | target | |", "|---|---|---|---|"]
    lines += [f"| {_cells(figure)} |" for figure in content["figures"]]
    if content["timings"]:
        lines += ["", "| seconds a round, median [quartiles] | CPU | wall |", "|---|---|---|"]
        lines += [
            f"| {name} | {_seconds(took['cpu_seconds'])} | {_seconds(took['wall_seconds'])} |"
            for name, took in content["timings"].items()
        ]
    return "\n".join([*lines, "", _conditions(content), ""])


def _cells(figure: Mapping[str, Any]) -> str:
    """Return a figure, its value, its target and whether that was met, as cells of a row."""
    outcome = {True: "met", False: "**missed**", None: ""}[figure["met"]]
    what = figure["what"] + (f" ({figure['note']})" if figure["note"] else "")
    return f"{what} | {_value(figure)} | {_target(figure)} | {outcome}"


def _value(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "not measured"
    unit = {"x": "x", "": ""}.get(figure["unit"], f" {figure['unit']}")
    spread = ""
    if figure["low"] != figure["high"]:
        spread = f" [{number(figure['low'])}, {number(figure['high'])}]"
    return f"{number(figure['value'])}{unit}{spread}"


def _target(figure: Mapping[str, Any]) -> str:
    words = {"at_least": "at least", "at_most": "at most"}
    bounds = [f"{words[k]} {number(figure[k])}" for k in words if figure[k] is not None]
    return ", ".join(bounds)


def _seconds(told: Mapping[str, Any]) -> str:
    return f"{number(told['median'])} [{number(told['low'])}, {number(told['high'])}]"


def _conditions(content: Mapping[str, Any]) -> str:
    """Return commit, hardware, load, releases and settings in one paragraph."""
    load = content["load_average"]
    changed = " with changes" if content["dirty"] else ""
    releases = ", ".join(f"{name} {v}" for name, v in content["versions"].items() if v)
    settings = ", ".join(f"{name.replace('_', ' ')} {v}" for name, v in content["settings"].items())
    return (
        f"`{content['command']}`, {content['date']}, commit {content['commit']}{changed}; "
        f"{_machine(content)}; load average {load['before']} before and "
        f"{load['after']} after; {content['seconds']:.0f} s. {settings}. {releases}.\n"
    )


def _machine(content: Mapping[str, Any]) -> str:
    hardware = content["hardware"]
    return (
        f"{hardware['cores']} cores of {hardware['cpu']} ({', '.join(hardware['features'])}), "
        f"{hardware['memory_bytes'] / 2**30:.0f} GiB"
    )
