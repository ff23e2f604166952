"""Where a question's answers stand in passages: the distant supervision of Open-QA.

The released code matches raw substrings for the retriever ("US" hits "USSR") and exact wordpieces
for the reader; here both look for the same whole words, whatever their case.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.records import Question

_PATTERN_FLAGS = re.IGNORECASE | re.MULTILINE
"""As recall and regex match compile a pattern: ^ and $ match at line breaks."""
_PARTS = re.compile(r"\[[^\]\\]*\]|\\.|.", re.DOTALL)
"""A character class without escapes, an escape, or one character of a regex."""
_TURKISH_I = "\u0130\u0131"
_OUTSIDE = "[^A-Za-z0-9_]"
_BEYOND_ASCII = r"\x{80}-\x{10FFFF}"
_LOOSER = {
    r"\s": rf"[\s\x0b\x1c-\x1f{_BEYOND_ASCII}]",
    r"\w": rf"[\w{_BEYOND_ASCII}]",
    r"\d": rf"[\d{_BEYOND_ASCII}]",
    r"\S": r"[\s\S]",
    r"\W": "[^A-Za-z0-9_]",
    r"\D": "[^0-9]",
    r"\b": "(?:)",
    "$": "(?:)",
    **dict.fromkeys(f"iI{_TURKISH_I}", f"[iI{_TURKISH_I}]"),
}
"""What RE2 must be told to match at least what Python does: its classes know ASCII only, and it
does not take the four letters i for one another."""


def answer_spans(text: str, question: Question) -> list[tuple[int, int]]:
    """Return the character spans of every occurrence of every answer in a text, in order.

    Occurrences of a string may overlap ("gold gold" stands twice in "gold gold gold"); matches of
    a pattern do not.

    Raises:
        CorpusError: an answer pattern is no regex.
    """
    words, patterns = _regexes(question.answers, question.answer_patterns)
    spans = {match.span(1) for regex in words for match in regex.finditer(text)}
    spans |= {m.span() for regex in patterns for m in regex.finditer(text) if m.group()}
    return sorted(spans)


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
    """Return, for each row, whether `answer_spans` finds an answer in its text.

    A quick search with RE2 leaves a few rows to look at.

    Raises:
        CorpusError: an answer pattern is no regex.
    """
    held = np.zeros(len(rows), dtype=bool)
    if not len(rows) or not any(_regexes(question.answers, question.answer_patterns)):
        return held
    for place in _likely(store, rows, question):
        held[place] = bool(answer_spans(store.text(rows[place]), question))
    return held


@lru_cache(maxsize=4_096)
def _regexes(
    answers: tuple[str, ...], patterns: tuple[str, ...]
) -> tuple[tuple[re.Pattern[str], ...], tuple[re.Pattern[str], ...]]:
    """Return the regexes of answer strings (the words in group 1) and those of answer patterns."""
    words = [rf"(?<!\w)(?=({_flexible(answer)})(?!\w))" for answer in answers if answer.strip()]
    compiled = tuple(re.compile(word, re.IGNORECASE) for word in words)
    try:
        return compiled, tuple(re.compile(pattern, _PATTERN_FLAGS) for pattern in patterns)
    except re.error as error:
        raise CorpusError(
            f"found answer pattern {error.pattern!r}, expected a regex of Python's: {error}"
        ) from None


def _flexible(answer: str) -> str:
    """Escape an answer; any run of white space matches any other."""
    return r"\s+".join(re.escape(word) for word in answer.split())


def _likely(store: PassageStore, rows: Sequence[int], question: Question) -> Sequence[int]:
    """Return the places in `rows` whose texts may hold an answer; all others hold none."""
    answers = tuple(answer for answer in question.answers if answer.strip())
    words = [_loosened(_flexible(answer)) for answer in answers]
    patterns = [_loosened(pattern) for pattern in question.answer_patterns]
    if None in words or None in patterns:
        return range(len(rows))
    choices = [rf"(?:^|{_OUTSIDE}){word}(?:$|{_OUTSIDE})" for word in words]
    loose = "(?im)" + "|".join([*choices, *(f"(?:{pattern})" for pattern in patterns)])
    texts = store.text_column().take(pa.array(rows))
    try:
        found = pc.match_substring_regex(texts, loose)  # pyright: ignore[reportAttributeAccessIssue]
    except (pa.ArrowInvalid, UnicodeEncodeError):  # beyond RE2, e.g. "a{2000}"
        return range(len(rows))
    return np.flatnonzero(found.to_numpy()).tolist()


def _loosened(pattern: str) -> str | None:
    """Return a pattern for RE2 that matches wherever Python's does; None where that is unsure."""
    if re.search(r"\(\?(?!:)|\{,", pattern):
        return None
    parts = [_loosened_part(part) for part in _PARTS.findall(pattern)]
    return None if None in parts else "".join(part for part in parts if part is not None)


def _loosened_part(part: str) -> str | None:
    if part in _LOOSER:
        return _LOOSER[part]
    if part.startswith("\\"):
        return None if part[1].isalnum() else part
    if part.startswith("["):
        body = part[1:-1]
        unsure = body in {"", "^"} or "[" in body
        return None if unsure else part if body.startswith("^") else f"[iI{_TURKISH_I}{body}]"
    return part
