"""Our normalisers and matches against tables of what the official scripts return.

orqa: what ORQA, REALM and NQ-open are scored with; squad: SQuAD's evaluation script, 1.1 and 2.0.
The expected values were worked out from the scripts' rules by hand.
"""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realm.evaluation.metrics import Rules, exact_match, normalize_answer, regex_match, token_f1
from realm.records import Question

CASES = [
    # text, under orqa, under squad (None: the same)
    ("The Beatles", "beatles", None),
    ("the", "", None),
    ("An Apple a Day", "apple day", None),
    ("Theatre Athens Anna", "theatre athens anna", None),  # articles are whole words
    ("a.b.c.", "abc", None),  # punctuation goes first, so that no article is left behind
    ("vitamin A", "vitamin", None),  # every lone "a" is an article
    ("A-ha", "aha", None),
    ("A ha", "ha", None),
    ("rock'n'roll", "rocknroll", None),
    ("rock 'n' roll", "rock n roll", None),
    ("$1,000.50", "100050", None),
    ("50%", "50", None),
    ("C++", "c", None),
    ("#@!", "", None),
    ("new\u00a0york\t\ncity", "new york city", None),  # every white space of Unicode
    ("“The Raven”", "“ raven”", None),  # quotes of Unicode stay, the article between goes
    ("1914\u20131918", "1914\u20131918", None),  # so does the dash
    ("It\u2019s", "it\u2019s", None),
    ("the\u2019s", "\u2019s", None),  # a quote of Unicode ends the word "the"
    ("a_b", "ab", None),
    ("_the_", "", None),
    ("İstanbul", "i\u0307stanbul", None),  # one letter becomes two in lower case
    ("STRASSE straße", "strasse straße", None),  # lower case, not case folding
    ("Zürich", "zu\u0308rich", "zürich"),
    ("Zu\u0308rich", "zu\u0308rich", "zu\u0308rich"),
    ("à la carte", "\u0300 la carte", "à la carte"),  # decomposed, its "a" is an article
    ("ﬁ", "ﬁ", None),  # compatibility forms stay: NFD, not NFKD
    ("²", "²", None),
]


@pytest.mark.parametrize(("text", "orqa", "squad"), CASES)
def test_normalisers_equal_the_official_ones(text: str, orqa: str, squad: str | None) -> None:
    assert normalize_answer(text) == normalize_answer(text, "orqa") == orqa
    assert normalize_answer(text, "squad") == (orqa if squad is None else squad)


@given(st.text())
def test_the_two_differ_by_the_decomposition_alone(text: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert normalize_answer(text, "orqa") == normalize_answer(decomposed, "squad")


@pytest.mark.parametrize(
    ("prediction", "answer", "orqa", "squad"),
    [
        ("Zu\u0308rich", "Zürich", True, False),  # one letter or two code points
        ("Zurich", "Zürich", False, False),
        ("the Zürich.", "Zürich", True, True),
        ("in 1914", "1914", False, False),
        ("1914-1918", "1914\u20131918", False, False),
        ("The Who", "Who", True, True),
        ("A", "The", True, True),  # two answers of which nothing is left are equal
    ],
)
def test_exact_match_under_both(prediction: str, answer: str, *, orqa: bool, squad: bool) -> None:
    question = Question(id="q", question="?", answers=(answer,))
    expected: dict[Rules, bool] = {"orqa": orqa, "squad": squad}
    for rules, right in expected.items():
        assert exact_match(prediction, question, rules) is right


@pytest.mark.parametrize(
    ("prediction", "answers", "f1"),
    [
        ("the cat on the mat", ("cat on mat",), 1.0),
        ("cat mat", ("cat on mat",), 2 * 1.0 * (2 / 3) / (1.0 + 2 / 3)),
        ("cat cat mat", ("cat mat mat",), 2 / 3),  # the common words as a bag: cat, mat
        ("cat", ("dog", "cat sat", "a cat sat on it"), 2 / 3),  # the best answer counts
        ("New York-based", ("New York",), 1 / 2),  # yorkbased is another word
        ("dog", ("cat",), 0.0),
        ("the", ("cat",), 0.0),
        ("the", ("a",), 1.0),  # SQuAD 2.0: no word on both sides
    ],
)
def test_f1_equals_squads(prediction: str, answers: tuple[str, ...], f1: float) -> None:
    question = Question(id="q", question="?", answers=answers)
    assert token_f1(prediction, question, "squad") == pytest.approx(f1)
    assert token_f1(prediction, question, "orqa") == pytest.approx(f1)


def test_f1_uses_the_rules_it_is_told() -> None:
    question = Question(id="q", question="?", answers=("Zürich airport",))
    assert token_f1("Zu\u0308rich airport", question, "orqa") == 1.0
    assert token_f1("Zu\u0308rich airport", question, "squad") == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("prediction", "pattern", "match", "search"),
    [
        ("Fernie, Alpine", r"fernie", True, True),  # case is ignored; free at the end
        ("the Fernie", r"fernie", False, True),  # anchored at the start of the answer
        ("the Fernie", r"(the )?fernie", True, True),
        ("the\nFernie", r"^fernie$", False, True),  # ^ at every line, but match starts at 0
        ("Fernie\nthe", r"^fernie$", True, True),  # $ ends a line
        ("ÉTÉ", r"été", True, True),  # case of Unicode
        ("e\u0301te", r"été", False, False),  # not normalised at all
        ("St. Louis", r"St\. Louis", True, True),  # so that punctuation counts
        ("St Louis", r"St\. Louis", False, False),
        ("1914", r"19(14|15)\b", True, True),
        ("19145", r"19(14|15)\b", False, False),
        ("anything", r"", True, True),  # an empty pattern fits
        ("anything", r"(", False, False),  # a bad one does not
    ],
)
def test_patterns_match_as_released(
    prediction: str, pattern: str, *, match: bool, search: bool
) -> None:
    assert regex_match(prediction, [pattern]) is match
    assert regex_match(prediction, [pattern], "search") is search
