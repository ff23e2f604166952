"""Examples and their candidates as the tensors that embedder and encoder read."""

import dataclasses
from collections.abc import Callable

import pytest

from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch, passage_sequence
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW

LENGTHS = Lengths(query=40, passage=64, joint=96)
ROWS = [[NULL_ROW, 7, 3], [NULL_ROW, 3, MISSING_ROW]]


@pytest.fixture
def examples(
    store: PassageStore, make_example: Callable[..., MaskedExample]
) -> list[MaskedExample]:
    return [make_example(store, 0, "1607", "Toulouse"), make_example(store, 13, "Cantor")]


def test_each_passage_is_embedded_once_however_many_ask_for_it(
    store: PassageStore, examples: list[MaskedExample]
) -> None:
    batch = candidate_batch(store, examples, ROWS, LENGTHS)
    tokenizer = store.tokenizer
    expected = [passage_sequence(store, tokenizer, row, 64) for row in (NULL_ROW, 3, 7)]
    assert batch.passages == expected
    assert batch.passage_of.tolist() == [[0, 2, 1], [0, 1, 0]]


def test_a_missing_candidate_gets_no_probability_and_nothing_to_read(
    store: PassageStore, examples: list[MaskedExample]
) -> None:
    batch = candidate_batch(store, examples, ROWS, LENGTHS)
    assert batch.is_real.tolist() == [[True, True, True], [True, True, False]]
    assert batch.joint[5] == batch.joint[3]  # the null passage's


def test_joint_inputs_stand_candidate_by_candidate(
    store: PassageStore, examples: list[MaskedExample]
) -> None:
    batch = candidate_batch(store, examples, ROWS, LENGTHS)
    tokenizer = store.tokenizer
    assert len(batch.joint) == 6
    for number, chosen in enumerate(ROWS):
        for place, row in enumerate(chosen):
            body = store.wordpieces(row).tolist() if row >= 0 else []
            expected = tokenizer.joint_input(examples[number].query_ids, body, 96)
            assert batch.joint[number * 3 + place] == expected
    titled = passage_sequence(store, tokenizer, 3, 64)[0]
    assert store.title_wordpieces(3).tolist() == titled[1 : 1 + len(store.title_wordpieces(3))]


def test_masks_point_at_mask_and_padding_is_marked(
    store: PassageStore, examples: list[MaskedExample]
) -> None:
    batch = candidate_batch(store, examples, ROWS, LENGTHS)
    assert batch.mask_is_real.tolist() == [[True, True], [True, False]]
    for number, example in enumerate(examples):
        for place in range(3):
            ids = batch.joint[number * 3 + place][0]
            found = [i for i, piece in enumerate(ids) if piece == store.tokenizer.mask_id]
            count = len(example.positions)
            assert batch.mask_positions[number, :count].tolist() == found
        assert tuple(batch.targets[number, :count].tolist()) == example.target_ids


def test_long_passages_are_cut_and_the_query_is_not(
    store: PassageStore, examples: list[MaskedExample]
) -> None:
    short = Lengths(query=40, passage=16, joint=24)
    batch = candidate_batch(store, examples, ROWS, short)
    assert max(len(ids) for ids, _ in batch.passages) == 16
    assert max(len(ids) for ids, _ in batch.joint) == 24
    for number, example in enumerate(examples):
        assert batch.joint[number * 3 + 1][0][1 : 1 + len(example.query_ids)] == list(
            example.query_ids
        )


@pytest.mark.parametrize(
    "lengths", [Lengths(query=14, passage=64, joint=96), Lengths(query=40, passage=64, joint=15)]
)
def test_a_mask_beyond_the_cut_is_refused_not_misread(
    lengths: Lengths, store: PassageStore, examples: list[MaskedExample]
) -> None:
    """The encoder would be asked for the wordpiece at a [SEP] or inside the passage."""
    assert examples[0].positions[-1] == 12
    with pytest.raises(ConfigError, match=r"\[MASK\] at wordpiece 13 .* cut to 12"):
        candidate_batch(store, examples, ROWS, lengths)
    fits = dataclasses.replace(
        examples[0], positions=examples[0].positions[:1], target_ids=examples[0].target_ids[:1]
    )
    candidate_batch(store, [fits], ROWS[:1], lengths)


def test_wordpieces_are_counted_without_padding(
    store: PassageStore, examples: list[MaskedExample]
) -> None:
    batch = candidate_batch(store, examples, ROWS, LENGTHS)
    parts = [*batch.queries, *batch.passages, *batch.joint]
    assert batch.num_tokens == sum(len(ids) for ids, _ in parts)
