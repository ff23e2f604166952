"""Where a question's answers stand in passages: the distant supervision of Open-QA."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from realm.corpus.store import PassageStore
from realm.records import Question


def answer_regex(question: Question) -> re.Pattern[str]:
    """Return a pattern that finds any answer as whole words, whatever its case.

    The released code matches raw substrings for the retriever ("US" hits "USSR") and exact
    wordpieces for the reader; here both look for the same whole words.
    """
    return _compile(question.answers, question.answer_patterns)


def answer_spans(text: str, question: Question) -> list[tuple[int, int]]:
    """Return the character spans of every occurrence of every answer in a text."""
    return [match.span() for match in answer_regex(question).finditer(text) if match.group()]


def wordpiece_spans(
    spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return (first, last) wordpieces of character spans; spans without wordpieces are left out.

    A wordpiece belongs to a span when their characters overlap.
    """
    starts = np.array([start for start, _ in offsets], dtype=np.int64)
    ends = np.array([end for _, end in offsets], dtype=np.int64)
    found: list[tuple[int, int]] = []
    for start, end in spans:
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(starts, end, side="left")) - 1
        if first <= last < len(offsets):
            found.append((first, last))
    return found


def holds_answer(
    store: PassageStore, rows: Sequence[int], question: Question
) -> Bool[np.ndarray, " rows"]:
    """Return, for each row, whether its text holds an answer."""
    if not len(rows):
        return np.zeros(0, dtype=bool)
    pattern = _fast_pattern(question)
    if pattern is not None:
        texts = store.text_column().take(pa.array(rows))
        try:
            return pc.match_substring_regex(texts, pattern).to_numpy().astype(bool)
        except pa.ArrowInvalid:
            pass  # a pattern that RE2 does not know (look-ahead): matched by Python below
    regex = answer_regex(question)
    return np.array([regex.search(store.text(row)) is not None for row in rows])


@lru_cache(maxsize=4_096)
def _compile(answers: tuple[str, ...], patterns: tuple[str, ...]) -> re.Pattern[str]:
    words = [rf"(?<!\w){_flexible(answer)}(?!\w)" for answer in answers if answer.strip()]
    choices = [*sorted(words, key=len, reverse=True), *(f"(?:{p})" for p in patterns)]
    return re.compile("|".join(choices) or r"(?!)", re.IGNORECASE)


def _fast_pattern(question: Question) -> str | None:
    answers = [answer for answer in question.answers if answer.strip()]
    if not answers and not question.answer_patterns:
        return None
    words = [rf"(?:^|[^\pL\pN_]){_flexible(answer)}(?:$|[^\pL\pN_])" for answer in answers]
    return "(?is)" + "|".join([*words, *(f"(?:{p})" for p in question.answer_patterns)])


def _flexible(answer: str) -> str:
    """Escape an answer; any run of white space matches any other."""
    return r"\s+".join(re.escape(word) for word in answer.split())
