"""Evaluations of a run: found beside it or named, as numbers with intervals, with examples."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realm.evaluation.comparing import ReportFile
from realm.storage import children, passing_over_damage, read_json, unreadable

KINDS = ("report", "claim-report")
LOOK_BYTES = 256
"""An evaluation says what it is at its beginning."""
OWN_RETRIEVERS = ("realm", "dense", "hybrid")
"""What an evaluation calls the run's own retriever."""
_GROUPS = {
    "question_word": "By question word",
    "gold_rank": "By rank of the first passage with an answer",
    "train_overlap": "By what the training set gives away",
}
_METRICS = {
    "exact_match": "exact match",
    "f1": "F1",
    "regex_match": "regex match",
    "mean_reciprocal_rank": "mean reciprocal rank",
    "accuracy": "accuracy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A share with its 95 % interval."""

    label: str
    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a heading."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `realm evaluate --out` wrote."""

    path: Path
    content: Mapping[str, Any]

    @property
    def is_of_claims(self) -> bool:
        """Whether claims were classified, not questions answered."""
        return self.content["kind"] == "claim-report"

    @property
    def retriever(self) -> str:
        """Who found the passages."""
        return str(self.content["retriever"])

    @property
    def reads(self) -> bool:
        """Whether passages were looked for: closed-book answers from memory."""
        return self.content["settings"].get("num_retrieved") != 0

    @property
    def fingerprint(self) -> str:
        """Of the model that was evaluated."""
        return str(self.content["model"]["fingerprint"])

    @property
    def split(self) -> str:
        """Name of the questions."""
        return str(self.content["split"]["name"])

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """One for each question, or claim."""
        return self.content["claims" if self.is_of_claims else "questions"]

    def is_of(self, fingerprints: Collection[str]) -> bool:
        """Return whether the model that was evaluated has one of these fingerprints."""
        return self.fingerprint in fingerprints

    def metrics(self) -> Table:
        """Return the main numbers."""
        return Table(title="", rows=_rows(self.content["metrics"]))

    def breakdowns(self) -> list[Table]:
        """Return the same by kinds of questions."""
        told = [
            Table(title=_GROUPS.get(str(name), str(name)), rows=_rows(one["groups"]))
            for name, one in self.content.get("breakdowns", {}).items()
        ]
        thirds = self.content.get("overlap_thirds", {})
        measured = [str(metric) for one in thirds.values() for metric in one["metrics"]]
        if measured:  # exact match, or recall where no question has answer strings
            first = measured[0]
            rows = [
                _row(f"{name} ({100 * one['low']:.0f} to {100 * one['high']:.0f} %)", metric)
                for name, one in thirds.items()
                if (metric := one["metrics"].get(first))
            ]
            title = "By share of the question's words that its passage holds: "
            told.append(Table(title=title + _METRICS.get(first, first), rows=tuple(rows)))
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Where wrong answers went wrong."""

    right: int
    not_found: int
    """No retrieved passage holds an answer."""
    not_read: int
    """One does, further down than the reader read."""
    misread: int
    """The reader had one before it and chose other words."""
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question (or claim) with what was said."""

    question: str
    expected: tuple[str, ...]
    prediction: str
    probability: float
    is_right: bool
    was_refused: bool
    why: str
    """What went wrong; empty where nothing did."""
    evidence: Mapping[str, Any] | None


def read_evaluation(path: Path) -> Evaluation:
    """Return what an evaluation found.

    Raises:
        ArtifactError: the file is missing, damaged or no report of `realm evaluate`.
    """
    with passing_over_damage():  # what is no report is told below
        if (content := read_json(path)).get("kind") == "claim-report":
            return Evaluation(path=path, content=content)
    return Evaluation(path=path, content=ReportFile.read(path).content)


def find_evaluations(run: Path, fingerprints: Collection[str]) -> list[Evaluation]:
    """Return the evaluations of a run that lie in its folder or beside it.

    Those with its own retriever come first, then by file name.

    Args:
        run: the run's folder.
        fingerprints: of its parameters; what tells others' is left out.

    Raises:
        UnreadableError: one of the two folders cannot be listed, or a file not be read.
    """
    found: list[Evaluation] = []
    for folder in (run, run.resolve().parent):
        for path in children(folder):
            if path.suffix != ".json" or not _may_be_evaluation(path):
                continue
            with passing_over_damage():
                evaluation = read_evaluation(path)
                if evaluation.is_of(fingerprints):
                    found.append(evaluation)
    return sorted(found, key=lambda one: one.retriever not in OWN_RETRIEVERS)


def own_first(
    evaluations: Sequence[Evaluation], fingerprints: Collection[str], *, retriever: str
) -> list[Evaluation]:
    """Return them with those first that say most about a run: of its model, with its retriever.

    Args:
        evaluations: in any order, which stays among equals.
        fingerprints: of the run's model.
        retriever: that the run was trained with; then come the others of its own.
    """
    return sorted(
        evaluations,
        key=lambda one: (
            not one.is_of(fingerprints),
            one.retriever != retriever,
            one.retriever not in OWN_RETRIEVERS,
        ),
    )


def failures_of(evaluation: Evaluation) -> Failures | None:
    """Return where the wrong answers went wrong; None where no passages were searched."""
    records = evaluation.records
    if evaluation.is_of_claims or not any("rank" in one for one in records):
        return None
    if not evaluation.content["settings"].get("num_retrieved"):
        return None
    reasons = [_reason(one) for one in records]
    return Failures(
        right=reasons.count(""),
        not_found=reasons.count("not found"),
        not_read=reasons.count("not read"),
        misread=reasons.count("misread"),
        total=len(records),
    )


def examples_of(evaluation: Evaluation, number: int) -> list[Example]:
    """Return about as many right as wrong questions, drawn by a hash of their id, not picked.

    Args:
        evaluation: with a record for each question.
        number: of examples in all.
    """
    drawn = sorted(evaluation.records, key=lambda one: _hash(str(one["id"])))
    told = [_example(one, evaluation) for one in drawn]
    right = [one for one in told if one.is_right]
    wrong = [one for one in told if not one.is_right]
    half = number // 2
    num_right = min(len(right), max(half, number - len(wrong)))
    chosen = right[:num_right] + wrong[: number - num_right]
    return sorted(chosen, key=lambda one: (not one.is_right, -one.probability))


def _example(record: Mapping[str, Any], evaluation: Evaluation) -> Example:
    evidence = record.get("evidence")
    if evaluation.is_of_claims:
        return Example(
            question=str(record["claim"]),
            expected=(str(record["label"]),),
            prediction=str(record["prediction"]),
            probability=float(record["probability"]),
            is_right=record["prediction"] == record["label"],
            was_refused=False,
            why=str(record["error"] or ""),
            evidence=evidence,
        )
    told = [*record["answers"], *record["answer_patterns"]]
    return Example(
        question=str(record["question"]),
        expected=tuple(dict.fromkeys(map(str, told))),
        prediction=str(record["prediction"]),
        probability=float(record.get("probability", 0.0)),
        is_right=_is_right(record),
        was_refused=bool(record.get("refused")),
        why=_why(record, reads=evaluation.reads),
        evidence=evidence,
    )


def _is_right(record: Mapping[str, Any]) -> bool:
    return bool(record["exact_match"] or record["regex_match"])


def _reason(record: Mapping[str, Any]) -> str:
    if _is_right(record):
        return ""
    if record["answer_was_read"]:
        return "misread"
    return "not read" if record["rank"] is not None else "not found"


def _why(record: Mapping[str, Any], *, reads: bool) -> str:
    if record.get("error"):
        return str(record["error"])
    if not reads:
        return ""
    match _reason(record):
        case "misread":
            at = f" at rank {record['rank']}" if record["rank"] else ""
            return f"an answer was read{at}, other words were chosen"
        case "not read":
            return f"the first passage with an answer came at rank {record['rank']}, unread"
        case "not found":
            return "no retrieved passage holds an answer"
        case _:
            return ""


def _may_be_evaluation(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(LOOK_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        return False
    except PermissionError:
        return False  # somebody else's, beside the run
    except OSError as error:
        raise unreadable(path, error) from None
    return any(f'"kind": "{kind}"'.encode() in head for kind in KINDS)


def _rows(metrics: Mapping[str, Mapping[str, Any]]) -> tuple[Row, ...]:
    return tuple(_row(_METRICS.get(name, name), metric) for name, metric in metrics.items())


def _row(label: str, metric: Mapping[str, Any]) -> Row:
    return Row(
        label=label.replace("reader_oracle", "reader oracle"),
        mean=float(metric["mean"]),
        low=float(metric["low"]),
        high=float(metric["high"]),
        count=int(metric["num_questions"]),
    )


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
