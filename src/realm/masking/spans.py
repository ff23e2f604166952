"""Which wordpieces of one sentence are masked: salient, token (BERT) and span (SpanBERT).

Pure functions of wordpieces and offsets. Every masked piece becomes [MASK] (section 3.4; no
80/10/10 as in BERT).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from realm.errors import ConfigError

MAX_SPAN_WORDS = 10
"""Longest random span (SpanBERT: 10)."""


class MaskedPieces(NamedTuple):
    """One sentence with its masks."""

    query_ids: tuple[int, ...]
    positions: tuple[int, ...]
    """The masked positions that count in the loss: the first `max_masks`."""
    target_ids: tuple[int, ...]


def apply_masks(
    ids: Sequence[int], masked: Sequence[int], *, mask_id: int, max_masks: int
) -> MaskedPieces:
    """Return `ids` with [MASK] at every position of `masked`.

    Beyond `max_masks` pieces are masked too, but do not count in the loss (released code).
    """
    query = list(ids)
    for position in masked:
        query[position] = mask_id
    counted = tuple(masked[:max_masks])
    return MaskedPieces(tuple(query), counted, tuple(ids[p] for p in counted))


def salient_positions(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Return the wordpieces that share a character with the span [start, end).

    Differs from the released code, which wants pieces wholly inside the span and drops every
    sentence whose lower-casing or accents change its length.
    """
    return [i for i, (first, last) in enumerate(offsets) if first < end and last > start]


def token_positions(num_pieces: int, *, mask_rate: float, rng: np.random.Generator) -> list[int]:
    """Return random wordpieces, each with probability `mask_rate`, at least one (BERT)."""
    chosen = np.flatnonzero(rng.random(num_pieces) < mask_rate)
    if not len(chosen):
        return [int(rng.integers(num_pieces))]
    return [int(i) for i in chosen]


def span_positions(
    continues: Sequence[bool],
    *,
    mask_rate: float,
    lengths: Sequence[float],
    rng: np.random.Generator,
) -> list[int]:
    """Return random spans of whole words, until `mask_rate` of the pieces is masked (SpanBERT).

    Args:
        continues: For each wordpiece whether it continues the word before it (`##`).
        mask_rate: Share of the wordpieces to mask; the last span is cut at a word when it is
            reached.
        lengths: p(1 word), p(2 words) ... of a span, from `span_lengths`.
        rng: Decides everything.
    """
    starts = [i for i, inner in enumerate(continues) if not inner or i == 0]
    ends = [*starts[1:], len(continues)]
    budget = max(1, round(mask_rate * len(continues)))
    masked: set[int] = set()
    free = list(range(len(starts)))
    while free and len(masked) < budget:
        word = free[int(rng.integers(len(free)))]
        num_words = 1 + int(np.searchsorted(np.cumsum(lengths), rng.random()))
        taken = 0
        while taken < num_words and word in free and len(masked) < budget:
            masked.update(range(starts[word], ends[word]))
            free.remove(word)
            word, taken = word + 1, taken + 1
    return sorted(masked)


def span_lengths(mean_words: float) -> list[float]:
    """Return p(l) of a random span's length l = 1 .. 10: geometric, cut at 10 words.

    p(l) is proportional to r^l, with r such that the mean is `mean_words`. SpanBERT's
    Geo(0.2), r = 0.8, has mean 3.8.

    Raises:
        ConfigError: the mean is not between 1 and 10.
    """
    if not 1 <= mean_words <= MAX_SPAN_WORDS:
        raise ConfigError(
            f"mean_span_words is {mean_words}; expected 1 to {MAX_SPAN_WORDS}, "
            f"for spans of at most {MAX_SPAN_WORDS} words"
        )
    words = np.arange(1, MAX_SPAN_WORDS + 1)
    low, high = -40.0, 40.0  # log r
    for _ in range(60):
        middle = (low + high) / 2
        if _geometric(middle) @ words < mean_words:
            low = middle
        else:
            high = middle
    return [float(p) for p in _geometric((low + high) / 2)]


def _geometric(log_r: float) -> np.ndarray:
    log_p = np.arange(1, MAX_SPAN_WORDS + 1) * log_r
    p = np.exp(log_p - log_p.max())
    return p / p.sum()
