"""Several question sets in one run: how often each is asked."""

from collections import Counter

import pytest

from realm.errors import ConfigError
from realm.records import Question
from realm.training.mixing import Mixture, QuestionSet


def some(count: int, name: str) -> list[Question]:
    return [Question(id=f"{name}{n}", question=f"{name} {n}", answers=("x",)) for n in range(count)]


def asked(mixture: Mixture, steps: range, batch_size: int) -> Counter[str]:
    return Counter(
        mixture.questions[number].id for step in steps for number in mixture.at(step, batch_size)
    )


def test_one_set_is_asked_once_in_each_pass() -> None:
    mixture = Mixture([QuestionSet(questions=some(10, "a"))], seed=3)
    for start in (0, 10):
        found = [
            mixture.questions[n].id
            for step in range(start, start + 10)
            for n in mixture.at(step, 1)
        ]
        assert sorted(found) == sorted(q.id for q in mixture.questions), "each once in a pass"
    assert [mixture.at(step, 4) for step in range(5)] == [mixture.at(step, 4) for step in range(5)]


def test_a_weight_is_how_often_a_question_is_asked_in_a_pass() -> None:
    sets = [
        QuestionSet(questions=some(20, "a")),
        QuestionSet(questions=some(4, "b"), weight=3.0),
        QuestionSet(questions=some(16, "c"), weight=0.5),
    ]
    mixture = Mixture(sets, seed=0)
    slots = 20 + 12 + 8
    first, second = (asked(mixture, range(p * slots, (p + 1) * slots), 1) for p in (0, 1))
    assert all(first[f"a{n}"] == 1 for n in range(20))
    assert all(first[f"b{n}"] == 3 for n in range(4))
    halves = [{name for name in part if name[0] == "c"} for part in (first, second)]
    assert len(halves[0]) == len(halves[1]) == 8
    assert halves[0] | halves[1] == {f"c{n}" for n in range(16)}


def test_a_step_asks_no_question_twice() -> None:
    mixture = Mixture([QuestionSet(questions=some(3, "a"), weight=5.0)], seed=0)
    for step in range(10):
        numbers = mixture.at(step, 8)
        assert len(numbers) == len(set(numbers)) <= 3


def test_sets_are_mixed_within_a_pass() -> None:
    sets = [QuestionSet(questions=some(50, "a")), QuestionSet(questions=some(50, "b"))]
    first_half = asked(Mixture(sets, seed=0), range(50), 1)
    assert 15 < sum(count for name, count in first_half.items() if name[0] == "a") < 35


@pytest.mark.parametrize("weight", [0.0, -1.0, 1e9])
def test_impossible_weights_are_told(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight"):
        QuestionSet(questions=some(1, "a"), weight=weight)
