"""Spans with the same string are one answer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from realm.retrieval.gathering import gather

Make = Callable[..., Any]


def test_equal_strings_are_summed_and_keep_their_best_place(make_store: Make) -> None:
    store = make_store(
        [
            {"id": "a", "title": "", "text": "Fermat was born."},
            {"id": "b", "title": "", "text": "the house where fermat lived"},
        ]
    )
    widths, sizes = 2, [4 * 2, 5 * 2]
    spans = [0, 8 + 3 * 2, 8 + 1 * 2 + 1, 2]  # Fermat; fermat; house where; was
    found = gather(store, [0, 1], [0.4, 0.3, 0.2, 0.0], spans, sizes=sizes, widths=widths)
    assert found.totals == {"fermat": pytest.approx(0.7), "house where": pytest.approx(0.2)}
    assert found.best_of_passage == {0: "fermat", 1: "fermat"}
    best, second = found.answers(torch.tensor([0.75, 0.25]), 5)
    assert (best.text, best.passage.article_id, best.start) == ("Fermat", "a", 0)
    assert best.probability == best.raw_probability == pytest.approx(0.7)
    assert best.passage_probability == 0.75
    assert (second.text, second.passage_probability) == ("house where", 0.25)
    assert len(found.answers(torch.tensor([0.75, 0.25]), 1)) == 1


def test_of_copies_of_a_text_the_first_one_read_stands_for_all(make_store: Make) -> None:
    """Each of two files with the same text was named beside some answer."""
    texts = ["Fermat was born.", "Euler was born.", "Fermat was born."]
    store = make_store(
        [{"id": name, "title": "", "text": text} for name, text in zip("abc", texts, strict=True)]
    )
    spans = [2 * 8 + 0, 2, 8 + 0]  # Fermat of the copy; was of the first; Euler
    found = gather(store, [0, 1, 2], [0.5, 0.3, 0.2], spans, sizes=[4 * 2] * 3, widths=2)
    answers = found.answers(torch.tensor([0.3, 0.2, 0.5]), 3)
    assert [(one.text, one.passage.article_id) for one in answers] == [
        ("Fermat", "a"),
        ("was", "a"),
        ("Euler", "b"),
    ]
    assert [one.start for one in answers] == [0, 7, 0]
    assert [one.probability for one in answers] == [pytest.approx(p) for p in (0.5, 0.3, 0.2)]
    assert answers[0].passage_probability == pytest.approx(0.3)
    assert found.best_of_passage == {2: "fermat", 0: "was", 1: "euler"}
    for answer in answers[:2]:
        (other,) = answer.same_text
        assert (other.passage.article_id, other.start, other.end) == (
            "c",
            answer.start,
            answer.end,
        )
    assert answers[2].same_text == ()


def test_words_are_found_in_each_passage_with_the_same_text(make_store: Make) -> None:
    """Also in one whose own spans are too improbable to count, and further on in its article."""
    long = "Euler lived in the house where Euler lived."
    texts = {
        "a": "Fermat was born.",
        "b": f"{long} Fermat was born.",
        "c": f"Fermat was born. {long} Fermat was born.",
    }
    store = make_store(
        [{"id": name, "title": name, "text": text} for name, text in texts.items()],
        max_wordpieces=16,
    )
    rows = [row for row in range(len(store)) if store.text(row) == "Fermat was born."]
    assert len(rows) == 4
    probabilities = torch.tensor([0.7, 0.1, 0.1, 0.1])
    found = gather(store, rows, [0.9], [4], sizes=[4 * 2] * 4, widths=2)
    (answer,) = found.answers(probabilities, 1)
    assert (answer.text, answer.passage.article_id) == ("born", "a")
    assert [one.passage.row for one in answer.same_text] == rows[1:]
    places = [(one.passage.article_id, one.start) for one in answer.same_text]
    assert places == [("b", 55), ("c", 11), ("c", 72)]
    for one in answer.same_text:
        assert texts[one.passage.article_id][one.start : one.end] == answer.text
