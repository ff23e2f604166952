"""Draw the results of benchmarks/refresh_policies.py: plot_refresh.py RESULTS.json OUT.png."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

SMOOTHING = 10


def main(results: Path, out: Path) -> None:
    """Draw recall over training, and the staleness of what is retrieved."""
    policies = json.loads(results.read_text(encoding="utf-8"))["policies"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8))
    for number, (name, measured) in enumerate(policies.items()):
        style = {"color": plt.get_cmap("tab10")(number % 10), "linewidth": 1.4}
        if number == 0:
            style |= {"color": "black", "linewidth": 2.2}
        steps, recalls = zip(*measured["recalls"], strict=True)
        left.plot(steps, recalls, marker="o", markersize=3, label=name, **style)
        ages = measured["staleness"]
        groups = [ages[i : i + SMOOTHING] for i in range(0, len(ages), SMOOTHING)]
        means = [sum(group) / len(group) for group in groups]
        right.plot([SMOOTHING * i for i in range(len(means))], means, label=name, **style)
    left.set_title("recall@8 of the index against a fully fresh one", fontsize=10)
    right.set_title("mean staleness of the candidates, steps", fontsize=10)
    for axis in (left, right):
        axis.set_xlabel("training step")
        axis.grid(alpha=0.3)
    right.set_yscale("symlog", linthresh=5)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncol=4, fontsize=7)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
