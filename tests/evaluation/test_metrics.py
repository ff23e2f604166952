"""Normalisation, matches, recall and intervals, in tables of cases."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realm.evaluation.metrics import (
    answer_finder,
    bootstrap_interval,
    compile_pattern,
    exact_match,
    has_answer,
    hits_at_k,
    mean_reciprocal_rank,
    normalize_answer,
    recall_at_k,
    reciprocal_ranks,
    regex_match,
    token_f1,
    wilson_interval,
)
from realm.records import Question


def asking(*answers: str, patterns: tuple[str, ...] = ()) -> Question:
    return Question(id="q", question="who?", answers=answers, answer_patterns=patterns)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The U.S.A.", "usa"),
        ("  A   Tale\tof\nTwo Cities ", "tale of two cities"),
        ("2,000", "2000"),
        ("mother-in-law", "motherinlaw"),  # no space is put back
        ("Theatre, an anthem", "theatre anthem"),  # articles are whole words
        ("the the", ""),
        ("!?", ""),
        ("", ""),
        ("Beyoncé", "beyonce\u0301"),  # accents come apart, they do not go away
        ("Beyonce\u0301", "beyonce\u0301"),
        ("à la carte", "\u0300 la carte"),  # official: "a" of the decomposed "à" is an article
        ("“quoted” \u2013 dash", "“quoted” \u2013 dash"),  # only ASCII punctuation goes
        ("a.n apple", "apple"),  # punctuation goes before articles
        ("ΣΊΣΥΦΟΣ", unicodedata.normalize("NFD", "σίσυφος")),
    ],
)
def test_normalisation_equals_the_official_rules(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


@given(st.text())
def test_normalised_text_holds_no_ascii_punctuation_and_no_double_space(text: str) -> None:
    normalized = normalize_answer(text)
    assert not set(normalized) & set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    assert normalized == " ".join(normalized.split())


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("the United States", ("United States", "USA"), True),
        ("usa", ("United States", "U.S.A."), True),
        ("United States of America", ("United States",), False),
        ("2 , 000", ("2,000",), False),
        ("2000", ("2,000",), True),
        ("Beyonce", ("Beyoncé",), False),
        ("A", ("a",), True),
        ("", ("The",), False),
        ("  ", ("",), False),
        ("x", (), False),
        ("Paris", ("Paris", "Paris"), True),
    ],
)
def test_exact_match_compares_with_every_answer(
    prediction: str, answers: tuple[str, ...], *, right: bool
) -> None:
    assert exact_match(prediction, asking(*answers)) is right


@pytest.mark.parametrize(
    ("prediction", "answers", "f1"),
    [
        ("the cat sat", ("a cat sat",), 1.0),
        ("cat sat down", ("cat sat",), 0.8),
        ("cat", ("dog", "big cat"), 2 / 3),
        ("cat cat", ("cat",), 2 / 3),  # repeated words count as often as both have them
        ("dog", ("cat",), 0.0),
        ("", ("cat",), 0.0),
        ("", ("The",), 0.0),
        ("A", ("The",), 1.0),
        ("A", ("cat",), 0.0),
        ("cat", (), 0.0),
    ],
)
def test_f1_counts_shared_words_with_the_best_answer(
    prediction: str, answers: tuple[str, ...], f1: float
) -> None:
    assert token_f1(prediction, asking(*answers)) == pytest.approx(f1)


@given(st.text(), st.text(min_size=1))
def test_a_prediction_that_matches_exactly_has_f1_one(prediction: str, answer: str) -> None:
    question = asking(answer)
    if exact_match(prediction, question):
        assert token_f1(prediction, question) == 1.0


@pytest.mark.parametrize(
    ("prediction", "patterns", "match", "search"),
    [
        ("Long Island", (r"Long Island|New\s?York",), True, True),
        ("NEWYORK", (r"Long Island|New\s?York",), True, True),
        ("in New York", (r"Long Island|New\s?York",), False, True),  # anchored at the start
        ("New York City", (r"New\s?York",), True, True),  # but not at the end
        ("in\nNew York", (r"^New",), False, True),  # MULTILINE
        ("first\nsecond", (r"first$",), True, True),
        ("1969", (r"1968", r"1969"), True, True),
        ("", (r".*",), False, False),
        (" ", (r".*",), False, False),
        ("x", (), False, False),
        ("(", ("(",), False, False),  # a bad regex fits nothing
        ("a", ("(", "a"), True, True),
    ],
)
def test_regex_match_is_anchored_at_the_start_unless_searching(
    prediction: str, patterns: tuple[str, ...], *, match: bool, search: bool
) -> None:
    assert regex_match(prediction, patterns) is match
    assert regex_match(prediction, patterns, mode="search") is search


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999}", "*", r"\p"])
def test_a_bad_pattern_compiles_to_none(pattern: str) -> None:
    assert compile_pattern(pattern) is None


def test_a_pattern_python_warns_about_still_compiles() -> None:
    regex = compile_pattern("[[a]")
    assert regex is not None
    assert regex.match("[")


@pytest.mark.parametrize(
    ("text", "answers", "found"),
    [
        ("Emma was written by Jane Austen.", ("Jane Austen",), True),
        ("JANE AUSTEN wrote it", ("jane austen",), True),
        ("Jane and Austen", ("Jane Austen",), False),  # consecutive words only
        ("the USSR", ("US",), False),  # whole words only
        ("the US (1776)", ("US",), True),
        ("about 2,000 men", ("2,000",), True),
        ("about 2,000 men", ("2000",), False),  # as DPR: a comma is a word
        ("about 2 , 000 men", ("2,000",), True),
        ("costs $5", ("$",), True),
        ("a cafe", ("café",), False),
        ("un cafe\u0301", ("café",), True),  # composed and decomposed are one
        ("un caf\u00e9", ("caf",), False),  # an accent ends no word
        ("Zu\u200brich", ("Zu rich",), True),  # controls part words, as DPR
        ("anything", ("",), False),
        ("anything", (" ",), False),
        ("", ("x",), False),
        ("a b a c", ("a c",), True),
        ("nothing here", ("x", "here"), True),
        ("no answers", (), False),
        ("ab cd", ("b c",), False),  # the longest word is in it, the words are not
    ],
)
def test_an_answer_is_found_as_consecutive_whole_words(
    text: str, answers: tuple[str, ...], *, found: bool
) -> None:
    assert has_answer(text, asking(*answers)) is found


@pytest.mark.parametrize(
    ("text", "patterns", "found"),
    [
        ("It was in september 2001.", (r"Sept?(ember)?",), True),
        ("first\nlast line", (r"^last",), True),
        ("nothing", (r"Sept",), False),
        ("caf\u00e9", ("cafe\u0301",), True),
        ("a (", ("(",), False),
    ],
)
def test_patterns_are_searched_anywhere_in_the_text(
    text: str, patterns: tuple[str, ...], *, found: bool
) -> None:
    assert has_answer(text, asking(patterns=patterns)) is found


def test_strings_and_patterns_of_one_question_both_count() -> None:
    found = answer_finder(asking("Paris", patterns=(r"Fran\w+",)))
    assert [found(text) for text in ("Paris", "France", "Rome")] == [True, True, False]


_KNOWN = st.characters(max_codepoint=0x1FFFF, exclude_categories=("Cn", "Co", "Cs"))


@given(st.text(_KNOWN, max_size=30), st.text(_KNOWN, min_size=1, max_size=4))
def test_words_are_cut_as_dpr_cuts_them(text: str, answer: str) -> None:
    regex = pytest.importorskip("regex")

    def cut(words: str) -> list[str]:
        pattern = r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]"
        return [w.lower() for w in regex.findall(pattern, unicodedata.normalize("NFD", words))]

    words, wanted = cut(text), cut(answer)
    held = bool(wanted) and any(
        words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1)
    )
    assert has_answer(text, asking(answer)) is held


def test_recall_counts_ranks_up_to_k() -> None:
    ranks = [1, 3, None, 5]
    assert hits_at_k(ranks, 3) == [1.0, 1.0, 0.0, 0.0]
    assert [recall_at_k(ranks, k) for k in (1, 3, 5)] == [0.25, 0.5, 0.75]


def test_reciprocal_rank_is_zero_where_nothing_was_found() -> None:
    assert reciprocal_ranks([1, 4, None]) == [1.0, 0.25, 0.0]
    assert mean_reciprocal_rank([1, 2, None]) == 0.5


def test_an_interval_covers_what_theory_says() -> None:
    values = [1.0] * 300 + [0.0] * 100
    interval = bootstrap_interval(values, samples=2_000, seed=0)
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.75 - half, abs=0.006)
    assert interval.high == pytest.approx(0.75 + half, abs=0.006)


def test_a_wider_level_gives_a_wider_interval() -> None:
    values = np.arange(50.0)
    narrow = bootstrap_interval(values, samples=500, seed=0, level=0.5)
    wide = bootstrap_interval(values, samples=500, seed=0, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_seeds_give_equal_intervals() -> None:
    values = [0.0, 1.0, 1.0, 0.3]
    first, again, other = (bootstrap_interval(values, samples=99, seed=s) for s in (7, 7, 8))
    assert first == again != other


def test_an_interval_drawn_in_pieces_has_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.0] * 30 + [1.0] * 30
    whole = bootstrap_interval(values, samples=400, seed=3)
    monkeypatch.setattr("realm.evaluation.metrics._DRAWS_AT_ONCE", 7 * len(values))
    pieces = bootstrap_interval(values, samples=400, seed=3)
    assert pieces == whole


def test_one_value_is_its_own_interval() -> None:
    interval = bootstrap_interval([0.5], samples=100, seed=0)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([], samples=100, seed=0)


def test_a_share_lies_in_its_interval() -> None:
    """None of 10 began at 1e-17, and 13 of 13 ended below 1."""
    for total in range(1, 100):
        none, every = wilson_interval(0, total), wilson_interval(total, total)
        assert (none.low, every.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (0, 1, 0.0, 0.7935),
        (1, 1, 0.2065, 1.0),
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_a_share_of_few_has_a_wide_interval(
    right: int, total: int, low: float, high: float
) -> None:
    interval = wilson_interval(right, total)
    assert interval.mean == right / total
    assert (interval.low, interval.high) == (
        pytest.approx(low, abs=1e-4),
        pytest.approx(high, abs=1e-4),
    )
