"""Text -> sentences, as character offsets: paragraphs first, then sentencex."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, cast

from sentencex import get_sentence_boundaries  # pyright: ignore

PARAGRAPH = re.compile(r"[^\n\r\x0b\x0c\x85\u2028\u2029]+")
WINDOW = 2_000
"""Characters given to sentencex at once: its time grows with their square outside ASCII."""
MARGIN = 200
"""A sentence that ends this close to the end of a window is looked at again with what follows."""
BEFORE_PERIOD = re.compile(r"[^\S\x00-\x7f](?=\s*\.)")
"""White space outside ASCII before a period: where it follows an initial, sentencex panics."""
ZERO_WIDTH_JOINER = "\u200d"
MAX_CODE_POINTS = 64
"""Of one character that is kept whole; a family of four with skin tones has 11."""


_find = cast("Callable[[str, str], list[dict[str, Any]]]", get_sentence_boundaries)


def sentence_spans(text: str, language: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of every sentence of `text`, in order, without white space around it.

    Line breaks end a sentence. Every character that is no white space is in exactly one sentence.
    """
    for paragraph in PARAGRAPH.finditer(text):
        for start, end in _pieces(text, paragraph.start(), paragraph.end(), language):
            piece = text[start:end]
            if stripped := piece.strip():
                start += len(piece) - len(piece.lstrip())
                yield start, start + len(stripped)


def is_inside_character(text: str, at: int) -> bool:
    """Return whether a cut before `text[at]` would tear apart what readers see as one character."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after.isascii():
        return before == "\r" and after == "\n"
    return (
        ZERO_WIDTH_JOINER in {before, after}
        or unicodedata.category(after) in {"Mn", "Mc", "Me"}  # accents, variation selectors
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or (_is_flag_half(after) and _is_flag_half(before))
        or _is_inside_syllable(before, after)
    )


def whole_characters(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a range widened to what readers see as characters: with their accents, for one.

    A tokenizer that strips accents leaves them out of its offsets, also where they are code points
    of their own (NFD), and cuts Hangul syllables that are written as letters.

    Args:
        text: the text.
        start: of the range.
        end: of the range, which is not empty.
    """
    for _ in range(MAX_CODE_POINTS):
        if not is_inside_character(text, start):
            break
        start -= 1
    for _ in range(MAX_CODE_POINTS):
        if not is_inside_character(text, end):
            break
        end += 1
    return start, end


def _pieces(text: str, start: int, end: int, language: str) -> Iterator[tuple[int, int]]:
    """Yield adjoining pieces of `text[start:end]`, a bounded window at a time."""
    while end - start > WINDOW:
        found = _boundaries(text[start : start + WINDOW], language)
        # The first one is taken wherever it is: there is no longer window to look at it again
        sure = [boundary for boundary in found if boundary <= WINDOW - MARGIN] or found[:1]
        if not sure:
            sure = [_cut(text, start, start + WINDOW) - start]
        previous = start
        for boundary in sure:
            yield previous, start + boundary
            previous = start + boundary
        start = previous
    previous = start
    for boundary in _boundaries(text[start:end], language):
        yield previous, start + boundary
        previous = start + boundary
    if previous < end:
        yield previous, end


def _boundaries(text: str, language: str) -> list[int]:
    """Return where sentences end inside `text`."""
    found = _find(language, BEFORE_PERIOD.sub(" ", text))
    ends = [sentence["end_index"] for sentence in found]
    return [end for end in ends if end < len(text) and not is_inside_character(text, end)]


def _cut(text: str, start: int, end: int) -> int:
    """Return the last good place in `text[start:end]` to cut an endless sentence."""
    for at in range(end, start + WINDOW // 2, -1):
        if text[at - 1].isspace():
            return at
    for at in range(end, start + WINDOW // 2, -1):
        if not is_inside_character(text, at):
            return at
    return end


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_inside_syllable(before: str, after: str) -> bool:
    """Return whether two code points are of one Hangul syllable (rules GB6 to GB8 of Unicode)."""
    left, right = _hangul(before), _hangul(after)
    if left == "L":
        return right in {"L", "V", "LV", "LVT"}
    if left in {"V", "LV"}:
        return right in {"V", "T"}
    return left in {"T", "LVT"} and right == "T"


def _hangul(character: str) -> str:
    """Return what part of a syllable a code point is: L, V, T, a whole LV or LVT; or ''."""
    if "\uac00" <= character <= "\ud7a3":
        return "LVT" if (ord(character) - 0xAC00) % 28 else "LV"
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb":
        return "T"
    return ""
