"""Text -> words -> what the network sees of each: wordpieces, affixes, the shape."""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from realm.tokenizer import WordpieceTokenizer

NUM_PIECES = 4
"""Wordpieces read of a word: of a longer one the first three and the last."""
NUM_AFFIXES = 7
NUM_BUCKETS = 16_384
"""Rows of the table that affixes are hashed into; row 0 stands for no affix."""
SHAPES = (
    "padding", "lower", "title", "upper", "capital", "letter", "camel", "mixed",
    "digit", "digits2", "digits3", "digits4", "digits", "alnum", "uncased", "mark",
)  # fmt: skip
"""Kinds of spelling; the place of a shape is its number."""
NUM_FLAGS = 16
"""Values of a word's flags: see `flags_of`."""

_WORD = re.compile(r"[^\W_]+|\S")
_DIGITS = {1: "digit", 2: "digits2", 3: "digits3", 4: "digits4"}


class WordFeatures(NamedTuple):
    """Features of distinct words, one a row."""

    pieces: Int32[np.ndarray, "words pieces"]
    """Ids of wordpieces; 0 behind the last one."""
    affixes: Int32[np.ndarray, "words affixes"]
    """Hashed affixes; 0 for none."""
    shapes: Int32[np.ndarray, " words"]


def cut_words(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each word: a run of letters and digits, or one other character."""
    return [match.span() for match in _WORD.finditer(text)]


def flags_of(text: str, words: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each word of a sentence: stands apart (1), is first (2), the sentence's case (4).

    The case of a sentence is the share of its words of letters that begin with a capital: below
    half 0, from half 1, from nine tenths 2, all letters capitals 3.
    """
    begins = [text[start].isupper() for start, _ in words if text[start].isalpha()]
    share = sum(begins) / len(begins) if len(begins) > 2 else 0.0
    case = 3 if share >= 0.9 and text.isupper() else 2 if share >= 0.9 else 1 if share >= 0.5 else 0
    flags = [4 * case + int(start == 0 or text[start - 1].isspace()) for start, _ in words]
    if flags:
        flags[0] |= 2
    return flags


def describe_words(words: Sequence[str], tokenizer: WordpieceTokenizer) -> WordFeatures:
    """Return the features of each word.

    Args:
        words: As `cut_words` cuts them.
        tokenizer: Wordpieces without case; its row 0 is [PAD].
    """
    pieces = np.zeros((len(words), NUM_PIECES), np.int32)
    affixes = np.zeros((len(words), NUM_AFFIXES), np.int32)
    for row, encoded in enumerate(tokenizer.encode_batch(list(words))):
        ids = encoded.ids
        if len(ids) > NUM_PIECES:
            ids = [*ids[: NUM_PIECES - 1], ids[-1]]
        pieces[row, : len(ids)] = ids
    for row, word in enumerate(words):
        affixes[row] = _affixes(word)
    shapes = np.array([SHAPES.index(shape_of(word)) for word in words], np.int32)
    return WordFeatures(pieces, affixes, shapes)


def shape_of(word: str) -> str:
    """Return the kind of spelling of a word, one of `SHAPES`."""
    if word.isdigit():
        return _DIGITS.get(len(word), "digits")
    if not word.isalpha():
        return "alnum" if word[0].isalnum() else "mark"
    if word.islower():
        return "lower" if len(word) > 1 else "letter"
    if word.isupper():
        return "upper" if len(word) > 1 else "capital"
    return _cased_shape(word)


def _cased_shape(word: str) -> str:
    """Return the shape of letters that are not all small, nor all capitals."""
    if word[0].isupper():
        return "title" if word[1:].islower() else "camel"
    return "mixed" if word.lower() != word else "uncased"


def _affixes(word: str) -> list[int]:
    """Return hashes of the whole word, of its first 2 to 4 and its last 2 to 4 characters."""
    if not word[0].isalnum():
        return [0] * NUM_AFFIXES
    found = [f"w:{word}", *(f"p{n}:{word[:n]}" for n in (2, 3, 4))]
    found += [f"s{n}:{word[-n:]}" for n in (2, 3, 4)]
    longest = [0, 2, 3, 4, 2, 3, 4]
    return [
        1 + zlib.crc32(affix.encode()) % (NUM_BUCKETS - 1) if len(word) > size else 0
        for affix, size in zip(found, longest, strict=True)
    ]
