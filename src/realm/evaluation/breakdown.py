"""Which questions come out right: by question word, by rank of the gold passage, by overlap."""

import re
from collections.abc import Callable, Mapping, Sequence

from realm.evaluation.metrics import wilson_interval
from realm.evaluation.report import Breakdown, Metric, QuestionRecord
from realm.evaluation.train_overlap import SPLITS

QUESTION_WORDS = (
    *("who", "what", "when", "where", "which", "why", "how", "how many/much"),
    "other",
)
NOT_FOUND = "not found"
_LAST_RANKS = {"1": 1, "2-5": 5, "6-20": 20, "21-100": 100}
_BEYOND = "over 100"
_WORD = re.compile(
    r"\b(?:(?P<count>how\s+(?:many|much))|(?P<who>who(?:m|se|s)?)"
    r"|(?P<other>what|when|where|which|why|how)s?)\b"
)


def question_word(question: str) -> str:
    """Return the first question word of a question, one of QUESTION_WORDS.

    Wherever it stands ("In which year ..." is which), whom and whose are who; a question without
    one ("Name the capital of Peru") is other.
    """
    found = _WORD.search(question.lower())
    if found is None:
        return "other"
    return "how many/much" if found["count"] else "who" if found["who"] else found["other"]


def rank_group(rank: int | None) -> str:
    """Return the group of ranks that the first passage with an answer falls in."""
    if rank is None:
        return NOT_FOUND
    return next((name for name, last in _LAST_RANKS.items() if rank <= last), _BEYOND)


def breakdowns(records: Sequence[QuestionRecord], *, retrieves: bool) -> dict[str, Breakdown]:
    """Return how many questions of each group came out right, with Wilson's intervals.

    Right is exact match, or regex match where a question has patterns. Groups without a question
    are left out, as is a breakdown of which nothing is known.

    Args:
        records: all questions.
        retrieves: whether passages were looked for at all.
    """
    ways: dict[str, tuple[Sequence[str], Callable[[QuestionRecord], str | None]]] = {
        "question_word": (QUESTION_WORDS, lambda record: question_word(record.question)),
        "train_overlap": (SPLITS, lambda record: record.train_overlap),
    }
    if retrieves:
        ranks = (*_LAST_RANKS, _BEYOND, NOT_FOUND)
        ways["gold_rank"] = ranks, lambda record: rank_group(record.rank)
    metric = _metric(records)
    found = {name: _grouped(records, groups, group_of) for name, (groups, group_of) in ways.items()}
    return {
        name: Breakdown(metric=metric, groups=groups) for name, groups in found.items() if groups
    }


def _metric(records: Sequence[QuestionRecord]) -> str:
    """Return the name of what makes an answer right: that of `Report.metrics`, if it is one."""
    has_strings = any(record.exact_match is not None for record in records)
    has_patterns = any(record.regex_match is not None for record in records)
    if has_strings and has_patterns:
        return "right"
    return "regex_match" if has_patterns else "exact_match"


def _grouped(
    records: Sequence[QuestionRecord],
    groups: Sequence[str],
    group_of: Callable[[QuestionRecord], str | None],
) -> Mapping[str, Metric]:
    members: dict[str, list[bool]] = {name: [] for name in groups}
    for record in records:
        if (group := group_of(record)) is not None:
            members[group].append(record.right)
    return {
        name: Metric.of(wilson_interval(sum(right), len(right)), num_questions=len(right))
        for name, right in members.items()
        if right
    }
