"""The tables of docs/reliability.md, from the figures in benchmarks/results."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reliability.md"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Content = Mapping[str, Any]
_COMMANDS, _INPUTS = "commands with a failed call: ", "inputs tried: "
"""Of such counts of a soak only the sum is shown."""


def reliability_page() -> str:
    """Return docs/reliability.md with its tables as the figures are now."""

    def fill(found: re.Match[str]) -> str:
        name = found[2]
        make, file = TABLES[name]
        path = RESULTS / file
        if not path.is_file():
            return f"{found[1]}No figures are kept in this checkout.\n{found[3]}"
        table = make(json.loads(path.read_text(encoding="utf-8")))
        return f"{found[1]}{table}\n\nFigures: `benchmarks/results/{file}`.\n{found[3]}"

    return BLOCK.sub(fill, PAGE.read_text(encoding="utf-8"))


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---", *("--:" for _ in columns[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _soak(told: Content) -> str:
    counts: Mapping[str, int] = told["counts"]
    tried = [n for name, n in counts.items() if name.startswith(_INPUTS)]
    kept = {name: n for name, n in counts.items() if not name.startswith((_COMMANDS, _INPUTS))}
    rows = [(name, f"{count:,}") for name, count in kept.items()]
    rows += [(f"inputs tried on {len(tried)} ways in", f"{sum(tried):,}")] if tried else []
    rows += [
        ("kinds of files damaged", f"{told['kinds_of_files_damaged']:,}"),
        ("**kills in all**", f"**{told['kills']:,}**"),
        ("**what did not hold**", f"**{len(told['findings']):,}**"),
    ]
    about = (
        f"`{told['command']}`: {told['minutes']:g} minutes, {told['cpu_minutes']:g} of CPU, "
        f"{told['machine']}."
    )
    return f"{about}\n\n{_table(('in one soak', 'times'), rows)}"


def _fuzzing(told: Content) -> str:
    rows = [
        (
            f"{len(run['targets'])} ways in, {run['seconds_for_each_target']:g} s each, "
            f"{run['engine']}, seed {run['seed']}",
            f"{run['tried']:,}",
            f"{sum(one['taken'] for one in run['targets'].values()):,}",
            f"{run['findings']:,}",
        )
        for run in told.get("runs", [told])
    ]
    rows.append(("**all**", f"**{told['tried']:,}**", "", f"**{told['findings']:,}**"))
    return _table(("search", "inputs", "taken", "findings"), rows)


def _attack(told: Content) -> str:
    seconds, files, rss = told["seconds"], told["files"], told["rss_mib"]
    before = told["before_mending"]
    rows = [
        (
            name,
            f"{seconds[name]['p50']:.2f} s",
            f"{seconds[name]['p95']:.2f} s",
            f"{told['answers'][name]:,}",
        )
        for name in ("before", "during", "after")
    ]
    answers = _table(("the one who asks", "p50", "p95", "answers"), rows)
    facts = [
        ("questions without an answer", before["failures"], told["failures"]),
        (
            "connections held 45 s after the attack",
            before["files"]["held_after"],
            files["held_after"],
        ),
        ("questions answered during it", before["answers"]["during"], told["answers"]["during"]),
        ("resident MiB before, after", _pair(before["rss_mib"]), _pair(rss)),
        ("seconds to stop amid it", _short(before["stop_seconds"]), _short(told["stop_seconds"])),
        ("tracebacks in the log", before["tracebacks"], told["tracebacks"]),
        ("bytes of log", f"{before['log_bytes']:,}", f"{told['log_bytes']:,}"),
    ]
    did = ", ".join(f"{count:,} {name}" for name, count in told["attackers_did"].items())
    missed = "; ".join(told["missed"]) or "none"
    return (
        f"{answers}\n\nWhat {told['attackers_of_each_kind']} attackers of each slow kind did: "
        f"{did}.\n\n"
        + _table(
            ("", "without the limits on connections", "now"), [tuple(map(str, f)) for f in facts]
        )
        + f"\n\nTargets missed: {missed}."
    )


def _load(told: Content) -> str:
    endured = told["endurance"]
    rows = [
        ("answers in five minutes, 8 clients", f"{endured['answers']:,}"),
        ("failures", f"{told['failures']:,}"),
        ("p50, p95", f"{endured['latency']['p50']:.2f} s, {endured['latency']['p95']:.2f} s"),
        ("documents added and removed meanwhile", f"{endured['documents_added_and_removed']:,}"),
        ("answers about them, checked", f"{endured['answers_about_them_checked']:,}"),
        ("growth of memory over the last four minutes", f"{endured['growth']:.1%}"),
    ]
    return f"{_table(('load', ''), rows)}\n\nTargets missed: {'; '.join(told['missed']) or 'none'}."


def _short(value: float) -> str:
    return f"{value:.1f}"


def _pair(told: Mapping[str, float]) -> str:
    return f"{told['before']:.0f}, {told['after']:.0f}"


TABLES: dict[str, tuple[Callable[[Content], str], str]] = {
    "soak": (_soak, "soak.json"),
    "fuzzing": (_fuzzing, "fuzzing.json"),
    "attack": (_attack, "serving-attack.json"),
    "load": (_load, "serving-load.json"),
}
"""Name of each block of the page -> what writes it, from which file."""
