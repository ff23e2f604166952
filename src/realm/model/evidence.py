"""What the reader's and the retriever's numbers say about the best answer."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from realm.records import Evidence

SCORES = 5
"""Passages whose retriever's scores count, whatever is read."""


def measure_evidence(
    totals: Mapping[str, float],
    best_of_passage: Mapping[int, str],
    *,
    num_read: int,
    best_logit: float,
    scores: Sequence[float],
    overlap: float,
    p_null: float | None = None,
) -> Evidence:
    """Return the evidence for the string with the largest total.

    Args:
        totals: summed probability of each string, at least one.
        best_of_passage: each passage's own best string; passages may be missing.
        num_read: passages read.
        best_logit: the largest logit of a span, without the retriever's score.
        scores: the retriever's, best first, at least one.
        overlap: share of the question's wordpieces in the first passage.
        p_null: probability that no passage read holds an answer; None: not told.
    """
    best = max(totals, key=lambda key: totals[key])
    second = max((total for key, total in totals.items() if key != best), default=0.0)
    agreeing = sum(key == best for key in best_of_passage.values())
    others = scores[1:SCORES]
    return Evidence(
        probability=min(1.0, totals[best]),
        margin=max(0.0, totals[best] - second),
        best_logit=best_logit,
        score=scores[0],
        score_gap=scores[0] - fmean(others) if others else 0.0,
        agreement=agreeing / num_read,
        overlap=overlap,
        p_null=p_null,
    )
