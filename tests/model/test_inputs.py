"""Sequences are grouped by length under a token budget, each exactly once."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from realm.model.inputs import PADDING_SHARE, PADDING_TOKENS, group_by_length, in_packs, pad

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_each_index_stands_in_exactly_one_group(lengths: list[int], batch_tokens: int) -> None:
    groups = group_by_length(lengths, batch_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(groups)


@given(LENGTHS, st.integers(1, 200))
def test_a_padded_group_keeps_the_budget_unless_it_is_a_single_sequence(
    lengths: list[int], batch_tokens: int
) -> None:
    for group in group_by_length(lengths, batch_tokens):
        padded = max(lengths[index] for index in group) * len(group)
        assert padded <= batch_tokens or len(group) == 1


@given(LENGTHS, st.integers(1, 200))
def test_sequences_of_like_length_stand_together(lengths: list[int], batch_tokens: int) -> None:
    order = [lengths[i] for group in group_by_length(lengths, batch_tokens) for i in group]
    assert order == sorted(lengths, reverse=True)


@given(LENGTHS, st.integers(1, 200))
def test_no_group_could_take_the_next_sequence(lengths: list[int], batch_tokens: int) -> None:
    """It would be more than the budget, or too much of it padding."""
    groups = group_by_length(lengths, batch_tokens)
    for group, following in itertools.pairwise(groups):
        taken = [lengths[i] for i in (*group, following[0])]
        size = max(taken) * len(taken)
        padding = size - sum(taken)
        assert size > batch_tokens or padding > max(PADDING_TOKENS, PADDING_SHARE * size)


@given(LENGTHS, st.integers(1, 200))
def test_a_group_holds_little_padding(lengths: list[int], batch_tokens: int) -> None:
    for group in group_by_length(lengths, batch_tokens):
        held = [lengths[i] for i in group]
        size = max(held) * len(held)
        assert size - sum(held) <= max(PADDING_TOKENS, PADDING_SHARE * size)


def test_padding_is_marked_and_filled_with_the_pad_id() -> None:
    inputs = pad([([5, 6, 7], [0, 0, 1]), ([8], [1])], pad_id=9)
    assert inputs.ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert inputs.segments.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert inputs.token_is_real.tolist() == [[True] * 3, [True, False, False]]
    assert inputs.ids.dtype == torch.long


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 50))
def test_packs_are_consecutive_and_as_full_as_the_budget_allows(
    lengths: list[int], batch_tokens: int
) -> None:
    packs = list(in_packs(lengths, batch_tokens))
    assert [number for one in packs for number in one] == list(range(len(lengths)))
    for one in packs:
        assert len(one) == 1 or sum(lengths[number] for number in one) <= batch_tokens
    for one, after in itertools.pairwise(packs):
        assert sum(lengths[number] for number in one) + lengths[after[0]] > batch_tokens
