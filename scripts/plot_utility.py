"""Draw what retrieval is worth while runs pre-train.

Of the runs of one label, seeds of the same settings, the mean is drawn, and each thinly behind it.

    python scripts/plot_utility.py utility.svg \
        "salient spans=out/seed-0/realm,out/seed-1/realm" "random spans=out/seed-0/span"

The ground is left out and text is of a middle grey: readable on a light and on a dark page.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from realm.checkpoint.run_records import read_metrics

GREY = "#808080"
COLOURS = ("#3b82d6", "#d9822b", "#2f9e6e", "#b05cc6")
PANELS = {
    "utility/marginal_minus_null": ("retrieval utility in training, nats", 20),
    "eval/candidates_hold_span": ("held-out queries whose candidates hold the masked words", 1),
}
"""Metric -> its title, and the steps that a point is the mean of."""

Curve = list[tuple[float, float]]


def main(out: Path, runs: Mapping[str, Sequence[Path]]) -> None:
    """Draw one panel for each metric, one line for each label."""
    grey = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    plt.rcParams.update(dict.fromkeys(grey, GREY) | {"svg.fonttype": "none", "svg.hashsalt": "1"})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(6 * len(PANELS), 3.8))
    for axis, (metric, (title, width)) in zip(axes, PANELS.items(), strict=True):
        for colour, (label, folders) in zip(COLOURS, runs.items(), strict=False):
            curves = [curve(folder, metric, width) for folder in folders]
            for one in curves:
                axis.plot(*zip(*one, strict=True), color=colour, linewidth=0.7, alpha=0.4)
            axis.plot(*zip(*mean(curves), strict=True), color=colour, linewidth=2, label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step of joint pre-training")
        axis.grid(color=GREY, alpha=0.25)
        axis.set_facecolor("none")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(out, transparent=True, metadata={"Date": None})


def curve(run: Path, metric: str, width: int) -> Curve:
    """Return (middle step, mean) of each `width` lines that have the metric."""
    lines = [(int(line["step"]), line[metric]) for line in read_metrics(run) if metric in line]
    groups = [lines[i : i + width] for i in range(0, len(lines), width)]
    return [
        (sum(step for step, _ in group) / len(group), sum(value for _, value in group) / len(group))
        for group in groups
    ]


def mean(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves with the same steps, as far as all of them go."""
    together = zip(*curves, strict=False)
    return [(points[0][0], sum(value for _, value in points) / len(points)) for points in together]


def labelled(text: str) -> tuple[str, list[Path]]:
    """Return a label and its runs, of LABEL=RUN[,RUN...]."""
    label, equals, folders = text.partition("=")
    runs = [Path(run) for run in folders.split(",")]
    if not equals or not all((run / "metrics.jsonl").is_file() for run in runs):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected LABEL=RUN[,RUN...]")
    return label, runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("out", type=Path, help="SVG file to write")
    parser.add_argument("runs", type=labelled, nargs="+", metavar="LABEL=RUN[,RUN...]")
    told = parser.parse_args()
    if len(told.runs) > len(COLOURS):
        parser.error(f"found {len(told.runs)} labels, expected at most {len(COLOURS)}")
    main(told.out, dict(told.runs))
