"""What a builder on the other core costs the trainer: step times with it running and halted.

One asynchronous run, trainer and builder on one thread each; after every few steps the builder is
halted (SIGSTOP) or let go on (SIGCONT), so that both kinds of steps see the same noise.

    python benchmarks/refresh_step_time.py X Z --embedder ict --encoder mlm --out times.json
"""

import argparse
import json
import os
import signal
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from realm.config import OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.refresh.presence import builders_of
from realm.training.pretrain import pretrain
from realm.training.runlog import read_metrics

LIMIT = 1.15


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--block", type=int, default=5, help="steps between halting and going on")
    parser.add_argument("--batch-size", type=int, default=4)
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
            every_steps=1, max_staleness_steps=100_000, builder_threads=1, audit_passages=0
        ),
    )
    running: dict[int, bool] = {}

    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"

        def toggle(step: int, _steps: int, metrics: object) -> None:
            """Decide whether the builder runs during the next step."""
            if "loss" not in metrics:
                return
            runs = step // args.block % 2 == 0
            pids = [b.values["pid"] for b in builders_of(run) if b.is_alive and "pid" in b.values]
            for pid in pids:
                os.kill(pid, signal.SIGCONT if runs else signal.SIGSTOP)
            busy = any("embedding" in str(b.values.get("state")) for b in builders_of(run))
            if pids and (busy or not runs):
                running[step + 1] = runs

        pretrain(
            ExampleStore.open(args.examples),
            PassageStore.open(args.passages),
            run,
            embedder=args.embedder,
            encoder=args.encoder,
            config=config,
            on_metrics=toggle,
            tell=lambda sentence: sys.stderr.write(sentence + "\n"),
        )
        lines = [line for line in read_metrics(run) if "step_seconds" in line]
    seconds = {line["step"]: line["step_seconds"] for line in lines}
    per_token = {line["step"]: line["step_seconds"] / line["tokens"] for line in lines}
    found = {}
    for name, values in (("seconds", seconds), ("seconds per wordpiece", per_token)):
        sides = {
            side: [
                values[s] for s, runs in running.items() if runs is side and s in values and s > 5
            ]
            for side in (True, False)
        }
        medians = {side: statistics.median(v) for side, v in sides.items()}
        found[name] = {
            "with": medians[True],
            "without": medians[False],
            "ratio": medians[True] / medians[False],
            "steps": [len(sides[True]), len(sides[False])],
        }
    swaps = [line["index/swap_seconds"] for line in lines if line.get("index/refreshed")]
    content = {
        "limit": LIMIT,
        **found,
        "swaps": len(swaps),
        "longest_swap_seconds": max(swaps, default=0.0),
        "load": os.getloadavg(),
    }
    args.out.write_text(json.dumps(content, indent=2), encoding="utf-8")
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
    if found["seconds per wordpiece"]["ratio"] > LIMIT:
        sys.exit(f"the builder costs the trainer more than {LIMIT}x")


if __name__ == "__main__":
    main()
