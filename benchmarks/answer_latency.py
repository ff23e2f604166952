"""One question at a time: seconds from a question to its answers, by percentile, and their parts.

    python benchmarks/answer_latency.py runs/qa questions.jsonl --limit 100 --out latency.json
    python benchmarks/answer_latency.py runs/qa questions.jsonl --check

The model is loaded and a few questions are asked before the clock runs. Beside wall time stands
the CPU time of the process, which other work on the machine disturbs less. With --check the exit
code is 1 where wall time is above the target (two free cores of a server's processor).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

from realm.answering import Answerer
from realm.evaluation.questions import read_questions

TARGET_MS = {"p50": 250.0, "p95": 400.0}
WARM_QUESTIONS = 3


def main() -> int:
    """Measure, print, and return 1 where --check is given and the target missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--passages", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--read", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autocast", choices=("auto", "bfloat16", "none"), default="auto")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    answerer = Answerer.load(told.run, passages=told.passages, autocast=told.autocast)
    asked = [q.question for q in read_questions(told.questions)[: told.limit + WARM_QUESTIONS]]
    for question in asked[:WARM_QUESTIONS]:
        answerer.answer([question], num_passages=told.read)
    questions = asked[WARM_QUESTIONS:]
    content: dict[str, Any] = {
        "passages": len(answerer.store),
        "questions": len(questions),
        "read": told.read,
        "threads": told.threads,
        "autocast": answerer.autocast,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "answer": measure(lambda q: answerer.answer([q], num_passages=told.read), questions),
        "retrieve": measure(lambda q: answerer.retriever.retrieve([q], told.read), questions),
        "target_ms": TARGET_MS,
    }
    text = json.dumps(content, indent=1)
    sys.stdout.write(text + "\n")
    if told.out is not None:
        told.out.write_text(text + "\n", encoding="utf-8")
    wall = content["answer"]["wall_ms"]
    missed = [name for name, most in TARGET_MS.items() if wall[name] > most]
    if missed:
        shown = ", ".join(
            f"{name} {wall[name]:.0f} ms, at most {TARGET_MS[name]:.0f}" for name in missed
        )
        sys.stderr.write(f"above the target: {shown}\n")
    return int(told.check and bool(missed))


def measure(ask: Callable[[str], object], questions: list[str]) -> dict[str, dict[str, float]]:
    """Return percentiles of wall and CPU milliseconds of a question."""
    wall: list[float] = []
    cpu: list[float] = []
    for question in questions:
        began, used = time.perf_counter(), time.process_time()
        ask(question)
        wall.append(1e3 * (time.perf_counter() - began))
        cpu.append(1e3 * (time.process_time() - used))
    return {"wall_ms": percentiles(wall), "cpu_ms": percentiles(cpu)}


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and the mean."""
    cuts = quantiles(values, n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18], "mean": sum(values) / len(values)}


if __name__ == "__main__":
    sys.exit(main())
