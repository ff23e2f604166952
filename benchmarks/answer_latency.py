"""One question at a time to a run of one's own: seconds to its answers, and of the search in them.

    python benchmarks/answer_latency.py runs/qa questions.jsonl --out latency.json
    python benchmarks/answer_latency.py runs/qa questions.jsonl --check

The targets are for two idle cores of a server's processor. Against peers: answering.py.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from answering import READ, each, percentile_figures
from harness import Measured, interleaved, run_benchmark

from realm.answering import Answerer
from realm.evaluation.questions import read_questions


def main() -> int:
    """Measure."""
    return run_benchmark("answer_latency", __doc__, measure, _add_arguments)


def measure(told: argparse.Namespace) -> Measured:
    """Return p50 and p95 of answering and of searching."""
    torch.set_num_threads(told.threads)
    answerer = Answerer.load(told.run, passages=told.passages, autocast=told.autocast)
    questions = [q.question for q in read_questions(told.questions)[: told.limit + 1]]
    actions = {
        "ours": each(lambda q: answerer.answer([q], num_passages=told.read), questions),
        "the search alone": each(lambda q: answerer.retriever.retrieve([q], told.read), questions),
    }
    timings = interleaved(actions, rounds=len(questions) - 1)  # the first one warms up
    return Measured(
        figures=percentile_figures(timings),
        timings=timings,
        settings={
            "passages": len(answerer.store),
            "questions": len(questions) - 1,
            "read": told.read,
            "threads": told.threads,
            "autocast": answerer.passage_reader.autocast,
        },
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--passages", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--read", type=int, default=READ)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--autocast", choices=("auto", "bfloat16", "none"), default="auto")


if __name__ == "__main__":
    sys.exit(main())
