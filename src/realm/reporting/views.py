"""What the page shows of a run's numbers: tiles, tables, charts; of its index and candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from realm.checkpoint.run_records import RunRecord, read_held_out
from realm.evaluation.metrics import wilson_interval
from realm.readable import as_probability, counted
from realm.reporting.about import SnapshotFact, snapshots_of
from realm.reporting.charts import Drawing, Line, draw_lines, draw_points
from realm.reporting.curves import Curves
from realm.reporting.evaluations import Evaluation
from realm.reporting.numbers import change, number
from realm.reporting.panels import (
    COUNTS,
    HEADLINES,
    HELD_OUT,
    INDEX_PANELS,
    PANELS,
    Panel,
    is_held_out,
    metric_of,
)

MAX_MARKS = 60
"""More refreshes would be a grey wall, not marks."""
SHOWN_EXAMPLES = 6
"""Held-out sentences whose candidates are written out."""
_ONE_EACH = {"span_accuracy", "span_accuracy_null", "candidates_hold_span"}
"""Shares of held-out examples, each right or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number at the top."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing with its heading."""

    title: str
    about: str
    svg: str
    keys: tuple[tuple[str, int, bool], ...]
    is_wide: bool
    has_marks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRow:
    """A held-out number at its first, perhaps its best, and its newest measurement."""

    label: str
    values: tuple[str, ...]
    change: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexView:
    """How fresh the index was."""

    about: str
    charts: list[Chart]
    snapshots: list[SnapshotFact]


def tiles_of(curves: Curves, own: Evaluation | None = None) -> list[Tile]:
    """Return the numbers that say most about a run, as far as they were measured.

    Args:
        curves: the run's.
        own: an evaluation of the run, whose first number comes first.
    """
    tiles: list[Tile] = []
    if own is not None:
        row = own.metrics().rows[0]
        note = (
            f"{100 * row.low:.1f} to {100 * row.high:.1f}, {row.count:,} of {own.split}, "
            f"retriever {own.retriever}"
        )
        tiles.append(Tile(label=row.label, value=number(row.mean, "share"), note=note))
    for name in HEADLINES[curves.stage]:
        points = curves.series.get(name)
        if not points:
            continue
        metric = metric_of(name)
        (first, began), (last, now) = points[0], points[-1]
        where = "held out" if is_held_out(name) else "training"
        note = f"{where}, step {last:,}"
        if last > first:
            note += f"; {number(began, metric.unit)} at step {first:,}"
        unit = " nats" if metric.unit == "nats" else ""
        tiles.append(Tile(label=metric.label, value=number(now, metric.unit) + unit, note=note))
    return tiles


def held_out_of(curves: Curves) -> tuple[list[int], list[HeldOutRow]]:
    """Return (steps, rows) of what was measured on held-out data, first and last."""
    measured = {name: p for name, p in curves.series.items() if is_held_out(name)}
    names = [n for n in measured if n.removeprefix(HELD_OUT) not in COUNTS]
    if not names:
        return [], []
    steps = sorted({step for name in names for step, _ in measured[name]})
    shown = [steps[0], steps[-1]] if len(steps) > 1 else steps
    counted = measured.get(f"{HELD_OUT}examples")
    num_examples = int(counted[-1][1]) if counted else 0
    known = [name for panel in PANELS[curves.stage] for name in panel.metrics]
    names.sort(key=lambda name: (known.index(name) if name in known else len(known), name))
    return shown, [_held_out_row(name, measured[name], shown, num_examples) for name in names]


def charts_of(curves: Curves) -> list[Chart]:
    """Return the charts of a stage, each only with what was measured."""
    return _charts("curve", PANELS[curves.stage], curves)


def index_of(record: RunRecord, curves: Curves) -> IndexView | None:
    """Return how fresh a run's index was; None where it refreshes none."""
    refresh = record.settings.get("refresh")
    if not isinstance(refresh, dict):
        return None
    stale = curves.series.get("index/staleness_steps", [])
    num = len(curves.refreshes)
    about = (
        f"{counted(num, 'snapshot')} came into use in {counted(max(0, curves.step), 'step')}, the "
        "first included"
    )
    if stale:
        oldest = counted(int(max(value for _, value in stale)), "step")
        about += f"; its oldest row was at most {oldest} old"
    about += f". Mode {refresh.get('mode')}"
    if refresh.get("mode") != "off":
        bound = refresh.get("drift_bound")
        about += (
            f", every {counted(int(refresh.get('every_steps', 0)), 'step')}"
            if bound is None
            else f", when the rank correlation has fallen by {bound:g}"
        )
    charts = _charts("index", INDEX_PANELS, curves, marks=curves.refreshes)
    return IndexView(about=f"{about}.", charts=charts, snapshots=snapshots_of(record.folder))


