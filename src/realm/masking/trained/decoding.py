"""Scores of BIO tags -> the best sequence in which every inside follows its own kind."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def best_tags(
    scores: Float[np.ndarray, "sentences words tags"], lengths: Sequence[int]
) -> Int[np.ndarray, "sentences words"]:
    """Return the tags with the largest sum of scores that no inside without a beginning breaks.

    Viterbi's algorithm for all sentences at once. Tag 0 is outside; 1 + 2 i begins label i;
    2 + 2 i goes on, and may only follow 1 + 2 i or itself.

    Args:
        scores: Log-probability of each tag, or anything that differs by a constant from it.
        lengths: Words of each sentence; tags behind the end are 0.
    """
    num_sentences, longest, num_tags = scores.shape
    forbidden = np.where(_may_follow(num_tags), 0.0, -np.inf).astype(scores.dtype)
    ends = np.asarray(lengths)
    best = scores[:, 0] + forbidden[0]
    came_from = np.zeros((num_sentences, longest, num_tags), np.int64)
    for place in range(1, longest):
        reached = best[:, :, None] + forbidden
        came_from[:, place] = reached.argmax(axis=1)
        stepped = reached.max(axis=1) + scores[:, place]
        best = np.where((place < ends)[:, None], stepped, best)
    tags = np.zeros((num_sentences, longest), np.int64)
    rows = np.arange(num_sentences)
    current = best.argmax(axis=1)
    for place in range(longest - 1, -1, -1):
        inside = place < ends
        tags[inside, place] = current[inside]
        current = np.where(inside, came_from[rows, place, current], current)
    return tags


def _may_follow(num_tags: int) -> Bool[np.ndarray, "before after"]:
    """Whether a tag may stand behind another; a sentence begins as if behind an outside."""
    allowed = np.ones((num_tags, num_tags), bool)
    for inside in range(2, num_tags, 2):
        allowed[:, inside] = False
        allowed[[inside - 1, inside], inside] = True
    return allowed
