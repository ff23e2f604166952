"""Draw curves of runs into one PNG: scripts/plot_runs.py OUT.png RUN... (extra: plot)."""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from realm.checkpoint.run_records import read_metrics
from realm.storage import read_json

PANELS = {
    "ict": (("loss", "eval/recall_at_1", "eval/recall_at_5"), "Inverse Cloze Task"),
    "mlm": (
        (
            "eval/copy_accuracy",
            "eval/dense_guess_accuracy",
            "eval/read_accuracy",
            "eval/guess_accuracy",
        ),
        "reading warm-up: wordpieces right, held out",
    ),
    "pretrain": (
        ("eval/utility/marginal_minus_null", "eval/utility/best", "eval/candidates_hold_span"),
        "joint pre-training: retrieval utility, held out (nats)",
    ),
    "finetune": (("loss_reader", "loss_early", "recall_at_5"), "Open-QA fine-tuning"),
}
SMOOTHING = 10
"""Training metrics are means over so many steps; held-out ones are drawn as they are."""


def main(out: Path, runs: list[Path]) -> None:
    """Draw one panel for each run, by its stage."""
    figure, axes = plt.subplots(1, len(runs), figsize=(5 * len(runs), 3.6), squeeze=False)
    for axis, run in zip(axes[0], runs, strict=True):
        file = run / "manifest.json"
        settings = read_json(file if file.is_file() else run / "request.json")["settings"]
        names, title = PANELS[settings["stage"]]
        lines = read_metrics(run)
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            if not points:
                continue
            width = 1 if name.startswith("eval/") else SMOOTHING
            steps, values = zip(*_smooth(points, width), strict=True)
            axis.plot(steps, values, marker="o" if width == 1 else None, markersize=3, label=name)
        for line in lines:
            if line.get("index/refreshed") and line["step"] > 1:
                axis.axvline(line["step"], color="grey", linewidth=0.6, linestyle=":")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def _smooth(points: list[tuple[int, float]], width: int) -> list[tuple[int, float]]:
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
