"""What a builder on the other core costs the trainer: step times with it running and halted.

One asynchronous run, trainer and builder on one thread each. Every batch is trained on twice, once
beside the running builder and once while it is halted (SIGSTOP), which of them first changing from
batch to batch: so both sides see the same sentences, the same machine and the same noise. The
figure is the median, over batches, of the ratio of the two times.

    python benchmarks/refresh_step_time.py X Z --embedder ict --encoder mlm --out times.json
"""

import argparse
import json
import os
import signal
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from realm.checkpoint.run_records import read_metrics
from realm.config import OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.refresh.presence import builders_of
from realm.training.examples import ExampleSampler
from realm.training.pretrain import pretrain

LIMIT = 1.15
WARM_UP = 6
"""Steps before the first that counts."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--every-steps", type=int, default=100, help="as refresh.every_steps")
    args = parser.parse_args()
    config = PretrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        threads=1,
        dropout=0.0,
        num_eval_examples=1,
        log_every_steps=1,
        eval_every_steps=args.steps,
        save_every_steps=args.steps,
        optimizer=OptimizerConfig(learning_rate=1e-5),
        refresh=RefreshConfig(
            every_steps=args.every_steps,
            max_staleness_steps=100_000,
            builder_threads=1,
            audit_passages=0,
        ),
    )
    beside: set[int] = set()
    halted: set[int] = set()
    draw = ExampleSampler.batch
    ExampleSampler.batch = lambda self, step, size: draw(self, step // 2, size)

    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"

        def halt_or_go_on(step: int, _steps: int, metrics: Mapping[str, float]) -> None:
            """Decide whether the builder runs during the step after `step`."""
            if "loss" not in metrics:
                return
            builders = [b for b in builders_of(run) if b.is_alive and "pid" in b.values]
            pair, second = divmod(step, 2)
            runs = pair % 2 == second
            for builder in builders:
                os.kill(builder.values["pid"], signal.SIGCONT if runs else signal.SIGSTOP)
            if any("embedding" in str(b.values.get("state")) for b in builders):
                (beside if runs else halted).add(step)

        pretrain(
            ExampleStore.open(args.examples),
            PassageStore.open(args.passages),
            run,
            embedder=args.embedder,
            encoder=args.encoder,
            config=config,
            on_metrics=halt_or_go_on,
            tell=lambda sentence: sys.stderr.write(sentence + "\n"),
        )
        lines = [line for line in read_metrics(run) if "step_seconds" in line]
    found = compare({line["step"] - 1: line for line in lines}, beside, halted)
    swaps = [line["index/swap_seconds"] for line in lines if line.get("index/refreshed")]
    content = {
        "limit": LIMIT,
        "every_steps": args.every_steps,
        **found,
        "swaps": len(swaps),
        "longest_swap_seconds": max(swaps, default=0.0),
        "load": os.getloadavg(),
    }
    args.out.write_text(json.dumps(content, indent=2), encoding="utf-8")
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
    if found["ratio"] > LIMIT:
        sys.exit(f"the builder costs the trainer more than {LIMIT}x")


def compare(
    steps: Mapping[int, Mapping[str, float]], beside: set[int], halted: set[int]
) -> dict[str, float | list[float]]:
    """Return what the pairs of steps say, whose first has an even number.

    Args:
        steps: the metrics of each step, counted from 0.
        beside: steps that ran beside a builder.
        halted: steps during which it was halted.
    """
    pairs = [
        (steps[a], steps[b])
        for first in range(WARM_UP, max(steps), 2)
        for a, b in ((first, first + 1), (first + 1, first))
        if a in beside and b in halted and b in steps
    ]
    ratios = sorted(one["step_seconds"] / two["step_seconds"] for one, two in pairs)
    return {
        "ratio": statistics.median(ratios),
        "quartiles": [round(cut, 3) for cut in statistics.quantiles(ratios, n=4)],
        "pairs": len(pairs),
        "seconds_with": statistics.median(one["step_seconds"] for one, _ in pairs),
        "seconds_without": statistics.median(two["step_seconds"] for _, two in pairs),
        "wordpieces_ratio": statistics.median(one["tokens"] / two["tokens"] for one, two in pairs),
    }


if __name__ == "__main__":
    main()
