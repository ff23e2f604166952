"""Draw held-out retrieval utility over steps: plot_table2.py TABLE.json OUT.png [ROW ...]."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

MEASURES = {
    "eval/utility/marginal_minus_null": "retrieval utility, nats",
    "eval/candidates_hold_span": "candidates hold the masked words",
}


def main(table: Path, out: Path, rows: list[str]) -> None:
    """Draw the mean over seeds, and each seed thinly behind it."""
    study = json.loads(table.read_text(encoding="utf-8"))
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(6 * len(MEASURES), 4.2))
    for number, name in enumerate(rows or study["curves"]):
        color = plt.get_cmap("tab10")(number % 10)
        for axis, measure in zip(axes, MEASURES, strict=True):
            curves = [seed[measure] for seed in study["curves"][name].values()]
            for curve in curves:
                axis.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.4)
            steps = [step for step, _ in min(curves, key=len)]
            means = [sum(curve[i][1] for curve in curves) / len(curves) for i in range(len(steps))]
            label = f"{name}: {study['rows'][name]['label']}"
            axis.plot(steps, means, color=color, marker="o", markersize=3, label=label)
    for axis, title in zip(axes, MEASURES.values(), strict=True):
        axis.set_title(f"{title} (held out)", fontsize=10)
        axis.set_xlabel("step of joint pre-training")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
