"""Where answers stand: RE2's quick look, Python's regex and the wordpieces agree."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.evaluation.metrics import has_answer
from realm.records import Question
from realm.retrieval import matching
from realm.retrieval.matching import answer_spans, holds_answer, wordpiece_spans


class Texts(PassageStore):
    """A passage store as far as matching reads it."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.lines = list(texts)
        self.read = []

    def __len__(self) -> int:
        return len(self.lines)

    def text(self, row: int) -> str:
        """Note which row is read."""
        self.read.append(row)
        return self.lines[row]

    def text_column(self) -> pa.ChunkedArray:
        """Return all texts."""
        return pa.chunked_array([pa.array(self.lines, pa.large_string())])


def asking(*answers: str, patterns: Sequence[str] = ()) -> Question:
    return Question(id="q", question="?", answers=answers, answer_patterns=tuple(patterns))


def found(text: str, question: Question) -> list[str]:
    return [text[start:end] for start, end in answer_spans(text, question)]


def held(texts: Sequence[str], question: Question) -> list[bool]:
    """Return `holds_answer` of each text, which must agree with `answer_spans`."""
    store = Texts(texts)
    result = holds_answer(store, range(len(store)), question).tolist()
    assert result == [bool(answer_spans(text, question)) for text in texts]
    return result


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("The US and the USSR.", "US", ["US"]),
        ("the us", "US", ["us"]),
        ("USSR", "US", []),
        ("_US_", "US", []),
        ("US2", "US", []),
        ("New\n  York, New\u00a0York, NewYork", "New York", ["New\n  York", "New\u00a0York"]),
        ("C++ and C+", "C++", ["C++"]),
        ("(U.S.A.)", "U.S.A.", ["U.S.A."]),
        ("UXSYA", "U.S.A", []),
        ("1,000 and 11,000", "1,000", ["1,000"]),
        ("\u00e9cole, \u00c9COLE, \u00e9coles", "\u00c9cole", ["\u00e9cole", "\u00c9COLE"]),
        ("\u6771\u4eac\u90fd", "\u6771\u4eac", []),
        ("\u6771\u4eac", "\u6771\u4eac", ["\u6771\u4eac"]),
        ("\u0130stanbul and istanbul", "Istanbul", ["\u0130stanbul", "istanbul"]),
        ("a \u212aelvin or a kelvin", "Kelvin", ["\u212aelvin", "kelvin"]),
        ("stra\u00dfe", "strasse", []),
        ("100 % sure", "100 %", ["100 %"]),
        ("anything", " ", []),
        ("the end", "end", ["end"]),
    ],
)
def test_answers_are_whole_words_whatever_their_case(
    text: str, answer: str, expected: list[str]
) -> None:
    assert found(text, asking(answer)) == expected
    assert held([text, "nothing here"], asking(answer)) == [bool(expected), False]


