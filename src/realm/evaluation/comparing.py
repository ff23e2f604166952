"""Two reports on the same questions: how sure is the difference? Paired bootstrap, McNemar."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from realm.errors import ArtifactError
from realm.evaluation.metrics import bootstrap_interval
from realm.readable import counted
from realm.storage import FORMAT_VERSION, fingerprint_of, read_json

Record = Mapping[str, Any]
"""One question of a report, as it stands in the file."""
_KEYS = ("model", "retriever", "corpus", "split", "normalizer", "settings", "metrics", "questions")
_ASKED = ("id", "question", "answers", "answer_patterns")
_FOUND = ("exact_match", "f1", "regex_match", "rank", "answer_was_read")
_EXPECTED = "expected a report of `realm evaluate ... --out FILE`"
_HALF_RIGHT = ("f1", "mean_reciprocal_rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class Discordant:
    """Questions that one of two runs has right and the other wrong."""

    only_first: int
    only_second: int
    p_value: float
    """Exact McNemar test, two-sided: how often two equally good runs would differ so, or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of two runs on the same questions."""

    first: float
    second: float
    difference: float
    """First minus second."""
    low: float
    """Of the 95 % interval of the difference, over questions drawn anew in pairs."""
    high: float
    num_questions: int
    discordant: Discordant | None
    """None where a question can be half right (f1, mean reciprocal rank)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A report as it was written."""

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "ReportFile":
        """Read what `realm evaluate --out` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or no report.
        """
        if not path.is_file():
            raise ArtifactError(f"found no file {path}, {_EXPECTED}")
        content = read_json(path, remedy=_EXPECTED)
        if content.get("kind") != "report":
            kind = repr(content.get("kind"))[:40]
            raise ArtifactError(f"{path}: found kind {kind}, {_EXPECTED}")
        missing = [key for key in _KEYS if key not in content]
        records: object = content.get("questions", [])
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            missing.append("questions")
        else:
            missing += [k for k in (*_ASKED, *_FOUND) if any(k not in one for one in records)]
        if missing:
            raise ArtifactError(
                f"{path}: found no {', '.join(missing)}, expected a whole report; write it again "
                "with `realm evaluate ... --out FILE`"
            )
        return cls(path=path, content=content)

    @property
    def records(self) -> Sequence[Record]:
        """One for each question, in the order they were asked."""
        return self.content["questions"]

    @property
    def told(self) -> str:
        """Model and retriever in words."""
        model = self.content["model"]
        return f"{model['name']} ({model['fingerprint'][:12]}), {self.content['retriever']}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two runs differ."""

    first: ReportFile
    second: ReportFile
    differences: Mapping[str, Difference]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        sides = {"first": self.first, "second": self.second}
        return {
            "format_version": FORMAT_VERSION,
            "kind": "comparison",
            **{
                name: {
                    "file": str(side.path),
                    "model": side.content["model"],
                    "retriever": side.content["retriever"],
                }
                for name, side in sides.items()
            },
            "corpus": self.first.content["corpus"],
            "split": self.first.content["split"],
            "normalizer": self.first.content["normalizer"],
            "metrics": {name: asdict(one) for name, one in self.differences.items()},
        }

    def table(self) -> str:
        """Return the differences as lines of plain text, in percent."""
        split, corpus = self.first.content["split"], self.first.content["corpus"]
        passages = counted(corpus["num_passages"], "passage")
        head = [
            ("A", f"{self.first.path}: {self.first.told}"),
            ("B", f"{self.second.path}: {self.second.told}"),
            ("corpus", f"{passages} ({corpus['fingerprint'][:12]})"),
            (
                "split",
                f"{split['name']}, {split['num_asked']:,} of "
                f"{counted(split['num_questions'], 'question')}",
            ),
        ]
        width = max(len(name) for name in [*self.differences, *(name for name, _ in head)])
        lines = [f"{name:<{width}}  {value}" for name, value in head]
        lines += [
            "",
            f"{'metric':<{width}}      A      B  A - B   95 % interval  questions  only A  only B"
            "  McNemar p",
        ]
        return "\n".join([*lines, *(_line(n, d, width) for n, d in self.differences.items())])