def passages_of(record: RunRecord) -> dict[str, Any] | None:
    """Return what the candidates of some held-out examples did; None where the run kept nothing."""
    kept = read_held_out(record.folder)
    if not kept.get("newest", {}).get("examples"):
        return None
    first, newest = kept["first"], kept["newest"]
    before = {one["sentence"]: one for one in first["examples"]}
    groups = [(f"step {first['step']:,}", _dots(first))]
    if newest["step"] > first["step"]:
        groups.append((f"step {newest['step']:,}", _dots(newest)))
    chart = draw_points(
        "utility",
        groups,
        described="Utility of each candidate passage against its probability",
        labels=("p(z|x)", "utility, nats"),
    )
    title = "Does weight go where it helps?"
    about = "each candidate passage: its probability, and what it adds to log p(y|z,x)"
    shown = [_example(one, before.get(one["sentence"])) for one in newest["examples"]]
    return {
        "about": (
            f"Candidates of the first {counted(len(newest['examples']), 'held-out sentence')} at "
            f"step {newest['step']:,}; {min(SHOWN_EXAMPLES, len(shown))} of them below. The "
            "utility of a passage is log p(y|z,x) - log p(y|null, x) (Eq. 2): to the right it "
            "helps to fill the highlighted blank, to the left it misleads."
        ),
        "chart": _chart(title, about, chart, is_wide=True),
        "examples": shown[:SHOWN_EXAMPLES],
        "first_step": first["step"],
    }


def _charts(
    prefix: str, panels: Sequence[Panel], curves: Curves, marks: Sequence[int] = ()
) -> list[Chart]:
    shown = list(marks) if len(marks) <= MAX_MARKS else []
    charts: list[Chart] = []
    for place, panel in enumerate(panels):
        names = [name for name in panel.metrics if curves.series.get(name)]
        if not any(len(curves.series[name]) > 1 for name in names):
            continue  # a point is no curve: the table tells it
        lines = [
            Line(
                label=_label(name, names),
                points=curves.series[name],
                color=color,
                is_held_out=is_held_out(name),
            )
            for color, name in enumerate(names, 1)
        ]
        drawing = draw_lines(
            f"{prefix}{place}",
            lines,
            described=_described(panel.title, lines),
            unit=metric_of(names[0]).unit,
            marks=shown,
            num_steps=curves.num_steps if curves.state == "running" else None,
            is_wide=panel.is_wide,
        )
        charts.append(
            _chart(panel.title, panel.about, drawing, is_wide=panel.is_wide, has_marks=bool(shown))
        )
    return charts


def _chart(
    title: str, about: str, drawing: Drawing, *, is_wide: bool = False, has_marks: bool = False
) -> Chart:
    return Chart(
        title=title,
        about=about,
        svg=drawing.svg,
        keys=drawing.keys,
        is_wide=is_wide,
        has_marks=has_marks,
    )


def _label(name: str, names: Sequence[str]) -> str:
    """Return training or held out where that alone tells the curves of a chart apart."""
    bases = {one.removeprefix(HELD_OUT) for one in names}
    if len(bases) == 1:
        return "held out" if is_held_out(name) else "training"
    told = metric_of(name).label
    is_mixed = len({is_held_out(one) for one in names}) > 1
    return f"{told}, held out" if is_mixed and is_held_out(name) else told


def _described(title: str, lines: Sequence[Line]) -> str:
    told = ", ".join(
        f"{line.label} from {line.points[0][1]:.3g} at step {line.points[0][0]:,} to "
        f"{line.points[-1][1]:.3g} at step {line.points[-1][0]:,}"
        for line in lines
    )
    return f"{title}: {told}"


def _held_out_row(
    name: str, points: Sequence[tuple[int, float]], steps: Sequence[int], num_examples: int
) -> HeldOutRow:
    metric = metric_of(name)
    values = dict(points)
    told = tuple(number(values[s], metric.unit) if s in values else "" for s in steps)
    has_both = len(steps) > 1 and all(step in values for step in steps)
    difference = change(values[steps[-1]] - values[steps[0]], metric.unit) if has_both else ""
    notes = [metric.about] if metric.about else []
    if num_examples and steps[-1] in values and name.removeprefix(HELD_OUT) in _ONE_EACH:
        found = wilson_interval(round(values[steps[-1]] * num_examples), num_examples)
        notes.append(
            f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f} "
            f"({counted(num_examples, 'example')})"
        )
    return HeldOutRow(label=metric.label, values=told, change=difference, note="; ".join(notes))


def _dots(told: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [
        (float(z["p_passage"]), float(z["utility"]))
        for one in told["examples"]
        for z in one["candidates"]
        if z["passage_id"] is not None
    ]


def _example(one: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    widest = max((abs(float(z["utility"])) for z in one["candidates"]), default=0.0) or 1.0
    return {
        **one,
        "p_without": as_probability(one["p_without"]),
        "p_marginal": as_probability(one["p_marginal"]),
        "p_marginal_first": as_probability(before["p_marginal"]) if before else "",
        "candidates": [
            {
                **z,
                "is_null": z["passage_id"] is None,
                "weight": f"{100 * z['p_passage']:.1f}",
                "width": f"{50 * abs(z['utility']) / widest:.1f}",
                "sign": "helps" if z["utility"] >= 0 else "hurts",
                "p_passage": as_probability(z["p_passage"]),
                "p_answer": as_probability(z["p_answer"]),
                "utility": "" if z["passage_id"] is None else change(z["utility"], "nats"),
            }
            for z in one["candidates"]
        ],
    }
