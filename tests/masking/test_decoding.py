"""The best sequence of tags, against trying them all."""

import itertools

import numpy as np
import pytest

from realm.masking.trained.decoding import best_tags
from realm.masking.trained.predictor import stretches


def is_well_formed(tags: tuple[int, ...]) -> bool:
    before = (0, *tags)
    return all(
        tag == 0 or tag % 2 == 1 or last in {tag, tag - 1}
        for last, tag in zip(before, tags, strict=False)
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_well_formed_sequence_scores_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [4, 1, 3]
    scores = rng.normal(size=(3, 4, 5)).astype(np.float32)
    found = best_tags(scores, lengths)
    for row, length in enumerate(lengths):
        candidates = filter(is_well_formed, itertools.product(range(5), repeat=length))
        best = max(
            candidates, key=lambda tags: sum(scores[row, i, tag] for i, tag in enumerate(tags))
        )
        assert tuple(found[row, :length]) == best
        assert not found[row, length:].any()


def test_an_inside_needs_its_own_beginning() -> None:
    scores = np.full((1, 2, 5), -9.0, np.float32)
    scores[0, 0, [0, 3]] = -0.1, -3.0
    scores[0, 1, [2, 4]] = -0.1, -1.0
    assert best_tags(scores, [2]).tolist() == [[3, 4]]


def test_tags_become_stretches_of_words() -> None:
    assert list(stretches([1, 2, 1, 0, 3, 4, 4], ["A", "B"])) == [
        (0, 1, "A"),
        (2, 2, "A"),
        (4, 6, "B"),
    ]
    assert list(stretches([0, 0], ["A"])) == []
