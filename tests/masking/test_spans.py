"""The three masking schemes on one sentence."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.errors import ConfigError
from realm.masking.spans import (
    apply_masks,
    salient_positions,
    span_lengths,
    span_positions,
    token_positions,
)
from realm.tokenizer import WordpieceTokenizer

MASK = 4
TEXTS = st.text(
    alphabet=st.sampled_from("abcdz ABC,.'-É\u0301ßłø世🙂Ω1９"),  # noqa: RUF001
    min_size=1,
    max_size=40,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None)
@given(text=TEXTS, edges=st.tuples(st.integers(0, 39), st.integers(1, 40)))
def test_masked_pieces_are_exactly_those_that_share_a_character_with_the_span(
    text: str, edges: tuple[int, int], tokenizer: WordpieceTokenizer
) -> None:
    start, end = min(edges), max(edges) + 1
    pieces = tokenizer.encode(text)
    masked = salient_positions(pieces.offsets, start, end)
    for position, (first, last) in enumerate(pieces.offsets):
        shared = set(range(first, last)) & set(range(start, end))
        assert (position in masked) == bool(shared)


@settings(deadline=None)
@given(word=st.sampled_from(["Éclair", "Łódź", "ÅNGSTRÖM", "naïveté", "İzmir", "Ⅷ Henry"]))
def test_case_and_accents_never_lose_a_piece_of_the_span(
    word: str, tokenizer: WordpieceTokenizer
) -> None:
    text = f"the city of {word} in the land"
    start = text.index(word)
    pieces = tokenizer.encode(text)
    masked = salient_positions(pieces.offsets, start, start + len(word))
    before = len(tokenizer.encode(text[:start]).ids)
    after = len(tokenizer.encode(text[start + len(word) :]).ids)
    assert masked == list(range(before, len(pieces.ids) - after))


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(5, 99), min_size=1, max_size=30),
    max_masks=st.integers(1, 12),
    data=st.data(),
)
def test_unmasked_pieces_stay_and_targets_restore_the_counted_ones(
    ids: list[int], max_masks: int, data: st.DataObject
) -> None:
    masked = sorted(data.draw(st.sets(st.integers(0, len(ids) - 1), min_size=1)))
    pieces = apply_masks(ids, masked, mask_id=MASK, max_masks=max_masks)
    assert [p for p, number in enumerate(pieces.query_ids) if number == MASK] == masked
    assert pieces.positions == tuple(masked[:max_masks])
    restored = list(pieces.query_ids)
    for position, target in zip(pieces.positions, pieces.target_ids, strict=True):
        restored[position] = target
    if len(masked) <= max_masks:
        assert restored == ids
    else:
        assert [p for p, number in enumerate(restored) if number == MASK] == masked[max_masks:]


def test_token_masking_hides_the_asked_share_and_at_least_one_piece() -> None:
    counts = [len(token_positions(200, mask_rate=0.15, rng=rng(i))) for i in range(200)]
    assert np.mean(counts) == pytest.approx(30, rel=0.05)
    assert all(len(token_positions(2, mask_rate=0.01, rng=rng(i))) >= 1 for i in range(50))
    assert token_positions(50, mask_rate=0.2, rng=rng(7)) == token_positions(
        50, mask_rate=0.2, rng=rng(7)
    )


def test_span_lengths_are_geometric_with_the_asked_mean_and_at_most_ten_words() -> None:
    lengths = span_lengths(3.8)
    assert len(lengths) == 10
    assert sum(lengths) == pytest.approx(1)
    assert sum(p * n for n, p in enumerate(lengths, start=1)) == pytest.approx(3.8)
    ratios = [b / a for a, b in pairwise(lengths)]
    assert ratios == pytest.approx([ratios[0]] * 9)
    assert ratios[0] == pytest.approx(0.8, abs=0.01)  # SpanBERT's Geo(0.2)


@pytest.mark.parametrize("mean", [1.0, 5.5, 10.0])
def test_every_mean_from_one_to_ten_words_is_possible(mean: float) -> None:
    lengths = span_lengths(mean)
    assert sum(p * n for n, p in enumerate(lengths, start=1)) == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("mean", [0.5, 11.0])
def test_a_mean_that_no_span_can_have_is_refused(mean: float) -> None:
    with pytest.raises(ConfigError, match="mean_span_words"):
        span_lengths(mean)


@settings(deadline=None)
@given(
    continues=st.lists(st.booleans(), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    mask_rate=st.floats(0.05, 0.9),
)
def test_span_masking_hides_whole_words_until_the_budget_is_covered(
    continues: list[bool], seed: int, mask_rate: float
) -> None:
    lengths = span_lengths(3.8)
    masked = span_positions(continues, mask_rate=mask_rate, lengths=lengths, rng=rng(seed))
    budget = max(1, round(mask_rate * len(continues)))
    assert len(masked) >= budget
    assert masked == sorted(set(masked))
    for position in range(1, len(continues)):
        if continues[position]:
            assert (position in masked) == (position - 1 in masked)
    again = span_positions(continues, mask_rate=mask_rate, lengths=lengths, rng=rng(seed))
    assert masked == again


def test_span_masking_hides_runs_of_words_not_scattered_ones() -> None:
    runs = []
    for seed in range(300):
        masked = span_positions(
            [False] * 100, mask_rate=0.15, lengths=span_lengths(3.8), rng=rng(seed)
        )
        runs.append(1 + sum(b - a > 1 for a, b in pairwise(masked)))
    assert np.mean(runs) < 6  # 15 scattered words would make about 13
