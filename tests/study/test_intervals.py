"""Intervals over questions and seeds, paired between rows."""

import numpy as np

from realm.study.intervals import difference, interval


def results(*rows: list[int]) -> dict[int, dict[str, float]]:
    return {
        seed: {f"q{number}": float(value) for number, value in enumerate(row)}
        for seed, row in enumerate(rows)
    }


def drawn(rate: float, seed: int, count: int = 400) -> list[int]:
    return (np.random.default_rng(seed).random(count) < rate).astype(int).tolist()


def test_the_mean_is_over_seeds_and_questions() -> None:
    found = interval(results([1, 0, 0, 0], [1, 1, 1, 0]), samples=200)
    assert found is not None
    assert found.mean == 0.5
    assert found.low < 0.5 < found.high


def test_seeds_that_disagree_widen_the_interval() -> None:
    same = interval(results(drawn(0.5, 0), drawn(0.5, 1)), samples=500)
    apart = interval(results(drawn(0.3, 0), drawn(0.7, 1)), samples=500)
    assert same is not None
    assert apart is not None
    assert apart.high - apart.low > 2 * (same.high - same.low)


def test_differences_are_paired_question_by_question() -> None:
    base = drawn(0.5, 0)
    better = [1 if number % 20 == 0 else value for number, value in enumerate(base)]
    found = difference(results(better), results(base), samples=500)
    assert found is not None
    assert found.low > 0  # 5 % of the questions, all in one direction: pairing shows it
    same = difference(results(base), results(base), samples=500)
    assert same is not None
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_only_seeds_and_questions_that_both_have_are_compared() -> None:
    first = {0: {"q0": 1.0, "q1": 1.0}, 1: {"q0": 0.0}}
    second = {0: {"q1": 0.0, "q2": 1.0}}
    found = difference(first, second, samples=100)
    assert found is not None
    assert found.mean == 1.0  # q1 of seed 0
    assert difference(first, {2: {"q0": 1.0}}, samples=100) is None
    assert interval({}, samples=100) is None
