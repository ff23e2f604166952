"""The small world's comparison: every row, some seeds, one table with intervals.

    python reproductions/small-world/run.py --out small-world

Run it again after it was killed: what is done stays, and a stage goes on from its checkpoint.
Seeds may run side by side (`--seeds 0` and `--seeds 1 2` with the same --out); a last call with all
of them writes the table.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from intervals import METRICS, interval, mean
from measure import Outcome
from recipe import ROWS, SmallWorld, compare

from realm.errors import RealmError

COLUMNS = ("recall@1", "recall@5", "span right")
SYSTEMS = {
    "null": ("REALM's encoder, null passage", "realm", ("span right, null passage",)),
    "ict": ("ICT retriever, warmed-up encoder", "ict", COLUMNS),
    "ict-joint": ("ICT retriever, REALM's encoder", "ict, joint encoder", COLUMNS),
    "joint-warm": (
        "REALM's retriever, warmed-up encoder",
        "joint retriever, warm encoder",
        COLUMNS,
    ),
    **{row.name: (row.meaning, row.name, COLUMNS) for row in ROWS},
}
"""Line of the table -> what it says, whose outcomes, which metrics."""

Found = Mapping[str, Sequence[Sequence[Outcome]]]


def main() -> None:
    """Run what is missing, and write results.json and results.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--passages", type=int, default=2_000, help="passages in Z, at least")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="default all")
    told = parser.parse_args()
    if told.passages < 500:
        parser.error(f"found --passages {told.passages}, expected 500 or more to learn from")
    try:
        _run(told.out, told.seeds, told.passages, told.rows)
    except RealmError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None


def _run(out: Path, seeds: Sequence[int], passages: int, chosen: Sequence[str] | None) -> None:
    rows = [row for row in ROWS if not chosen or row.name in {"realm", *chosen}]
    found: dict[str, list[list[Outcome]]] = {}
    for seed in seeds:
        small = SmallWorld(out=out / f"seed-{seed}", seed=seed, num_passages=passages)
        began, cpu = time.monotonic(), time.process_time()
        for name, outcomes in compare(small, rows, _tell(seed)).items():
            found.setdefault(name, []).append(outcomes)
        _tell(seed)(
            f"done: {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} CPU s"
        )
    results = summary(found)
    out.mkdir(exist_ok=True)
    about = {
        "seeds": seeds,
        "passages": passages,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU",
    }
    text = json.dumps({"about": about, "results": results}, indent=1)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    (out / "results.md").write_text(table(results), encoding="utf-8")
    sys.stdout.write(table(results))


def summary(found: Found) -> dict[str, dict[str, dict[str, object]]]:
    """Return mean, 95 % interval and each seed's mean of every metric of every line."""
    results: dict[str, dict[str, dict[str, object]]] = {}
    for line, (_, source, metrics) in SYSTEMS.items():
        if source not in found:
            continue
        seeds = found[source]
        results[line] = {
            metric: {
                **asdict(interval(seeds, METRICS[metric])),
                "seeds": [mean(outcomes, METRICS[metric]) for outcomes in seeds],
            }
            for metric in metrics
        }
        if (anew := f"{source}, index built anew") in found:
            value = asdict(interval(found[anew], METRICS["recall@1"]))
            results[line]["recall@1, index built anew"] = value
    return results


def table(results: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    """Return the results as a Markdown table, in percent."""
    columns = (*COLUMNS, "recall@1, index built anew")
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for line, metrics in results.items():
        shown = dict(metrics)
        if line == "null":
            shown["span right"] = shown.pop("span right, null passage")
        cells = [_cell(shown.get(column)) for column in columns]
        lines.append(f"| {SYSTEMS[line][0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(value: Mapping[str, object] | None) -> str:
    if value is None:
        return "-"
    middle, low, high = (100 * float(str(value[name])) for name in ("mean", "low", "high"))
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def _tell(seed: int):  # noqa: ANN202 - a function that writes one line
    def tell(text: str) -> None:
        sys.stdout.write(f"seed {seed}: {text}\n")
        sys.stdout.flush()

    return tell


if __name__ == "__main__":
    main()
