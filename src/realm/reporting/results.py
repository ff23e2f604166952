"""What the page shows of evaluations: numbers with intervals, failures, examples."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from realm.readable import counted
from realm.reporting.about import Fact
from realm.reporting.charts import draw_risk
from realm.reporting.evaluations import (
    Evaluation,
    Failures,
    examples_of,
    failures_of,
)
from realm.reporting.views import Chart

MAX_COLUMNS = 6
"""More would not fit side by side on paper."""


def results_of(
    evaluations: Sequence[Evaluation], fingerprints: Collection[str]
) -> list[dict[str, Any]]:
    """Return one entry for each evaluation.

    Args:
        evaluations: of this run, or of others, which is then said.
        fingerprints: of this run's parameters.
    """
    return [_result(one, place, fingerprints) for place, one in enumerate(evaluations)]


def side_by_side(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
    """Return a row for each evaluation, a column for each metric; None where there is but one."""
    if len(evaluations) < 2:
        return None
    tables = [{row.label: row for row in one.metrics().rows} for one in evaluations]
    columns = list(dict.fromkeys(label for table in tables for label in table))[:MAX_COLUMNS]
    return {
        "columns": columns,
        "rows": [
            {
                "label": one.retriever,
                "note": f"{one.split}, {one.path.name}",
                "cells": [table.get(label) for label in columns],
            }
            for one, table in zip(evaluations, tables, strict=True)
        ],
    }


def examples_view(
    evaluations: Sequence[Evaluation], fingerprints: Collection[str], num_examples: int
) -> dict[str, Any] | None:
    """Return right and wrong examples of the first evaluation that has any.

    Args:
        evaluations: the preferred one first.
        fingerprints: of this run's parameters; that the examples are another model's is said.
        num_examples: right and wrong ones together.
    """
    chosen = next((one for one in evaluations if one.records), None)
    if chosen is None or num_examples < 1:
        return None
    examples = examples_of(chosen, num_examples)
    kind = "claims" if chosen.is_of_claims else "questions"
    groups = [[e for e in examples if e.is_right], [e for e in examples if not e.is_right]]
    num_right = sum(e.is_right for e in examples_of(chosen, len(chosen.records)))
    about = (
        f"{len(examples):,} of {len(chosen.records):,} {kind} of {chosen.split}, drawn "
        "by a hash of their id, not picked; the most probable answer first."
    )
    if other := _is_other(chosen, fingerprints):
        about += f" Answered by another model: {other}."
    if chosen.reads and not any(e.evidence for e in examples):
        about += (
            " Their evidence is not in this evaluation, which an older release wrote: "
            "realm evaluate ... --out FILE keeps it now."
        )
    titles = ("Right", "Wrong")
    totals = (num_right, len(chosen.records) - num_right)
    return {
        "about": about,
        "groups": [
            {"title": title, "examples": group, "total": total}
            for title, group, total in zip(titles, groups, totals, strict=True)
        ],
    }


def _result(one: Evaluation, place: int, fingerprints: Collection[str]) -> dict[str, Any]:
    content = one.content
    split, kind = content["split"], "claims" if one.is_of_claims else "questions"
    asked, total = int(split["num_asked"]), int(split[f"num_{kind}"])
    told = [f"{one.path.name}: retriever {one.retriever}"]
    if "num_passages" in content["corpus"]:
        told.append(counted(int(content["corpus"]["num_passages"]), "passage"))
    read = content["settings"]["num_passages"] if one.reads else "none"
    told.append(f"{read} read for each")
    if "median_seconds_per_question" in content:
        told.append(f"{content['median_seconds_per_question']:.2g} s a question (median)")
    failures = failures_of(one)
    breakdowns = one.breakdowns()
    metrics = {b["metric"] for b in content.get("breakdowns", {}).values()}
    return {
        "split": split["name"],
        "asked": f"{asked:,} {kind}" if asked == total else f"{asked:,} of {total:,} {kind}",
        "about": ", ".join(told) + ".",
        "is_other": _is_other(one, fingerprints),
        "metrics": one.metrics(),
        "failures": _parts(failures) if failures else [],
        "confusion": _confusion(content) if one.is_of_claims else None,
        "risk": _risk(content, place),
        "abstention": _abstention(content),
        "breakdowns": breakdowns,
        "breakdown_metric": ", ".join(sorted(name.replace("_", " ") for name in metrics)),
    }


def _is_other(one: Evaluation, fingerprints: Collection[str]) -> str:
    """Return which other model was evaluated; empty where it was this run's."""
    if one.is_of(fingerprints):
        return ""
    return f"{one.content['model']['name']} ({one.fingerprint[:12]})"


def _parts(failures: Failures) -> list[dict[str, Any]]:
    told = (
        ("good", "right", failures.right),
        ("misread", "an answer was read, other words were chosen", failures.misread),
        ("unread", "an answer was retrieved, but not read", failures.not_read),
        ("unfound", "no retrieved passage holds an answer", failures.not_found),
    )
    return [
        {
            "kind": kind,
            "label": label,
            "count": count,
            "percent": f"{100 * count / failures.total:.1f}",
        }
        for kind, label, count in told
    ]


def _confusion(content: Mapping[str, Any]) -> dict[str, Any]:
    labels = list(content["confusion"])
    rows = [
        (
            label,
            [(said, n, f"{n / max(1, sum(row.values())):.3f}") for said, n in row.items()],
        )
        for label, row in content["confusion"].items()
    ]
    return {"labels": labels, "rows": rows}


def _risk(content: Mapping[str, Any], place: int) -> Chart | None:
    told = content.get("abstention")
    if not told:
        return None
    points = [(float(coverage), float(risk)) for coverage, risk in told["risk_at_coverage"]]
    drawing = draw_risk(
        f"risk{place}",
        points,
        described="Share of wrong answers when only the most probable ones are given",
    )
    return Chart(
        title="Risk and coverage",
        about="the most probable answers first: how many of those given are wrong",
        svg=drawing.svg,
        keys=drawing.keys,
        is_wide=False,
        has_marks=False,
    )


def _abstention(content: Mapping[str, Any]) -> list[Fact]:
    told = content.get("abstention")
    if not told:
        return []
    kind = "calibrated" if told["is_calibrated"] else "the reader's own, not calibrated"
    facts = [
        Fact(name="probabilities", value=kind),
        Fact(
            name="calibration error",
            value=f"{told['ece']:.3f} (by chance {told['ece_by_chance']:.3f})",
        ),
        Fact(name="area under the curve", value=f"{told['aurc']:.3f}"),
    ]
    if told["min_probability"] > 0:
        facts += [
            Fact(
                name='"no answer"',
                value=f"{100 * told['share_refused']:.1f} % of the questions "
                f"(below {told['min_probability']:.3g})",
            ),
            Fact(name="... of the right", value=f"{100 * told['share_of_right_refused']:.1f} %"),
            Fact(name="right if answered", value=f"{100 * told['accuracy_of_answered']:.1f} %"),
        ]
    return facts
