"""What each way of refreshing costs the trainer: short asynchronous runs, one after the other.

    python benchmarks/refresh_speed.py X Z --embedder ict --encoder mlm --out speed.json

Trainer and one builder on one thread each. Medians leave out the first steps.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from realm.checkpoint.run_records import read_metrics
from realm.config import OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.training.pretrain import pretrain

WARM_UP = 10
WAYS: dict[str, dict[str, Any]] = {
    "sweep": {"order": "sweep"},
    "oldest": {"order": "oldest"},
    "hottest": {"order": "hottest"},
    "hottest, write-back": {"order": "hottest", "write_back": True},
    "hottest, re-rank 32": {"order": "hottest", "rerank_passages": 32},
    "hottest, re-rank 32, write-back": {
        "order": "hottest",
        "rerank_passages": 32,
        "write_back": True,
    },
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name, way in WAYS.items():
        config = PretrainConfig(
            steps=args.steps,
            batch_size=4,
            threads=1,
            dropout=0.0,
            num_eval_examples=1,
            eval_every_steps=args.steps,
            save_every_steps=args.steps,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=5),
            refresh=RefreshConfig(
                every_steps=10, max_staleness_steps=100_000, audit_passages=0, **way
            ),
        )
        with TemporaryDirectory() as folder:
            pretrain(
                ExampleStore.open(args.examples),
                PassageStore.open(args.passages),
                Path(folder) / "run",
                embedder=args.embedder,
                encoder=args.encoder,
                config=config,
            )
            lines = [m for m in read_metrics(Path(folder) / "run") if "step_seconds" in m]
        lines = lines[WARM_UP:]
        seconds = statistics.median(line["step_seconds"] / line["tokens"] for line in lines)
        found[name] = {
            "seconds_per_1000_wordpieces": 1_000 * seconds,
            "steps_per_second": 1 / statistics.median(line["step_seconds"] for line in lines),
            "retrieved_staleness_steps": statistics.mean(
                line["index/retrieved_staleness_steps"] for line in lines
            ),
            "refreshes": sum(line["index/refreshed"] for line in lines),
            "longest_swap_seconds": max(line["index/swap_seconds"] for line in lines),
        }
        sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
        sys.stdout.flush()
        args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
