"""How sure a mean over questions and seeds is, and the difference of two rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from realm.evaluation.metrics import Interval

Results = Mapping[int, Mapping[str, float]]
"""Seed -> id of a question -> what was measured, 0 to 1."""


def matrix(results: Results, questions: Sequence[str]) -> Float[np.ndarray, "seeds questions"]:
    """Return the results of these questions as a matrix, seeds in order."""
    return np.array([[results[seed][name] for name in questions] for seed in sorted(results)])


def interval(results: Results, *, samples: int, seed: int = 0) -> Interval | None:
    """Return the mean over seeds and questions with its 95 % interval; None where nothing is.

    Args:
        results: of one row; questions that not every seed has are left out.
        samples: resamplings.
        seed: equal seeds give equal intervals.
    """
    questions = _shared(*results.values())
    return _bootstrap(matrix(results, questions), samples, seed) if questions else None


def difference(first: Results, second: Results, *, samples: int, seed: int = 0) -> Interval | None:
    """Return the mean of `first` minus `second`, paired by seed and question.

    Args:
        first: of one row.
        second: of another.
        samples: resamplings.
        seed: equal seeds give equal intervals.

    Returns:
        Over the seeds and questions that both have; None where there are none.
    """
    seeds = sorted(first.keys() & second.keys())
    questions = _shared(*(row[number] for number in seeds for row in (first, second)))
    if not questions:
        return None
    ours, theirs = ({number: row[number] for number in seeds} for row in (first, second))
    return _bootstrap(matrix(ours, questions) - matrix(theirs, questions), samples, seed)


def _shared(*measured: Mapping[str, float]) -> list[str]:
    """Return the questions that all have, in the order of the first."""
    if not measured:
        return []
    others = [set(found) for found in measured[1:]]
    return [name for name in measured[0] if all(name in other for other in others)]


def _bootstrap(values: Float[np.ndarray, "seeds questions"], samples: int, seed: int) -> Interval:
    """Draw seeds and questions anew, each with replacement; return mean and 95 % interval.

    With one seed the interval knows of the questions only, not of the training's own chance.
    """
    random = np.random.default_rng(seed)
    num_seeds, num_questions = values.shape
    means = np.empty(samples)
    for number in range(samples):
        over_seeds = values[random.integers(num_seeds, size=num_seeds)].mean(axis=0)
        means[number] = over_seeds[random.integers(num_questions, size=num_questions)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
