"""Zero-shot answer recall: no reader needed."""

from collections.abc import Sequence

import pytest

from realm.evaluation.recall import answer_ranks, answer_recall
from realm.records import Question

TEXTS = ["Fermat was a lawyer.", "Euler was born in Basel.", "Gauss measured land.", "Nothing."]


class Texts:
    """Four passages."""

    def __len__(self) -> int:
        return len(TEXTS)

    def texts(self, rows: Sequence[int]) -> list[str]:
        return [TEXTS[row] for row in rows]


class InOrder:
    """Finds the passages in the order they stand in."""

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        rows = list(range(len(TEXTS)))[:k]
        return [(rows, [0.0] * len(rows)) for _ in questions]


QUESTIONS = [
    Question(id="1", question="what was fermat", answers=("lawyer",)),
    Question(id="2", question="where was euler born", answers=("Basel",)),
    Question(id="3", question="what did gauss do", answers=("measured land",)),
    Question(id="4", question="who", answers=("Noether",)),
]


def test_recall_at_k_is_the_share_of_questions_with_an_answer_in_the_first_k_passages() -> None:
    found = answer_recall(InOrder(), Texts(), QUESTIONS, at=(1, 2, 3, 100))
    assert {k: interval.mean for k, interval in found.items()} == {
        1: 0.25,
        2: 0.5,
        3: 0.75,
        100: 0.75,
    }
    assert all(interval.low <= interval.mean <= interval.high for interval in found.values())


def test_progress_counts_the_questions() -> None:
    told: list[tuple[int, int]] = []
    answer_recall(InOrder(), Texts(), QUESTIONS, progress=lambda d, t: told.append((d, t)))
    assert told == [(4, 4)]


def test_the_intervals_stay_wide_where_few_were_asked() -> None:
    (all_found,) = answer_recall(InOrder(), Texts(), QUESTIONS[:1], at=(1,)).values()
    assert (all_found.mean, all_found.high) == (1.0, 1.0)
    assert all_found.low == pytest.approx(0.2065, abs=1e-4), "Wilson's, by hand: 1 / (1 + z^2)"


def test_ranks_are_those_of_the_first_passage_with_an_answer() -> None:
    assert answer_ranks(InOrder(), Texts(), QUESTIONS, deepest=2) == [1, 2, None, None]
    assert answer_ranks(InOrder(), Texts(), QUESTIONS, deepest=4) == [1, 2, 3, None]