def test_every_occurrence_of_every_answer_is_found() -> None:
    """Shorter answers inside longer ones too: the reader would be punished for them."""
    question = asking("May 1990", "1990", "1990 in Rome")
    assert found("In May 1990 in Rome, 1990.", question) == [
        "May 1990",
        "1990",
        "1990 in Rome",
        "1990",
    ]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"19\d\d", "in 1990", ["1990"]),
        (r"Feb\w+ 7", "on febru\u00e9ry 7", ["febru\u00e9ry 7"]),
        (r"a.c", "a\nc abc", ["abc"]),
        (r"old\s+town", "old\u00a0\x1ftown", ["old\u00a0\x1ftown"]),
        (r"\d+", "\u0663\u0664 of them", ["\u0663\u0664"]),
        (r"(?<!New )York", "New York, York", ["York"]),
        (r"York(?! City)", "York City, York", ["York"]),
        (r"(\w)\1", "book", ["oo"]),
        (r"town$", "old town\n", ["town"]),
        (r"town$", "old town hall", []),
        (r"\bor\b", "nor or", ["or"]),
        (r"[h-j]stanbul", "\u0130stanbul", ["\u0130stanbul"]),
        (r"[^x]stanbul", "istanbul", ["istanbul"]),
        ("[x\u0131]stanbul", "istanbul", ["istanbul"]),
        (r"[a-]b", "-b", ["-b"]),
        (r"[-a]b", "-b", ["-b"]),
        (r"[]a]b", "]b", ["]b"]),
        (r"[\d.]+ km", "3.5 km", ["3.5 km"]),
        (r"x{,3}y", "xxy", ["xxy"]),
        (r"a{2000}", "a" * 2_000, ["a" * 2_000]),
        (r"o*+k", "ook", ["ook"]),
        (r"x*", "abc", []),
        (r"one|two", "two one", ["two", "one"]),
        (r"\W\S\D", "a-bc", ["-bc"]),
        (r"tip|\x41b", "ab", ["ab"]),
        (r"(?:km|miles)\b", "km", ["km"]),
        (r"end$|^start", "start of it", ["start"]),
        (r"^1912\b", "Sunk:\n1912 at sea", ["1912"]),
        (r"^\s*Orlando\s*$", "parks\nOrlando\nMiami", ["Orlando"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Possible nested set")
def test_patterns_mean_what_they_mean_to_python(
    pattern: str, text: str, expected: list[str]
) -> None:
    """RE2 knows neither look-ahead nor Unicode's digits: it must never have the last word."""
    question = asking(patterns=[pattern])
    assert found(text, question) == expected
    assert held([text, "", "zzz"], question)[0] == bool(expected)


@pytest.mark.parametrize("pattern", [r"^1912", r"sea$", r"^at sea$", r"\Asea", r"sea\Z"])
def test_training_and_recall_find_patterns_in_the_same_passages(pattern: str) -> None:
    question = asking(patterns=[pattern])
    texts = ["sunk\n1912\nat sea\n", "sunk in 1912 at sea", "at sea\nin 1912", "sea\nland"]
    assert held(texts, question) == [has_answer(text, question) for text in texts]


WORDS = st.text(
    st.sampled_from("abIiKs1_ .+(\u0130\u0131\u00e9\u00c9\u212a\u00a0\u017f\n"), max_size=6
)
TEXTS = st.lists(st.lists(WORDS, max_size=5).map(" ".join), min_size=1, max_size=6)


@settings(max_examples=200)
@given(TEXTS, st.lists(WORDS, max_size=3))
def test_re2_and_python_agree_on_answers(texts: list[str], answers: list[str]) -> None:
    held(texts, asking(*answers))


PIECES = [
    "a",
    "I",
    "i",
    "1",
    r"\d",
    r"\w",
    r"\s",
    r"\b",
    r"\W",
    ".",
    "$",
    "^",
    "|",
    "x?",
    "b*",
    "(?:ab)",
]
PIECES += ["[a-k]", "[^a]", r"\.", "(1)", "(?=b)", "\u0130", "\u00e9", "{,2}", r"\Z", "b{1,2}"]
ODD = "abIi1 .\u0130\u0131\u00e9\u0663\u00a0\n_"


@settings(max_examples=300)
@given(
    st.lists(st.text(ODD, max_size=8), min_size=1, max_size=5),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
)
def test_re2_and_python_agree_on_patterns(texts: list[str], pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error:
        return
    held(texts, asking(patterns=[pattern]))


def test_re2_looks_first_so_that_few_texts_are_read() -> None:
    store = Texts(["nothing"] * 50 + ["in Rome"] + ["nothing"] * 50)
    for question in (asking("Rome"), asking(patterns=[r"R\wme\b", r"in\s+R[aeo]me"])):
        store.read.clear()
        assert holds_answer(store, range(101), question).nonzero()[0].tolist() == [50]
        assert store.read == [50]


def test_rows_may_come_in_any_order_and_twice(store: PassageStore) -> None:
    rows = [13, 0, 13, 5]
    result = holds_answer(store, rows, asking("Halle", "Basel"))
    assert result.dtype == np.bool_
    assert result.tolist() == [True, False, True, True]


def test_nothing_to_look_for_or_in_is_held_nowhere(store: PassageStore) -> None:
    assert holds_answer(store, [], asking("Basel")).tolist() == []
    assert holds_answer(store, [0, 1], asking()).tolist() == [False, False]
    assert holds_answer(store, [0, 1], asking(" ")).tolist() == [False, False]
    assert answer_spans("text", asking("", " ")) == []


def test_a_broken_pattern_is_told_not_a_traceback(store: PassageStore) -> None:
    with pytest.raises(CorpusError, match=r"found answer pattern '\(', expected a regex"):
        holds_answer(store, [0], asking(patterns=["("]))


def test_half_a_surrogate_pair_is_held_nowhere(store: PassageStore) -> None:
    assert holds_answer(store, [0], asking("\ud800")).tolist() == [False]


OFFSETS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=8)


@given(OFFSETS, st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=4))
def test_the_wordpieces_of_a_span_are_those_that_share_characters_with_it(
    gaps: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> None:
    offsets, end = [], 0
    for gap, length in gaps:
        offsets.append((end + gap, end + gap + length))
        end += gap + length
    spans = [(start, start + length) for start, length in spans]
    expected = []
    for start, stop in spans:
        inside = [n for n, (s, e) in enumerate(offsets) if s < stop and start < e]
        if inside:
            assert inside == list(range(inside[0], inside[-1] + 1))
            expected.append((inside[0], inside[-1]))
    assert wordpiece_spans(spans, offsets) == expected


@given(st.integers(0, 23), st.data())
def test_spans_wordpieces_and_what_is_held_agree_on_real_passages(
    store: PassageStore, row: int, data: st.DataObject
) -> None:
    """An answer of the text is held, and its wordpieces are the answer's own."""
    text, tokenizer = store.text(row), store.tokenizer
    words = text.rstrip(".").split()
    first = data.draw(st.integers(0, len(words) - 1))
    answer = " ".join(words[first : first + data.draw(st.integers(1, 3))]).strip(".")
    question = asking(answer.upper())
    assert holds_answer(store, [row], question).tolist() == [True]
    spans = answer_spans(text, question)
    ids, offsets = tokenizer.encode(text)
    assert ids == store.wordpieces(row).tolist()
    placed = wordpiece_spans(spans, offsets)
    assert len(placed) == len(spans) >= 1
    for start, end in placed:
        assert ids[start : end + 1] == tokenizer.encode(answer).ids


def test_the_quick_look_takes_no_text_for_empty(
    store: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what RE2 cannot say makes Python look at every text."""
    looked = []
    real = matching.answer_spans
    monkeypatch.setattr(
        matching, "answer_spans", lambda text, q: looked.append(text) or real(text, q)
    )
    holds_answer(store, range(24), asking(patterns=[r"Basel(?= and)"]))
    assert len(looked) == 24
    looked.clear()
    holds_answer(store, range(24), asking("Basel"))
    assert len(looked) == 3


def test_occurrences_of_a_string_may_overlap() -> None:
    asked = Question(id="q", question="?", answers=("gold gold",))
    assert answer_spans("gold gold gold", asked) == [(0, 9), (5, 14)]
