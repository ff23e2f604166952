"""What an evaluation found: numbers with intervals, one record a question, JSON and table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from realm.errors import ArtifactError
from realm.evaluation.metrics import NORMALIZER
from realm.storage import FORMAT_VERSION, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A mean over questions between 0 and 1, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    num_questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRecord:
    """One question, what was answered and what was found."""

    id: str
    question: str
    answers: tuple[str, ...]
    answer_patterns: tuple[str, ...]
    prediction: str
    """The best answer; empty when there was none."""
    probability: float
    """p(y|x) of the prediction, 0 when there was none."""
    right: bool
    """Exact match or regex match."""
    exact_match: bool | None
    """None where the question has only patterns."""
    f1: float | None
    regex_match: bool | None
    """None where the question has no patterns."""
    rank: int | None
    """Rank of the first retrieved passage with an answer, from 1."""
    answer_was_read: bool
    """Whether an answer stands in a passage that the reader read."""
    error: str | None
    """Why there is no answer: the kind of the error and its message."""
    overlap: float | None = None
    """Share of the question's content words that stand in its gold passage; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapThird:
    """The numbers of a third of the questions, by their overlap with their gold passage."""

    low: float
    """Least overlap in it."""
    high: float
    metrics: Mapping[str, Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All numbers of one evaluation and all that is needed to compare it with another."""

    model: str
    model_fingerprint: str
    retriever: str
    corpus_fingerprint: str
    num_corpus_passages: int
    split: str
    split_fingerprint: str
    num_split_questions: int
    """Questions of the whole split; `records` holds those that were asked."""
    settings: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    median_seconds_per_question: float
    records: tuple[QuestionRecord, ...]
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    """Questions that ended in an error, by kind of error; they count as wrong."""
    thirds: Mapping[str, OverlapThird] = field(default_factory=dict[str, OverlapThird])
    """least, middle, most: how the overlap with the gold passage decides; empty: not known."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": "report",
            "model": {"name": self.model, "fingerprint": self.model_fingerprint},
            "retriever": self.retriever,
            "corpus": {
                "fingerprint": self.corpus_fingerprint,
                "num_passages": self.num_corpus_passages,
            },
            "split": {
                "name": self.split,
                "fingerprint": self.split_fingerprint,
                "num_questions": self.num_split_questions,
                "num_asked": len(self.records),
            },
            "normalizer": NORMALIZER,
            "settings": dict(self.settings),
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "median_seconds_per_question": self.median_seconds_per_question,
            "failures": dict(self.failures),
            "overlap_thirds": {name: asdict(third) for name, third in self.thirds.items()},
            "questions": [asdict(record) for record in self.records],
        }

    def table(self) -> str:
        """Return the numbers as lines of plain text, in percent."""
        asked = f"{len(self.records):,} of {self.num_split_questions:,} questions"
        head = [
            ("model", f"{self.model} ({self.model_fingerprint[:12]})"),
            ("retriever", self.retriever),
            ("corpus", f"{self.num_corpus_passages:,} passages ({self.corpus_fingerprint[:12]})"),
            ("split", f"{self.split}, {asked}"),
            ("seconds per question", f"{self.median_seconds_per_question:.3g} (median)"),
        ]
        head += [(f"failed: {kind}", f"{count:,}") for kind, count in self.failures.items()]
        width = max(len(name) for name in [*self.metrics, *(name for name, _ in head)])
        lines = [f"{name:<{width}}  {value}" for name, value in head]
        lines += ["", f"{'metric':<{width}}   mean  95 % interval  questions"]
        lines += [
            f"{name:<{width}}  {100 * metric.mean:5.1f}  "
            f"{f'{100 * metric.low:.1f} to {100 * metric.high:.1f}':>13}  "
            f"{metric.num_questions:>9,}"
            for name, metric in self.metrics.items()
        ]
        return "\n".join([*lines, *self._thirds(width)])

    def _thirds(self, width: int) -> list[str]:
        """Return the lines that compare the thirds, in percent."""
        if not self.thirds:
            return []
        columns = list(self.thirds.values())
        rows = [
            ("words of the question that its passage holds", list(self.thirds)),
            ("share", [f"{100 * one.low:.0f} to {100 * one.high:.0f}" for one in columns]),
        ]
        for name in columns[0].metrics:
            measured = [one.metrics[name] for one in columns]
            rows.append(
                (
                    name,
                    [
                        f"{100 * m.mean:.1f} ({100 * m.low:.1f} to {100 * m.high:.1f})"
                        for m in measured
                    ],
                )
            )
        width = max(width, *(len(name) for name, _ in rows))
        return ["", *(f"{name:<{width}}" + "".join(f"{c:>22}" for c in row) for name, row in rows)]


@runtime_checkable
class Writable(Protocol):
    """A report of any kind."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        ...


def write_report(report: Writable, path: Path) -> None:
    """Write the report as JSON, whole or not at all; the folder is made where it is missing.

    Raises:
        ArtifactError: it cannot be written there; an older report stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report.as_json())
    except OSError as error:
        raise ArtifactError(
            f"cannot write the report to {path}: {error.strerror or error}; "
            "free space, fix the permissions or choose another path"
        ) from error
