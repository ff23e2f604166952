"""Charts as inline SVG: text stays text, colours are the page's, equal data give equal bytes.

matplotlib draws; its colours are then replaced by the page's own (`var(--series-1)`), so that one
drawing does for light, dark and print.
"""

import io
import math
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from realm.errors import ConfigError
from realm.reporting.numbers import number
from realm.reporting.panels import Unit

Points = Sequence[tuple[float | int, float]]
WIDTH, HEIGHT, WIDE = 4.7, 2.35, 9.7
"""Inches of 72 units of the SVG."""
MAX_POINTS = 300
"""A longer series is drawn as means of so many groups."""
SMOOTHED_PARTS = 20
"""A noisy series is smoothed over a window of its length divided by this."""
_COLORS = {
    "var(--ink)": "#0a0001",
    "var(--muted)": "#0a0002",
    "var(--grid)": "#0a0003",
    "var(--refresh)": "#0a0004",
    **{f"var(--series-{number})": f"#0a001{number}" for number in range(1, 5)},
}
"""What matplotlib is told, for what the page is to use."""
_DOTS: dict[str, Any] = {"marker": "o", "markersize": 3.6, "clip_on": False}
_OPTIONS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "realm",
    "font.size": 9,
    "axes.edgecolor": _COLORS["var(--muted)"],
    "axes.labelcolor": _COLORS["var(--muted)"],
    "text.color": _COLORS["var(--ink)"],
    "xtick.color": _COLORS["var(--muted)"],
    "ytick.color": _COLORS["var(--muted)"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _COLORS["var(--grid)"],
    "grid.linewidth": 0.8,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "path.simplify": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series of a chart."""

    label: str
    points: Points
    color: int
    """1 to 4."""
    is_held_out: bool = False
    """Few and exact: drawn with a dot for each; else noisy: smoothed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart as the page shows it."""

    svg: str
    keys: tuple[tuple[str, int, bool], ...]
    """(label, colour, held out) of each series, for a legend."""


def draw_lines(
    name: str,
    lines: Sequence[Line],
    *,
    described: str,
    unit: Unit = "number",
    marks: Sequence[int] = (),
    num_steps: int | None = None,
    is_wide: bool = False,
) -> Drawing:
    """Return curves over training steps.

    Args:
        name: of the drawing, unique in its page.
        lines: at least one.
        described: for whoever cannot see it.
        unit: of the values.
        marks: steps to mark: refreshes.
        num_steps: right end of the axis, None: the newest step.
        is_wide: over the whole width of the page.
    """
    with _drawing(WIDE if is_wide else WIDTH, HEIGHT) as (figure, axes):
        for mark in marks:
            axes.axvline(mark, color=_COLORS["var(--refresh)"], linewidth=0.8, dashes=(2, 2))
        for line in lines:
            _draw(axes, line)
        newest = max(step for line in lines for step, _ in line.points)
        axes.set_xlim(0, max(num_steps or 0, newest, 1))
        _scale(axes, lines, unit)
        axes.set_xlabel("step", loc="right", fontsize=8)
        svg = _as_svg(figure, name, described)
    return Drawing(
        svg=svg, keys=tuple((line.label, line.color, line.is_held_out) for line in lines)
    )


def draw_points(
    name: str,
    groups: Sequence[tuple[str, Points]],
    *,
    described: str,
    labels: tuple[str, str],
) -> Drawing:
    """Return a scatter of up to four groups of points (x a share, y a number around 0).

    Args:
        name: of the drawing, unique in its page.
        groups: each with its name.
        described: for whoever cannot see it.
        labels: of the axes.
    """
    with _drawing(WIDE, HEIGHT + 0.5) as (figure, axes):
        axes.axhline(0, color=_COLORS["var(--muted)"], linewidth=0.8)
        for number, (_, points) in enumerate(groups, 1):
            axes.scatter(
                [x for x, _ in points],
                [y for _, y in points],
                s=22,
                color=_COLORS[f"var(--series-{number})"],
                alpha=0.75,
                linewidths=0,
            )
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(_percent())
        axes.set_xlabel(labels[0], loc="right", fontsize=8)
        axes.set_ylabel(labels[1], fontsize=8)
        svg = _as_svg(figure, name, described)
    return Drawing(svg=svg, keys=tuple((told, n, True) for n, (told, _) in enumerate(groups, 1)))


def draw_risk(name: str, points: Points, *, described: str) -> Drawing:
    """Return a risk-coverage curve: (coverage, risk), both shares."""
    with _drawing(WIDTH, HEIGHT) as (figure, axes):
        color = _COLORS["var(--series-1)"]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.fill_between(xs, ys, color=color, alpha=0.12, linewidth=0)
        axes.plot(xs, ys, color=color, linewidth=1.8, marker="o", markersize=3, clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(_percent())
        axes.yaxis.set_major_formatter(_percent())
        axes.set_xlabel("questions answered", loc="right", fontsize=8)
        svg = _as_svg(figure, name, described)
    return Drawing(svg=svg, keys=(("wrong among those", 1, True),))


def grouped(points: Points, size: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most `size` points: means over neighbours; a shorter series as it is."""
    if len(points) <= size:
        return [(float(x), float(y)) for x, y in points]
    parts = np.array_split(np.asarray(points, dtype=np.float64), size)
    return [(float(x), float(y)) for x, y in (part.mean(axis=0) for part in parts)]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Return the means over a window around each point; near the ends over what is there."""
    values = np.asarray([y for _, y in points], dtype=np.float64)
    half = len(values) // SMOOTHED_PARTS // 2
    if half < 1:
        return [(float(x), float(y)) for x, y in points]
    sums = np.concatenate([[0.0], values.cumsum()])
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, len(values) - 1 - places))
    means = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
    return [(float(x), float(y)) for (x, _), y in zip(points, means, strict=True)]


def _draw(axes: Any, line: Line) -> None:  # noqa: ANN401 - matplotlib's
    color = _COLORS[f"var(--series-{line.color})"]
    points = grouped(line.points)
    if line.is_held_out:
        axes.plot(*_columns(points), color=color, linewidth=1.8, **_DOTS)
        return
    # Dashed beside the first one, so that it stands out where both are the same.
    dashes = {"dashes": (5, 2)} if line.color > 1 else {}
    if len(points) >= 2 * SMOOTHED_PARTS:
        axes.plot(*_columns(points), color=color, linewidth=0.8, alpha=0.3)
        points = smoothed(points)
    alone = _DOTS if len(points) == 1 else {}  # a line of one point is not seen
    axes.plot(*_columns(points), color=color, linewidth=1.8, **dashes, **alone)


def _columns(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = list(points)
    return [x for x, _ in pairs], [y for _, y in pairs]


def _scale(axes: Any, lines: Sequence[Line], unit: Unit) -> None:  # noqa: ANN401
    """Let shares and counts start at 0, and leave out what a few outliers would squeeze flat.

    No point of what is held out is left out: such are few and exact, and drawn whole.
    """
    values = np.asarray([y for line in lines for _, y in line.points])
    low, high = float(values.min()), float(values.max())
    exact = [y for line in lines if line.is_held_out for _, y in line.points]
    usual = max(float(np.quantile(values, 0.98)), *exact, -math.inf)
    if low >= 0 and high > 4 * usual > 0:
        high = 1.5 * usual
    if low >= 0 and (unit in {"share", "steps", "seconds"} or low < 0.35 * high):
        low = 0.0
    room = 0.07 * (high - low or abs(high) or 1.0)
    axes.set_ylim(low - room if low else 0.0, high + room)
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(_ticker().MaxNLocator(4, integer=unit == "steps"))
    axes.xaxis.set_major_formatter(_ticker().StrMethodFormatter("{x:,.0f}"))
    if unit == "share":
        axes.yaxis.set_major_formatter(_percent())
    else:
        axes.yaxis.set_major_formatter(_ticker().FuncFormatter(_tick))


def _tick(value: float, _place: int) -> str:
    return number(value)


def _percent() -> Any:  # noqa: ANN401
    return _ticker().PercentFormatter(xmax=1, decimals=None, symbol=" %")


def _as_svg(figure: Any, name: str, described: str) -> str:  # noqa: ANN401
    """Return the drawing with the page's colours and font, and with ids that are its own."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(|href=\")#([\w.-]+)", svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: _named(m[1], name) if m[1] in used else "", svg)
    svg = re.sub(r"(url\(|href=\")#", rf"\g<1>#{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r" transform=\"rotate\(-0 [^\"]*\"", "", svg)
    for wanted, told in _COLORS.items():
        svg = svg.replace(told, wanted)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    if box is None:
        raise AssertionError("matplotlib wrote an SVG without a viewBox")
    body = svg[svg.index(">") + 1 :]
    return f'<svg {box[0]} role="img" aria-label="{_quoted(described)}">{body}'.strip()


def _named(own: str, name: str) -> str:
    return f' id="{name}-{own}"'


def _quoted(text: str) -> str:
    escapes = (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"))
    for sign, escape in escapes:
        text = text.replace(sign, escape)
    return text


@contextmanager
def _drawing(width: float, height: float) -> Generator[tuple[Any, Any]]:
    """Yield (figure, axes) to draw on, apart from whatever else this process draws."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_plot("matplotlib") from None
    with cast("Any", mpl).rc_context(_OPTIONS):
        figure: Any = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _ticker() -> Any:  # noqa: ANN401
    from matplotlib import ticker

    return ticker


def missing_plot(package: str) -> ConfigError:
    """Return what to say where the extra is not installed."""
    return ConfigError(
        f'found no {package}, which draws reports; run `pip install "realm-lm[plot]"`'
    )
