"""Draw the results of benchmarks/growth.py: plot_growth.py RESULTS.json OUT.svg.

The ground is left out and text is of a middle grey: readable on a light and on a dark page.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))
from growth import exponent  # noqa: E402 - not a package

GREY = "#808080"
COLOURS = ("#3b82d6", "#d9822b", "#2f9e6e", "#b05cc6")
PANELS = {
    "passages searched": ("CPU seconds a query", ("search, 1 query", "search, 16 queries")),
    "passages": ("CPU seconds", ("split", "mask", "embed")),
    "candidates of a query": ("CPU seconds a step", ("candidates",)),
}


def main(results: Path, out: Path) -> None:
    """Draw one panel for each kind of size, with the fitted lines."""
    points = json.loads(results.read_text(encoding="utf-8"))["points"]
    grey = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    plt.rcParams.update(dict.fromkeys(grey, GREY) | {"svg.fonttype": "none", "svg.hashsalt": "1"})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.8))
    for axis, (amount, (cost, curves)) in zip(axes, PANELS.items(), strict=True):
        for colour, curve in zip(COLOURS, curves, strict=False):
            amounts = [point["amount"] for point in points[curve]]
            costs = [point["cpu"] for point in points[curve]]
            power = exponent(amounts, costs)
            axis.plot(amounts, costs, "o", color=colour, label=f"{curve}: size^{power:.2f}")
            axis.plot(amounts, fitted(amounts, costs, power), color=colour, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel=amount, ylabel=cost)
        sizes = sorted({point["amount"] for curve in curves for point in points[curve]})
        if sizes[-1] < 100 * sizes[0]:  # too near for powers of ten
            axis.set_xticks(sizes, labels=[f"{size:g}" for size in sizes], minor=False)
            axis.set_xticks([], minor=True)
        axis.grid(color=GREY, alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
        axis.set_facecolor("none")
    figure.tight_layout()
    figure.savefig(out, transparent=True, metadata={"Date": None})


def fitted(amounts: Sequence[float], costs: Sequence[float], power: float) -> list[float]:
    """Return the line of this exponent through the points' middle."""
    logs = [math.log(c) - power * math.log(a) for a, c in zip(amounts, costs, strict=True)]
    factor = math.exp(sum(logs) / len(logs))
    return [factor * amount**power for amount in amounts]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
