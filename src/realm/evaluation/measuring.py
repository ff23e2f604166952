"""One record a question -> the report's numbers: metrics, and what overlap with gold decides."""

from collections.abc import Sequence
from dataclasses import dataclass

from realm.config import EvaluateConfig
from realm.evaluation.metrics import (
    bootstrap_interval,
    hits_at_k,
    reciprocal_ranks,
    wilson_interval,
)
from realm.evaluation.overlap import THIRDS, overlap_thirds
from realm.evaluation.report import Metric, OverlapThird, QuestionRecord

_ORDER = ("exact_match", "f1", "regex_match", "recall", "reader_oracle", "mean_reciprocal_rank")


@dataclass(frozen=True, slots=True)
class Depths:
    """How many passages count, at most the corpus; all 0 where none is retrieved."""

    recall_at: tuple[int, ...]
    num_passages: int
    num_retrieved: int

    @classmethod
    def of(cls, config: EvaluateConfig, num_corpus: int) -> "Depths":
        """Return what the settings ask for of a corpus of so many passages."""
        recall_at = tuple(sorted({min(k, num_corpus) for k in config.recall_at}))
        num_passages = min(config.num_passages, num_corpus)
        return cls(recall_at, num_passages, max(*recall_at, num_passages, 1))

    @classmethod
    def none(cls) -> "Depths":
        """Return the depths of an answerer that looks nothing up."""
        return cls((), 0, 0)


def measure(
    records: Sequence[QuestionRecord], config: EvaluateConfig, depths: Depths
) -> dict[str, Metric]:
    """Return every metric that the questions allow, with its interval.

    Shares of questions have Wilson's; F1 and the reciprocal rank a bootstrap over questions.

    Args:
        records: one for each question.
        config: decides the bootstrap.
        depths: without passages nothing is said about them.
    """
    ranks = [record.rank for record in records]
    shares: dict[str, Sequence[float]] = {
        "exact_match": [float(r.exact_match) for r in records if r.exact_match is not None],
        "regex_match": [float(r.regex_match) for r in records if r.regex_match is not None],
        **{f"recall@{k}": hits_at_k(ranks, k) for k in depths.recall_at},
    }
    means: dict[str, Sequence[float]] = {"f1": [r.f1 for r in records if r.f1 is not None]}
    if depths.num_retrieved:
        read = [float(record.answer_was_read) for record in records]
        shares[f"reader_oracle@{depths.num_passages}"] = read
        means["mean_reciprocal_rank"] = reciprocal_ranks(ranks)
    intervals = {
        name: wilson_interval(round(sum(values)), len(values))
        for name, values in shares.items()
        if values
    } | {
        name: bootstrap_interval(values, samples=config.bootstrap_samples, seed=config.seed)
        for name, values in means.items()
        if values
    }
    counts = {name: len(values) for name, values in (shares | means).items()}
    return {
        name: Metric.of(intervals[name], num_questions=counts[name])
        for name in sorted(intervals, key=_place)
    }


def thirds(
    records: Sequence[QuestionRecord], config: EvaluateConfig, depths: Depths
) -> dict[str, OverlapThird]:
    """Return the numbers of each third by overlap; exact match and recall, which compare."""
    parts = overlap_thirds([r.overlap for r in records], [r.id for r in records])
    chosen = [[records[number] for number in part] for part in parts]
    measured = [measure(part, config, depths) for part in chosen]
    shared = [name for name in measured[0] if all(name in one for one in measured)] if parts else []
    return {
        name: OverlapThird(
            low=min(record.overlap or 0.0 for record in part),
            high=max(record.overlap or 0.0 for record in part),
            metrics={key: metrics[key] for key in shared if _compares(key)},
        )
        for name, part, metrics in zip(THIRDS[: len(parts)], chosen, measured, strict=True)
    }


def _compares(name: str) -> bool:
    return name == "exact_match" or name.startswith("recall@")


def _place(name: str) -> tuple[int, int]:
    """Return where a metric stands in a report."""
    kind, _, depth = name.partition("@")
    return _ORDER.index(kind), int(depth or 0)
