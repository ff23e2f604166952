"""What an evaluation on claims found: numbers, one record a claim, JSON and table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from realm.evaluation.report import Metric
from realm.readable import counted
from realm.records import LabelEvidence
from realm.storage import FORMAT_VERSION

EXCERPT_CHARACTERS = 400
"""Characters of a passage kept as evidence for a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimEvidence:
    """The passage that speaks most for the label that was said."""

    passage_id: str
    title: str
    excerpt: str
    """The beginning of the passage."""
    passage_probability: float
    """p(z|x) over the passages that were read."""
    label_probability: float
    """p(label|z,x): what this passage alone says."""

    @classmethod
    def of(cls, label: LabelEvidence) -> "ClaimEvidence":
        """Return what speaks for a label."""
        return cls(
            passage_id=label.passage.id,
            title=label.passage.title,
            excerpt=label.passage.text[:EXCERPT_CHARACTERS],
            passage_probability=label.passage_probability,
            label_probability=label.label_probability,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """One claim and what was said of it."""

    id: str
    claim: str
    label: str
    prediction: str
    """Empty where the claim could not be classified."""
    probability: float
    """p(label|x) of the prediction, 0 where there is none."""
    p_label: float
    """p(label|x) of the right label."""
    error: str | None
    evidence: ClaimEvidence | None = None
    """For the prediction; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNumbers:
    """How well one label is told from the others; each between 0 and 1, None where 0 / 0."""

    precision: float | None
    """Of the claims that got it, those that have it."""
    recall: float | None
    """Of the claims that have it, those that got it."""
    f1: float | None
    num_claims: int
    """Claims that have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimReport:
    """All numbers of one evaluation and all that is needed to compare it with another."""

    model: str
    model_fingerprint: str
    retriever: str
    corpus_fingerprint: str
    split: str
    split_fingerprint: str
    num_split_claims: int
    settings: Mapping[str, Any]
    accuracy: Metric
    majority: float
    """Accuracy of always saying the label that most of these claims have."""
    labels: Mapping[str, LabelNumbers]
    confusion: Mapping[str, Mapping[str, int]]
    """confusion[label][prediction]: claims."""
    records: tuple[ClaimRecord, ...]
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    """Claims that ended in an error, by kind of error; they count as wrong."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": "claim-report",
            "model": {"name": self.model, "fingerprint": self.model_fingerprint},
            "retriever": self.retriever,
            "corpus": {"fingerprint": self.corpus_fingerprint},
            "split": {
                "name": self.split,
                "fingerprint": self.split_fingerprint,
                "num_claims": self.num_split_claims,
                "num_asked": len(self.records),
            },
            "settings": dict(self.settings),
            "metrics": {"accuracy": asdict(self.accuracy)},
            "majority": self.majority,
            "labels": {name: asdict(numbers) for name, numbers in self.labels.items()},
            "confusion": {name: dict(row) for name, row in self.confusion.items()},
            "failures": dict(self.failures),
            "claims": [asdict(record) for record in self.records],
        }

    def table(self) -> str:
        """Return the numbers as lines of plain text, in percent."""
        asked = f"{len(self.records):,} of {counted(self.num_split_claims, 'claim')}"
        measured = self.accuracy
        lines = [
            f"model      {self.model} ({self.model_fingerprint[:12]})",
            f"retriever  {self.retriever}",
            f"split      {self.split}, {asked}",
            *(f"failed: {kind}  {count:,}" for kind, count in self.failures.items()),
            "",
            f"accuracy   {100 * measured.mean:.1f} "
            f"(95 % interval {100 * measured.low:.1f} to {100 * measured.high:.1f})",
            f"always the most frequent label: {100 * self.majority:.1f}",
            "",
        ]
        width = max(len("label"), *(len(name) for name in self.labels))
        lines.append(f"{'label':<{width}}  precision  recall     f1  claims   said to be:")
        columns = {name: max(6, len(name)) for name in self.labels}
        lines[-1] += "".join(f"  {name:>{size}}" for name, size in columns.items())
        for name, numbers in self.labels.items():
            told = [_percent(value) for value in (numbers.precision, numbers.recall, numbers.f1)]
            row = self.confusion[name]
            counts = "".join(f"  {row[said]:>{size},}" for said, size in columns.items())
            lines.append(
                f"{name:<{width}}  {told[0]:>9}  {told[1]:>6}  {told[2]:>5}"
                f"  {numbers.num_claims:>6,}{'':<14}{counts}"
            )
        return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