def compare(
    first: ReportFile, second: ReportFile, *, samples: int = 2_000, seed: int = 0
) -> Comparison:
    """Return the differences of two runs on the same questions and passages.

    Every metric that both reports have: recall@k only where both name that k, the mean reciprocal
    rank only where both retrieved as many passages.

    Args:
        first: a report.
        second: another.
        samples: resamplings behind each interval.
        seed: equal seeds give equal intervals.

    Raises:
        ArtifactError: corpus, split, asked questions or rules of the matches differ.
    """
    _check(first, second)
    differences: dict[str, Difference] = {}
    for name, value_of in _shared(first, second).items():
        values = ([value_of(record) for record in one.records] for one in (first, second))
        pairs = [
            (float(a), float(b))
            for a, b in zip(*values, strict=True)
            if a is not None and b is not None
        ]
        if pairs:
            differences[name] = _difference(name, pairs, samples=samples, seed=seed)
    return Comparison(first=first, second=second, differences=differences)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of the exact McNemar test, two-sided.

    Were both runs equally good, each discordant question would be a toss of a fair coin: twice
    the binomial probability of as few heads as the rarer side, at most 1.

    Args:
        only_first: questions that only the first run has right.
        only_second: questions that only the second has right.
    """
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    tail = term = 1
    for heads in range(1, fewer + 1):
        term = term * (tosses - heads + 1) // heads
        tail += term
    return min(1.0, 2 * tail / 2**tosses)


def _check(first: ReportFile, second: ReportFile) -> None:
    """Refuse reports whose questions are no pairs."""
    ours, theirs = _identity(first), _identity(second)
    for what, cure in {
        "corpus": "on the same passages (--passages FOLDER)",
        "split": "on the same file of questions",
        "asked questions": "with the same limit, seed and max_answer_tokens",
        "normaliser": "with the same normalizer",
        "regex_mode": "with the same regex_mode",
    }.items():
        if ours[what] != theirs[what]:
            raise ArtifactError(
                f"{first.path} and {second.path} do not compare: found {what} {ours[what]} and "
                f"{theirs[what]}, expected the same; evaluate both {cure}"
            )


def _identity(report: ReportFile) -> dict[str, str]:
    """Return, in words, all that two reports must have in common."""
    content, records = report.content, report.records
    asked = fingerprint_of([[record[key] for key in _ASKED] for record in records])
    has_patterns = any(record["answer_patterns"] for record in records)
    return {
        "corpus": str(content["corpus"]["fingerprint"])[:12],
        "split": f"{content['split']['name']} ({content['split']['fingerprint'][:12]})",
        "asked questions": f"{len(records):,} ({asked[:12]})",
        "normaliser": str(content["normalizer"]),
        "regex_mode": str(content["settings"].get("regex_mode")) if has_patterns else "",
    }


def _shared(
    first: ReportFile, second: ReportFile
) -> dict[str, Callable[[Record], float | bool | None]]:
    """Return the metrics that both reports have, and how a question's value is read."""
    theirs = second.content["metrics"]
    names = [name for name in first.content["metrics"] if name in theirs]
    if first.content["settings"]["num_retrieved"] != second.content["settings"]["num_retrieved"]:
        names = [name for name in names if name != "mean_reciprocal_rank"]
    return {name: _reader_of(name) for name in names}


def _reader_of(name: str) -> Callable[[Record], float | bool | None]:
    kind, _, depth = name.partition("@")
    match kind:
        case "recall":
            return lambda record: record["rank"] is not None and record["rank"] <= int(depth)
        case "reader_oracle":
            return lambda record: record["answer_was_read"]
        case "mean_reciprocal_rank":
            return lambda record: 1 / record["rank"] if record["rank"] else 0.0
        case _:
            return lambda record: record[name]


def _difference(
    name: str, pairs: Sequence[tuple[float, float]], *, samples: int, seed: int
) -> Difference:
    interval = bootstrap_interval([a - b for a, b in pairs], samples=samples, seed=seed)
    discordant = None
    if name not in _HALF_RIGHT:
        only_first, only_second = (
            sum(one > other for one, other in side) for side in (pairs, [(b, a) for a, b in pairs])
        )
        discordant = Discordant(
            only_first=only_first,
            only_second=only_second,
            p_value=mcnemar(only_first, only_second),
        )
    return Difference(
        first=fmean(a for a, _ in pairs),
        second=fmean(b for _, b in pairs),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        num_questions=len(pairs),
        discordant=discordant,
    )


def _line(name: str, one: Difference, width: int) -> str:
    """Return a metric's line of the table."""
    interval = f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
    counts = f"{'-':>6}  {'-':>6}  {'-':>9}"
    if one.discordant is not None:
        found = one.discordant
        counts = f"{found.only_first:>6,}  {found.only_second:>6,}  {found.p_value:>9.2g}"
    return (
        f"{name:<{width}}  {100 * one.first:5.1f}  {100 * one.second:5.1f}  "
        f"{100 * one.difference:+5.1f}  {interval:>14}  {one.num_questions:>9,}  {counts}"
    )
