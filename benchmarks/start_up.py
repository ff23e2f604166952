"""Start-up: `realm --help`, and `realm ask` on a folder that was read before.

    python benchmarks/start_up.py --check

Every round starts new processes: an empty Python and `import torch` are the limits, the imports of
`realm ask` alone are its first part. One thread each. CPU seconds hold on a busy machine, too; wall
seconds are what a user waits, on an idle one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Figure, Measured, Timings, interleaved, ratio, run_benchmark, spread

from realm.encyclopedia import articles_file

QUESTION = "Who discovered radium?"
NUM_ARTICLES = 20
LEAST_ROUNDS = 9
EMPTY, TORCH = "python -c pass", "import torch"
HELP, ASK, IMPORTS = "realm --help", "realm ask, cached", "imports of realm ask"
MOST_SECONDS = {HELP: 0.4, ASK: 4.0, IMPORTS: 2.0}


def main() -> int:
    """Measure."""
    return run_benchmark("start_up", __doc__, measure)


def measure(told: argparse.Namespace) -> Measured:
    """Return seconds of each start, and ratios to the limits."""
    rounds = 2 if told.quick else max(told.rounds, LEAST_ROUNDS)
    with tempfile.TemporaryDirectory(prefix="realm-start-") as name:
        docs, cache = write_docs(Path(name) / "docs"), Path(name) / "cache"
        asking = ["-m", "realm", "ask", QUESTION, "--docs", str(docs), "--cache", str(cache)]
        starts = {
            EMPTY: ["-c", "pass"],
            TORCH: ["-c", "import torch"],
            HELP: ["-m", "realm", "--help"],
            IMPORTS: ["-c", "import realm.asking, realm.cli.display"],
            ASK: asking,
        }
        actions = {name: lambda a=arguments: start(a) for name, arguments in starts.items()}
        timings = interleaved(actions, rounds=rounds)  # the first, untimed, reads the folder
    return Measured(
        figures=[*seconds(timings), *ratios(timings)],
        timings=timings,
        settings={"rounds": rounds, "threads": 1, "articles": NUM_ARTICLES},
    )


def write_docs(folder: Path) -> Path:
    """Write the first articles of the small encyclopedia as a folder to ask."""
    folder.mkdir(parents=True)
    lines = articles_file().read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "articles.jsonl").write_text("".join(lines[:NUM_ARTICLES]), encoding="utf-8")
    return folder


def start(arguments: list[str]) -> None:
    """Run Python and wait for its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(  # noqa: S603 - our own interpreter and arguments
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def seconds(timings: dict[str, Timings]) -> list[Figure]:
    """Return CPU and wall seconds of what is ours, with their targets."""
    return [
        Figure(what=f"{name}, {clock}", value=spread(values), unit="s", at_most=most)
        for name, most in MOST_SECONDS.items()
        for clock, values in (("CPU", timings[name].cpu), ("wall", timings[name].wall))
    ]


def ratios(timings: dict[str, Timings]) -> list[Figure]:
    """Return what is ours over what Python and torch take in any case."""
    pairs = ((HELP, EMPTY), (IMPORTS, TORCH), (ASK, TORCH))
    return [
        Figure(what=f"{ours} over {limit}, CPU", value=ratio(timings[ours], timings[limit]))
        for ours, limit in pairs
    ]


if __name__ == "__main__":
    sys.exit(main())
