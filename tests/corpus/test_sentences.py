"""Sentences: every character once, in order, in linear time."""

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sentencex import get_sentence_boundaries

from realm.corpus.sentences import is_inside_character, sentence_spans

TEXT = st.text(
    st.sampled_from("ab A.?!\n\r\t\x0b\u2028日。é\u0301👩\u200d👧\U0001f3fe🇩🇪\u00a0"), max_size=80
)


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, "en")]


def test_sentences_end_at_full_stops_but_not_at_abbreviations() -> None:
    text = "Dr. Smith was born in the U.S. in 1950. He died e.g. in Rome. "
    assert sentences(text) == [
        "Dr. Smith was born in the U.S. in 1950.",
        "He died e.g. in Rome.",
    ]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n\n\n", " \n ", "\u2028"])
def test_line_breaks_end_a_sentence(line_break: str) -> None:
    assert sentences(f"A heading{line_break}then text") == ["A heading", "then text"]


@given(TEXT)
@example("")
@example("\n \n")
def test_every_character_is_in_one_sentence_in_order(text: str) -> None:
    spans = list(sentence_spans(text, "en"))
    covered = [at for start, end in spans for at in range(start, end)]
    assert covered == sorted(set(covered))
    assert {at for at in range(len(text)) if not text[at].isspace()} <= set(covered)
    for start, end in spans:
        assert text[start:end] == text[start:end].strip() != ""


def test_a_long_paragraph_has_the_same_sentences_as_short_ones() -> None:
    expected = [f"Sentence number {number} is here." for number in range(2_000)]
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, "日本。" * 5_000, "()" * 10**5, "e\u0301" * 10**5, "\u200b" * 10**6],
    ids=["letters", "chinese", "brackets", "accents", "invisible"],
)
def test_a_long_line_takes_linear_time(text: str) -> None:
    started = time.monotonic()
    assert sum(end - start for start, end in sentence_spans(text, "en")) == len(text)
    assert time.monotonic() - started < 20  # quadratic: minutes


def test_a_sentence_at_the_end_of_a_window_is_read_with_what_follows() -> None:
    """A full stop inside quotation marks ends no sentence, once the closing mark is seen."""
    start = "Some words to fill the window. " * 63
    assert len(start) < 2_000 < len(start) + 60
    quoted = 'He said "This is a sentence. This is another one." and went away.'
    assert sentences(start + quoted + " Then it was over.")[-2] == quoted


def test_a_sentence_nearly_as_long_as_a_window_ends_where_it_ends() -> None:
    """It was joined with the beginning of the next one, up to the end of the window."""
    for size in (1_790, 1_810, 1_900, 1_990):
        long = "word " * (size // 5 - 1) + "last."
        text = f"{long} A short one follows. {'And a longer one. ' * 20}"
        assert sentences(text)[:2] == [long, "A short one follows."]


def test_no_sentence_starts_inside_a_character() -> None:
    assert sentences("Great!\ufe0f Next one. Yes.") == ["Great!\ufe0f Next one.", "Yes."]


def test_the_splitter_sees_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with the square of the characters outside ASCII: 17 s for 200,000."""
    seen: list[int] = []

    def find(language: str, text: str) -> list[dict[str, Any]]:
        assert language == "ja"
        seen.append(len(text))
        return get_sentence_boundaries(language, text)

    monkeypatch.setattr("realm.corpus.sentences._find", find)
    text = "日本。" * 2_000
    assert len(list(sentence_spans(text, "ja"))) == 2_000
    assert max(seen) <= 2_000
    assert sum(seen) < 1.5 * len(text)


@pytest.mark.parametrize("character", ["e\u0301", "👩\u200d👧", "👍\U0001f3fe", "🇩🇪", "❤\ufe0f"])
def test_cuts_inside_a_character_are_recognised(character: str) -> None:
    text = f"a{character}b"
    inside = [at for at in range(len(text) + 1) if is_inside_character(text, at)]
    assert inside == list(range(2, 1 + len(character)))


@pytest.mark.parametrize("space", ["\xa0", "\u202f", "\u3000", "\u2009 "])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_an_initial_and_a_wide_space_before_a_period_are_read(space: str, language: str) -> None:
    """As in French typography; sentencex ended in a panic."""
    text = f"It is of kind A{space}. Nobody knew why."
    spans = list(sentence_spans(text, language))
    read = "".join(text[start:end] for start, end in spans)
    assert read.replace(" ", "") == text.replace(" ", "")
