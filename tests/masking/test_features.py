"""What the trained tagger sees of words."""

import pytest

from realm.masking.trained.features import (
    NUM_BUCKETS,
    NUM_PIECES,
    SHAPES,
    cut_words,
    describe_words,
    flags_of,
    shape_of,
)
from realm.tokenizer import WordpieceTokenizer


def test_words_are_runs_of_letters_and_digits_or_single_marks() -> None:
    text = "Zoë's well-known  B2_b!"
    words = [text[start:end] for start, end in cut_words(text)]
    assert words == ["Zoë", "'", "s", "well", "-", "known", "B2", "_", "b", "!"]


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("river", "lower"),
        ("River", "title"),
        ("NATO", "upper"),
        ("A", "capital"),
        ("a", "letter"),
        ("McKay", "camel"),
        ("iPod", "mixed"),
        ("7", "digit"),
        ("12", "digits2"),
        ("747", "digits3"),
        ("1990", "digits4"),
        ("12345", "digits"),
        ("B2", "alnum"),
        ("北京", "uncased"),
        ("-", "mark"),
    ],
)
def test_every_word_has_one_shape(word: str, shape: str) -> None:
    assert shape_of(word) == shape
    assert shape in SHAPES


def test_flags_tell_spaces_the_first_word_and_the_case_of_the_sentence() -> None:
    def flags(text: str) -> list[int]:
        return flags_of(text, cut_words(text))

    assert flags("we met (in Bonn)") == [3, 1, 1, 0, 1, 0]
    assert flags("The New Bridge") == [8 + 3, 8 + 1, 8 + 1]
    assert flags("THE NEW BRIDGE") == [12 + 3, 12 + 1, 12 + 1]
    assert flags("The New bridge") == [4 + 3, 4 + 1, 4 + 1]
    assert flags("") == []


def test_a_long_word_keeps_its_first_wordpieces_and_its_last(tokenizer: WordpieceTokenizer) -> None:
    features = describe_words(["the", "abcdefgh"], tokenizer)
    whole = tokenizer.encode("abcdefgh").ids
    assert features.pieces[1].tolist() == [*whole[: NUM_PIECES - 1], whole[-1]]
    assert features.pieces[0].tolist()[1:] == [0] * (NUM_PIECES - 1)


def test_affixes_differ_by_case_and_only_where_the_words_do(tokenizer: WordpieceTokenizer) -> None:
    lower, title, other = describe_words(["ending", "Ending", "bending"], tokenizer).affixes
    assert (lower[:4] != title[:4]).all()
    assert (lower[4:] == title[4:]).all()
    assert (lower[4:] == other[4:]).all()
    assert (lower[0], lower[1]) != (other[0], other[1])
    assert lower.max() < NUM_BUCKETS


def test_a_short_word_and_a_mark_have_no_affixes_that_repeat_them(
    tokenizer: WordpieceTokenizer,
) -> None:
    short, mark = describe_words(["of", "!"], tokenizer).affixes
    assert short.tolist()[1:] == [0] * 6
    assert short[0] > 0
    assert mark.tolist() == [0] * 7
