"""What an evaluation found: numbers with intervals, one record a question, JSON and table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from realm.errors import ArtifactError
from realm.evaluation.abstention import Abstention
from realm.evaluation.metrics import Interval
from realm.readable import counted
from realm.records import Answer
from realm.storage import FORMAT_VERSION, write_json

EXCERPT_CHARACTERS = 200
"""Characters of a passage kept on each side of an answer."""
_BY = {
    "question_word": "by question word",
    "gold_rank": "by rank of the answer",
    "train_overlap": "by training overlap",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A mean over questions between 0 and 1, with its 95 % interval.

    Wilson's for a share of questions; a bootstrap over them for F1 and the reciprocal rank.
    """

    mean: float
    low: float
    high: float
    num_questions: int

    @classmethod
    def of(cls, interval: Interval, *, num_questions: int) -> "Metric":
        """Return the mean of so many questions with its interval."""
        return cls(
            mean=interval.mean,
            low=interval.low,
            high=interval.high,
            num_questions=num_questions,
        )


def excerpt_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where an excerpt around text[start:end] begins and ends: not within a word."""
    first, last = max(0, start - EXCERPT_CHARACTERS), min(len(text), end + EXCERPT_CHARACTERS)
    while 0 < first < start and not text[first - 1].isspace():
        first += 1
    while end < last < len(text) and not text[last].isspace():
        last -= 1
    return first, last


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownEvidence:
    """Where the words of a prediction stand: `excerpt[start:end]` is the prediction."""

    passage_id: str
    title: str
    excerpt: str
    """Of the passage, around the words."""
    start: int
    end: int
    article_start: int
    """First character of the words in the article's text."""
    passage_probability: float
    """p(z|x) over the passages that were read."""

    @classmethod
    def of(cls, answer: Answer) -> "ShownEvidence":
        """Return where an answer stands."""
        text, offset = answer.passage.text, answer.passage.start
        start, end = answer.start - offset, answer.end - offset
        first, last = excerpt_around(text, start, end)
        return cls(
            passage_id=answer.passage.id,
            title=answer.passage.title,
            excerpt=text[first:last],
            start=start - first,
            end=end - first,
            article_start=answer.start,
            passage_probability=answer.passage_probability,
        )


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
    """Of the prediction, calibrated where the run is; 0 when there was none."""
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
    refused: bool = False
    """Whether "no answer" was said: the prediction is then a guess that was kept back."""
    train_overlap: str | None = None
    """What the training set holds of it: question, answer only, none; None: not compared."""
    evidence: ShownEvidence | None = None
    """Of the prediction; None where there is none, or no passage was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """How many questions of each group came out right."""

    metric: str
    """exact_match, regex_match, or right where a set has answers and patterns."""
    groups: Mapping[str, Metric]


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
    normalizer: str
    """Name and version of the rules of exact match and F1."""
    settings: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    median_seconds_per_question: float
    records: tuple[QuestionRecord, ...]
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    """Questions that ended in an error, by kind of error; they count as wrong."""
    thirds: Mapping[str, OverlapThird] = field(default_factory=dict[str, OverlapThird])
    """least, middle, most: how the overlap with the gold passage decides; empty: not known."""
    abstention: Abstention | None = None
    """What the probabilities are worth, and what was refused."""
    breakdowns: Mapping[str, Breakdown] = field(default_factory=dict[str, Breakdown])
    """question_word, train_overlap, gold_rank: which questions come out right."""
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """What `max_answer_tokens` took out of the split, by reason."""
    training_sets: tuple[Mapping[str, Any], ...] = ()
    """The files that train_overlap compares with: name, fingerprint, num_questions."""

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
            "dropped": dict(self.dropped),
            "training_sets": [dict(one) for one in self.training_sets],
            "normalizer": self.normalizer,
            "settings": dict(self.settings),
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "median_seconds_per_question": self.median_seconds_per_question,
            "failures": dict(self.failures),
            "overlap_thirds": {name: asdict(third) for name, third in self.thirds.items()},
            "abstention": self.abstention.as_json() if self.abstention else None,
            "breakdowns": {name: asdict(one) for name, one in self.breakdowns.items()},
            "questions": [asdict(record) for record in self.records],
        }

    def table(self) -> str:
        """Return the numbers as lines of plain text, in percent."""
        asked = f"{len(self.records):,} of {counted(self.num_split_questions, 'question')}"
        corpus = counted(self.num_corpus_passages, "passage")
        head = [
            ("model", f"{self.model} ({self.model_fingerprint[:12]})"),
            ("retriever", self.retriever),
            ("corpus", f"{corpus} ({self.corpus_fingerprint[:12]})"),
            ("split", f"{self.split}, {asked}"),
            ("seconds per question", f"{self.median_seconds_per_question:.3g} (median)"),
        ]
        head += [(f"dropped: {what}", f"{count:,}") for what, count in self.dropped.items()]
        head += [("training set", _told(one)) for one in self.training_sets]
        head += [(f"failed: {kind}", f"{count:,}") for kind, count in self.failures.items()]
        parts = {"metric": self.metrics} | {
            f"{one.metric} {_BY.get(name, name)}": one.groups
            for name, one in self.breakdowns.items()
        }
        names = [name for title, groups in parts.items() for name in (title, *groups)]
        width = max(len(name) for name in [*names, *(name for name, _ in head)])
        lines = [f"{name:<{width}}  {value}" for name, value in head]
        for title, groups in parts.items():
            lines += ["", f"{title:<{width}}   mean  95 % interval  questions"]
            lines += [f"{name:<{width}}  {_cells(metric)}" for name, metric in groups.items()]
        if self.abstention is not None:
            lines += ["", *self.abstention.lines(width)]
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
        return ["", *(f"{name:<{width}}" + "".join(f"{c:>24}" for c in row) for name, row in rows)]


def _told(training_set: Mapping[str, Any]) -> str:
    return f"{training_set['name']}, {counted(training_set['num_questions'], 'question')}"


def _cells(metric: Metric) -> str:
    """Return mean, interval and count as the columns of the table."""
    interval = f"{100 * metric.low:.1f} to {100 * metric.high:.1f}"
    return f"{100 * metric.mean:5.1f}  {interval:>13}  {metric.num_questions:>9,}"


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
