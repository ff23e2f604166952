"""The table of a study: what is there so far, with intervals, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realm.checkpoint.run_records import read_metrics
from realm.evaluation.metrics import Interval, recall_at_k
from realm.readable import as_cell
from realm.storage import FORMAT_VERSION, read_json, write_json, write_text
from realm.study.intervals import Results, difference, interval
from realm.study.measures import RECALL_AT, read_right
from realm.study.run import StudyRun

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
    """After fine-tuning; of what `StudyTable.metric` says."""
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

    metric: str
    """What makes an answer right: exact match; regex match where the questions have patterns."""
    rows: Mapping[str, RowResult]
    comparisons: Sequence[Comparison]
    recall_at: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Row -> seed -> k -> zero-shot answer recall@k; a k deeper than was looked is left out."""
    curves: Mapping[str, Mapping[str, Mapping[str, list[tuple[int, float]]]]]
    """Row with a pre-training of its own -> seed -> measure -> (step, value) on held-out text."""
    growth: Mapping[str, Mapping[str, list[tuple[int, float]]]]
    """Row, or `start` for the warm start -> seed -> (step, zero-shot answer recall@5)."""

    def markdown(self) -> str:
        """Return the table and the differences, in percent and percent points."""
        lines = [
            f"| row | | seeds | recall@5 | {self.metric} | paper: recall@5 | paper: exact match |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in self.rows.items():
            seeds = f"{len(row.seeds)}"
            if row.exact_match and row.exact_match_seeds != row.seeds:
                seeds += f" ({self.metric} {len(row.exact_match_seeds)})"
            cells = [name, row.label, seeds, _percent(row.recall), _percent(row.exact_match)]
            papers = [row.paper_recall, row.paper_exact_match]
            cells += ["" if value is None else f"{value:.1f}" for value in papers]
            lines.append(f"| {' | '.join(map(as_cell, cells))} |")
        if self.comparisons:
            lines += ["", f"| difference | recall@5 | {self.metric} |", "|---|---|---|"]
        lines += [
            f"| {as_cell(f'{c.first} - {c.second}')} | {_percent(c.recall, signed=True)} "
            f"| {_percent(c.exact_match, signed=True)} |"
            for c in self.comparisons
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"format_version": FORMAT_VERSION, "kind": "study", **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The seeds of a study that are looked at."""

    study: StudyRun
    seeds: Sequence[int] | None

    def files(self, pattern: str) -> list[Path]:
        """Return what the seeds' folders hold of a pattern, seed by seed."""
        found = sorted(self.study.out.glob(f"seed-*/{pattern}"))
        return [file for file in found if self.seeds is None or _seed(file) in self.seeds]


def collect(
    study: StudyRun, rows: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> StudyTable:
    """Return the table of what a study has measured so far; rows without results are left out.

    Args:
        study: that was run, or is being run.
        rows: names of rows; none named: all.
        seeds: only these; None: all that are there.

    Raises:
        ConfigError: no such row.
    """
    settings, samples = study.settings, study.settings.study.bootstrap_samples
    settings.check_rows(rows)
    chosen = {name: row for name, row in settings.rows.items() if not rows or name in rows}
    part = _Part(study=study, seeds=seeds)
    recalls = {name: _recalls(part, name, RECALL_AT) for name in chosen}
    judged = {name: _exact_matches(part, name) for name in chosen}
    matches = {name: right for name, (_, right) in judged.items()}
    metrics = {metric for names, _ in judged.values() for metric in names}
    results = {
        name: RowResult(
            label=row.label,
            seeds=tuple(sorted(recalls[name])),
            recall=interval(recalls[name], samples=samples),
            exact_match=interval(matches[name], samples=samples),
            exact_match_seeds=tuple(sorted(matches[name])),
            paper_recall=row.paper_recall_at_5,
            paper_exact_match=row.paper_exact_match,
        )
        for name, row in chosen.items()
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
        if first in results and second in results
    ]
    at = settings.study.recall_at
    return StudyTable(
        metric=metrics.pop() if len(metrics) == 1 else "exact match" if not metrics else "right",
        rows=results,
        comparisons=comparisons,
        recall_at={name: _recalls_at(part, name, at) for name in results},
        curves={name: curves for name in results if (curves := _curves(part, name))},
        growth={name: _growth(part, name) for name in sorted(map(study.retriever_name, results))},
    )


def write_table(table: StudyTable, out: Path) -> None:
    """Write table.md and table.json into a study's folder."""
    write_json(out / NUMBERS, table.as_json())
    write_text(out / TABLE, table.markdown() + "\n")


def _recalls(part: _Part, row: str, k: int) -> Results:
    """Return seed -> question -> whether one of its first k passages has an answer.

    What was not looked for as deep as k is left out.
    """
    files = part.files(f"zero-shot-{part.study.retriever_name(row)}.json")
    kept = {_seed(file): read_json(file) for file in files}
    return {
        seed: {
            question: float(rank is not None and rank <= k)
            for question, rank in one["ranks"].items()
        }
        for seed, one in kept.items()
        if k <= _depth(one)
    }


def _recalls_at(part: _Part, row: str, at: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return seed -> k -> recall@k."""
    found: dict[str, dict[str, float]] = {}
    for k in at:
        for seed, hits in sorted(_recalls(part, row, k).items()):
            found.setdefault(str(seed), {})[str(k)] = _mean(hits)
    return found


def _depth(kept: Mapping[str, Any]) -> int:
    """Return how many passages were looked at.

    Earlier releases did not write it: at least as many as the deepest rank; the study's next run
    fills it in.
    """
    ranks = [rank for rank in kept["ranks"].values() if rank is not None]
    return int(kept.get("depth", max(ranks, default=0)))


def _exact_matches(part: _Part, row: str) -> tuple[set[str], Results]:
    """Return how answers were judged, and seed -> question -> whether the answer was right."""
    judged = {_seed(file): read_right(file) for file in part.files(f"report-{row}.json")}
    return {metric for metric, _ in judged.values()}, {
        seed: right for seed, (_, right) in judged.items()
    }


def _curves(part: _Part, row: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return seed -> measure -> (step, value) of a row's own pre-training."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run in part.files(f"pretrain-{row}"):
        lines = read_metrics(run)
        found[str(_seed(run))] = {
            name: [(int(line["step"]), float(line[name])) for line in lines if name in line]
            for name in CURVES
        }
    return found


def _growth(part: _Part, name: str) -> dict[str, list[tuple[int, float]]]:
    """Return seed -> (step, recall@5) of every checkpoint that was measured."""
    found: dict[str, list[tuple[int, float]]] = {}
    for pattern in (f"zero-shot-{name}.json", f"zero-shot-{name}-step-*.json"):
        for file in part.files(pattern):
            kept = read_json(file)
            if _depth(kept) < RECALL_AT:
                continue
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
