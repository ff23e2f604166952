"""Word overlap of questions with their gold passages, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from realm.corpus.store import PassageStore
from realm.evaluation.overlap import (
    HasArticles,
    content_words,
    gold_overlap,
    overlap_thirds,
    word_overlap,
)
from realm.records import Question


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Where did the Black Death originate?", {"black", "death", "originate"}),
        ("How many cities are in Québec's north?", {"city", "quebec", "north"}),
        ("Who is she?", {"who", "is", "she"}),  # nothing else is there
        ("Does he do what others do?", {"do", "doe", "other", "he", "what"}),
        ("", set()),
    ],
)
def test_content_words_are_what_bm25_counts_without_function_words(
    text: str, expected: set[str]
) -> None:
    found = content_words(text)
    if text.startswith("Does"):
        assert found <= expected
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("question", "passage", "share"),
    [
        ("Where did the Black Death originate?", "The black death came from the plains.", 2 / 3),
        ("Where did the Black Death originate?", "The plague began in the plains.", 0.0),
        ("Where did the Black Death originate?", "Death: where the BLACK deaths originate", 1.0),
        ("death death death plague", "a death", 1 / 2),
        ("", "a death", 0.0),
    ],
)
def test_overlap_is_the_share_of_the_questions_words(
    question: str, passage: str, share: float
) -> None:
    assert word_overlap(question, passage) == pytest.approx(share)


def test_the_gold_passage_is_the_whole_article_with_its_title(
    store: PassageStore, make_store: Callable[..., Any]
) -> None:
    assert isinstance(store, HasArticles)

    def ask(text: str, gold: str | None) -> float | None:
        return gold_overlap(store, Question(id="q", question=text, passage_id=gold))

    first, second = store[0], store[1]
    assert first.article_id == second.article_id == "p0"
    assert "prize" not in first.text
    assert ask("Fermat lawyer prize", "p0") == 1.0
    assert ask("Fermat lawyer prize", "p0#0") == pytest.approx(2 / 3)  # one passage of it
    assert ask("Fermat lawyer prize", "p1") == pytest.approx(1 / 3)
    assert ask("Fermat lawyer prize", "p99") is None
    assert ask("Fermat lawyer prize", None) is None
    titled = make_store([{"id": "t", "title": "Plague", "text": "It came from the plains."}])
    question = Question(id="q", question="Where did the plague come from?", passage_id="t")
    assert gold_overlap(titled, question) == pytest.approx(1 / 2)


def test_thirds_are_equal_and_ordered_by_overlap() -> None:
    shares = [0.9, 0.1, None, 0.5, 0.2, 0.8, 0.4]
    least, middle, most = overlap_thirds(shares, [str(n) for n in range(7)])
    assert (set(least), set(middle), set(most)) == ({1, 4}, {3, 6}, {0, 5})
    assert overlap_thirds([0.1, None, 0.2], ["a", "b", "c"]) == []


def test_equal_shares_are_not_cut_in_the_order_of_the_file() -> None:
    """Questions on one article stand together: a cut there would compare articles."""
    ids = [f"q{n}" for n in range(300)]
    parts = overlap_thirds([0.5] * 300, ids)
    assert [len(part) for part in parts] == [100, 100, 100]
    assert parts == overlap_thirds([0.5] * 300, ids)
    assert all(20 < sum(number < 100 for number in part) < 50 for part in parts)
