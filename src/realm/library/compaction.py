"""Which segments are to be joined, so that there are never many and little is written twice."""

import math

from realm.library.edition import Edition

SMALLEST = 64
"""Passages of a segment of the first size; each further size holds FACTOR times as many."""
FACTOR = 8
"""Segments of one size that are joined into one of the next."""
LARGEST = 16_384
"""Passages beyond which a segment is joined with no other."""


def segments_to_join(edition: Edition) -> list[int]:
    """Return the numbers of segments to write anew as one; none where all is well.

    Those are FACTOR segments of like size, or one that holds less than half of its passages still.
    A passage is written some log(passages) / log(FACTOR) times in its life.
    """
    by_size: dict[int, list[int]] = {}
    for number, segment in enumerate(edition.segments):
        num_alive = int(segment.counts[edition.there[number]].sum())
        if num_alive * 2 < segment.num_passages:
            return [number]
        if num_alive < LARGEST:
            by_size.setdefault(_size(num_alive), []).append(number)
    return next((some for some in by_size.values() if len(some) >= FACTOR), [])


def _size(num_passages: int) -> int:
    return max(0, math.ceil(math.log(max(1, num_passages) / SMALLEST, FACTOR)))
