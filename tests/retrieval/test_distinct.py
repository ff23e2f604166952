"""Copies take no place among the passages that are read."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from realm.corpus.store import PassageStore
from realm.retrieval.distinct import MAX_DEPTH, Retrieved, retrieve_distinct

TEXTS = ["Fermat was born."] * 5 + ["Euler was born.", "Fermat was born.", "Abel was born."]


class InOrder:
    """Finds the rows in their order; of the question "few" the first three alone."""

    name = "in order"
    score_weight = 1.0

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[tuple[tuple[str, ...], int]] = []

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        self.asked.append((tuple(questions), k))
        counts = [min(k, 3 if question == "few" else self.size) for question in questions]
        return [(list(range(n)), [-float(row) for row in range(n)]) for n in counts]


@pytest.fixture
def store(make_store: Callable[..., Any]) -> PassageStore:
    return make_store([{"id": str(n), "title": "", "text": text} for n, text in enumerate(TEXTS)])


def found(retriever: InOrder, store: PassageStore, *questions: str, **counts: int) -> Any:
    return retrieve_distinct(retriever, store, questions, **counts)


def test_more_are_retrieved_where_copies_leave_too_few(store: PassageStore) -> None:
    retriever = InOrder(len(store))
    many, few = found(retriever, store, "many", "few", num_passages=2, num_retrieved=4)
    assert many == Retrieved([*range(8)], [0, 5], [0.0, -5.0], [1, 2, 3, 4, 6])
    assert few == Retrieved([0, 1, 2], [0], [0.0], [1, 2])
    assert retriever.asked == [(("many", "few"), 4), (("many",), 8)]


def test_nothing_more_is_retrieved_where_there_are_enough_or_no_more(store: PassageStore) -> None:
    retriever = InOrder(len(store))
    (one,) = found(retriever, store, "many", num_passages=2, num_retrieved=6)
    assert (one.rows, one.read) == ([*range(6)], [0, 5])
    (one,) = found(retriever, store, "many", num_passages=9, num_retrieved=0)
    assert (one.read, one.copies) == ([0, 5, 7], [1, 2, 3, 4, 6])
    assert [depth for _, depth in retriever.asked] == [6, 9]


def test_thousands_of_copies_are_not_looked_through(make_store: Callable[..., Any]) -> None:
    size = 2 * MAX_DEPTH + 1
    store = make_store([{"id": str(n), "title": "", "text": "Fermat."} for n in range(size)])
    retriever = InOrder(size)
    (one,) = found(retriever, store, "many", num_passages=2, num_retrieved=0)
    assert retriever.asked[-1] == (("many",), size - 1)
    assert (one.read, one.copies) == ([0], [*range(1, size - 1)])
    retriever = InOrder(size)
    (one,) = found(retriever, store, "many", num_passages=1, num_retrieved=0)
    assert len(retriever.asked) == 1
