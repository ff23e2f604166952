"""A user's own sentence with [MASK] marks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.errors import MaskingError
from realm.masking.cloze import cloze
from realm.tokenizer import WordpieceTokenizer


def test_the_answer_decides_how_many_masks_a_blank_takes(tokenizer: WordpieceTokenizer) -> None:
    sentence = cloze("The city of [MASK] is in Asia.", tokenizer, query_wordpieces=96)
    filled = sentence.with_answers(["Bonn"])
    assert tokenizer.decode(filled.query_ids) == (
        "the city of [MASK] [MASK] [MASK] [MASK] is in asia ."
    )
    assert filled.positions == (3, 4, 5, 6)
    assert list(filled.target_ids) == tokenizer.encode("bonn").ids


def test_a_filled_cloze_equals_the_sentence_as_it_would_be_masked(
    tokenizer: WordpieceTokenizer,
) -> None:
    filled = cloze("In [MASK], a city.", tokenizer, query_wordpieces=96).with_answers(["Bonn"])
    restored = list(filled.query_ids)
    for position, target in zip(filled.positions, filled.target_ids, strict=True):
        restored[position] = target
    assert restored == tokenizer.encode("In Bonn, a city.").ids


def test_marks_side_by_side_are_one_blank(tokenizer: WordpieceTokenizer) -> None:
    sentence = cloze("In [MASK] [MASK][MASK] was [MASK].", tokenizer, query_wordpieces=96)
    assert sentence.num_blanks == 2
    assert sentence.num_marks == (3, 1)
    assert sentence.with_masks().positions == (1, 2, 3, 5)
    assert sentence.with_masks([1, 2]).positions == (1, 3, 4)
    filled = sentence.with_answers(["the city", "a river"])
    assert tokenizer.decode(filled.target_ids) == "the city a river"
    assert set(filled.query_ids[p] for p in filled.positions) == {tokenizer.mask_id}  # noqa: C401


def test_a_mark_at_the_start_or_the_end_is_a_blank_too(tokenizer: WordpieceTokenizer) -> None:
    assert cloze("[MASK] is a city", tokenizer, query_wordpieces=9).with_masks().positions == (0,)
    assert cloze("a city is [MASK]", tokenizer, query_wordpieces=9).with_masks().positions == (3,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The city of Bonn.", "found no \\[MASK\\]"),
        ("The city of [mask].", "found no \\[MASK\\]"),
        ("", "found no \\[MASK\\]"),
        ("[MASK]", "nothing but \\[MASK\\]"),
        (" [MASK] [MASK] ", "nothing but \\[MASK\\]"),
        ("the river and the land [MASK] the river", "Shorten the sentence"),
    ],
)
def test_a_sentence_that_is_no_cloze_is_refused(
    text: str, message: str, tokenizer: WordpieceTokenizer
) -> None:
    with pytest.raises(MaskingError, match=message):
        cloze(text, tokenizer, query_wordpieces=9)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "found 0 answers for 1 blank in"),
        (["a", "the"], "found 2 answers for 1 blank in"),
        (["  "], "at least one word"),
        (["brandenburg and bonn"], "answers included"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    answers: list[str], message: str, tokenizer: WordpieceTokenizer
) -> None:
    sentence = cloze("The city of [MASK].", tokenizer, query_wordpieces=12)
    with pytest.raises(MaskingError, match=message):
        sentence.with_answers(answers)


@pytest.mark.parametrize("numbers", [[], [0], [1, 1]])
def test_numbers_of_masks_that_do_not_fit_are_refused(
    numbers: list[int], tokenizer: WordpieceTokenizer
) -> None:
    sentence = cloze("The city of [MASK].", tokenizer, query_wordpieces=12)
    with pytest.raises(MaskingError, match="at least 1"):
        sentence.with_masks(numbers)


@settings(deadline=None)
@given(
    before=st.text(max_size=20), after=st.text(max_size=20), answer=st.sampled_from(["a", "Łódź"])
)
def test_positions_point_at_the_masks_in_any_text(
    before: str, after: str, answer: str, tokenizer: WordpieceTokenizer
) -> None:
    sentence = cloze(f"the {before}[MASK]{after}", tokenizer, query_wordpieces=96)
    filled = sentence.with_answers([answer])
    marks = [i for i, n in enumerate(filled.query_ids) if n == tokenizer.mask_id]
    assert tuple(marks) == filled.positions
    assert list(filled.target_ids) == tokenizer.encode(answer).ids
