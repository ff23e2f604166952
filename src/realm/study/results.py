"""The table of a study: what is there so far, with intervals, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realm.checkpoint.run_records import read_metrics
from realm.evaluation.metrics import Interval, recall_at_k
from realm.storage import FORMAT_VERSION, read_json, write_json
from realm.study.intervals import Results, difference, interval
from realm.study.run import StudyRun

RECALL_AT = 5
"""The paper's Table 2."""
UTILITY = "eval/utility/marginal_minus_null"
CURVES = (UTILITY, "eval/loss", "eval/candidates_hold_span", "eval/p_null", "eval/span_accuracy")
"""What is kept of a run's held-out measurements, step by step."""
TABLE, NUMBERS = "table.md", "table.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What was measured of one row."""

    label: str
    seeds: tuple[int, ...]
    """Those with a zero-shot measurement."""
    recall: Interval | None
    """Zero-shot answer recall@5, over questions and seeds."""
    exact_match: Interval | None
    """After fine-tuning."""
    exact_match_seeds: tuple[int, ...]
    paper_recall: float | None
    paper_exact_match: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The first row minus the second, paired by question and seed."""

    first: str
    second: str
    recall: Interval | None
    exact_match: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTable:
    """All that a study has measured so far."""

    rows: Mapping[str, RowResult]
    comparisons: Sequence[Comparison]
    recall_at: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Row -> seed -> k -> zero-shot answer recall@k."""
    curves: Mapping[str, Mapping[str, Mapping[str, list[tuple[int, float]]]]]
    """Row with a pre-training of its own -> seed -> measure -> (step, value) on held-out text."""
    growth: Mapping[str, Mapping[str, list[tuple[int, float]]]]
    """Row, or `start` for the warm start -> seed -> (step, zero-shot answer recall@5)."""

    def markdown(self) -> str:
        """Return the table and the differences, in percent and percent points."""
        lines = [
            "| row | | seeds | recall@5 | exact match | paper: recall@5 | paper: exact match |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in self.rows.items():
            seeds = f"{len(row.seeds)}"
            if row.exact_match and row.exact_match_seeds != row.seeds:
                seeds += f" (exact match {len(row.exact_match_seeds)})"
            cells = [name, row.label, seeds, _percent(row.recall), _percent(row.exact_match)]
            papers = [row.paper_recall, row.paper_exact_match]
            cells += ["" if value is None else f"{value:.1f}" for value in papers]
            lines.append(f"| {' | '.join(cells)} |")
        if self.comparisons:
            lines += ["", "| difference | recall@5 | exact match |", "|---|---|---|"]
        lines += [
            f"| {c.first} - {c.second} | {_percent(c.recall, signed=True)} "
            f"| {_percent(c.exact_match, signed=True)} |"
            for c in self.comparisons
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"format_version": FORMAT_VERSION, "kind": "study", **asdict(self)}


def collect(study: StudyRun) -> StudyTable:
    """Return the table of what a study has measured so far; rows without results are left out."""
    settings, samples = study.settings, study.settings.study.bootstrap_samples
    recalls = {name: _recalls(study, name, RECALL_AT) for name in settings.rows}
    matches = {name: _exact_matches(study, name) for name in settings.rows}
    rows = {
        name: RowResult(
            label=row.label,
            seeds=tuple(sorted(recalls[name])),
            recall=interval(recalls[name], samples=samples),
            exact_match=interval(matches[name], samples=samples),
            exact_match_seeds=tuple(sorted(matches[name])),
            paper_recall=row.paper_recall_at_5,
            paper_exact_match=row.paper_exact_match,
        )
        for name, row in settings.rows.items()
        if recalls[name] or matches[name]
    }
    comparisons = [
        Comparison(
            first=first,
            second=second,
            recall=difference(recalls[first], recalls[second], samples=samples),
            exact_match=difference(matches[first], matches[second], samples=samples),
        )
        for first, second in settings.study.compare
        if first in rows and second in rows
    ]
    at = settings.study.recall_at
    by_depth = {name: {k: _recalls(study, name, k) for k in at} for name in rows}
    return StudyTable(
        rows=rows,
        comparisons=comparisons,
        recall_at={
            name: {
                str(seed): {str(k): _mean(found[k][seed]) for k in at} for seed in rows[name].seeds
            }
            for name, found in by_depth.items()
        },
        curves={name: curves for name in rows if (curves := _curves(study, name))},
        growth={name: _growth(study, name) for name in sorted(map(study.retriever_name, rows))},
    )


def write_table(table: StudyTable, out: Path) -> None:
    """Write table.md and table.json into a study's folder."""
    write_json(out / NUMBERS, table.as_json())
    (out / TABLE).write_text(table.markdown() + "\n", encoding="utf-8")


def _recalls(study: StudyRun, row: str, k: int) -> Results:
    """Return seed -> question -> whether one of its first k passages has an answer."""
    pattern = f"seed-*/zero-shot-{study.retriever_name(row)}.json"
    return {
        _seed(file): {
            question: float(rank is not None and rank <= k)
            for question, rank in read_json(file)["ranks"].items()
        }
        for file in sorted(study.out.glob(pattern))
    }


def _exact_matches(study: StudyRun, row: str) -> Results:
    """Return seed -> question -> whether the answer was exactly right."""
    return {
        _seed(file): {
            record["id"]: float(record["exact_match"])
            for record in read_json(file)["questions"]
            if record["exact_match"] is not None
        }
        for file in sorted(study.out.glob(f"seed-*/report-{row}.json"))
    }


def _curves(study: StudyRun, row: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return seed -> measure -> (step, value) of a row's own pre-training."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run in sorted(study.out.glob(f"seed-*/pretrain-{row}")):
        lines = read_metrics(run)
        found[str(_seed(run))] = {
            name: [(int(line["step"]), float(line[name])) for line in lines if name in line]
            for name in CURVES
        }
    return found


def _growth(study: StudyRun, name: str) -> dict[str, list[tuple[int, float]]]:
    """Return seed -> (step, recall@5) of every checkpoint that was measured."""
    found: dict[str, list[tuple[int, float]]] = {}
    for pattern in (f"zero-shot-{name}.json", f"zero-shot-{name}-step-*.json"):
        for file in study.out.glob(f"seed-*/{pattern}"):
            kept = read_json(file)
            recall = recall_at_k(list(kept["ranks"].values()), RECALL_AT)
            found.setdefault(str(_seed(file)), []).append((int(kept["step"]), recall))
    return {seed: sorted(points) for seed, points in sorted(found.items())}


def _seed(path: Path) -> int:
    return int(path.parent.name.removeprefix("seed-"))


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _percent(found: Interval | None, *, signed: bool = False) -> str:
    if found is None:
        return "-"
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * x:{sign}.1f}" for x in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"
