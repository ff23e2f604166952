"""What docs/scale.md quotes: search of 1 M and 5 M vectors, real runs beside plans, a table.

    PYTHONPATH=src python benchmarks/scale.py search
    PYTHONPATH=src python benchmarks/scale.py runs --articles articles.jsonl.gz
    PYTHONPATH=src python benchmarks/scale.py table

Each part is measured in processes of its own, with one thread, and merged into
benchmarks/results/scale.json. The folder of --work (some 15 GB for 5 M vectors) may be removed
afterwards.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "scale.json"
SIZES = (1_000_000, 5_000_000)
PACKAGES = ("torch", "transformers", "tokenizers", "faiss-cpu", "numpy")


def main() -> None:
    """Measure one part and merge it into the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("search", "runs", "table"))
    parser.add_argument("--work", type=Path, default=Path("runs/scale"))
    parser.add_argument("--articles", type=Path, help="JSON lines of articles, for the runs")
    parser.add_argument("--sizes", type=lambda t: [int(float(n)) for n in t.split(",")])
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    place = where()
    if told.part == "search":
        measured: Any = [alone("search", size, told.work) for size in told.sizes or SIZES]
        show_search(measured)
    elif told.part == "table":
        from scale_table import show_table, table

        measured = table()
        show_table(measured)
    else:
        if told.articles is None:
            parser.error("runs needs --articles FILE")
        from real_runs import measure_runs, show_runs

        measured = measure_runs(told.articles, told.work)
        show_runs(measured)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**known, told.part: {**place, "results": measured}}, indent=1))


def alone(part: str, size: int, work: Path) -> dict[str, Any]:
    """Return what a child process with one thread measures."""
    code = (
        "import sys, json, torch; from pathlib import Path; torch.set_num_threads(1);"
        f"from {part}_cost import measure_{part};"
        f"print(json.dumps(measure_{part}(int(sys.argv[1]), Path(sys.argv[2]))))"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code, str(size), str(work)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]])},
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def where() -> dict[str, Any]:
    """Return commit, versions, hardware, date."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
    )
    return {
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "hardware": hardware(),
        "load_average": os.getloadavg()[0],
    }


def hardware() -> str:
    """Return the processor's name and the number of its cores."""
    from realm.planning.machine import processor_name

    return f"{processor_name()}, {os.cpu_count()} cores"


def show_search(measured: list[dict[str, Any]]) -> None:
    """Print one line for each index."""
    lines = ["passages   index          bytes/passage  recall@8  CPU ms a query at 1 / 16 / 256"]
    for one in measured:
        kinds = [("exact", one["exact"], one["exact"]["disk_bytes_per_passage"])]
        size = one["ivfpq"]["disk_bytes_per_passage"]
        kinds += [(f"ivfpq {v['probes']} x{v['widen']}", v, size) for v in one["ivfpq"]["variants"]]
        for name, values, size in kinds:
            times = " / ".join(f"{t['cpu_ms']:.2f}" for t in values["search"].values())
            recall = f"{values['recall_at_8']:.3f}"
            lines.append(f"{one['passages']:>9,}  {name:<13}  {size:13.0f}  {recall:>8}  {times}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
