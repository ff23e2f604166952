"""How sure a mean over entities and seeds is: a bootstrap that draws both anew."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from measure import Outcome

from realm.evaluation.metrics import Interval

SAMPLES = 4_000

Value = Callable[[Outcome], float]
METRICS: Mapping[str, Value] = {
    "recall@1": lambda outcome: outcome.rank == 1,
    "recall@5": lambda outcome: outcome.rank is not None,
    "span right": lambda outcome: outcome.is_right,
    "span right, null passage": lambda outcome: outcome.is_right_alone,
}


def interval(seeds: Sequence[Sequence[Outcome]], value: Value) -> Interval:
    """Return a mean with its 95 % interval.

    The sentences about one entity are not independent, nor are the entities of one run. So each
    bootstrap sample draws seeds with replacement, and then entities of each drawn seed; an entity
    brings all of its sentences. One seed alone: entities only.

    Args:
        seeds: the outcomes of each seed; at least one of each.
        value: what is averaged.
    """
    groups = [_entity_means(outcomes, value) for outcomes in seeds]
    draw = np.random.default_rng(0)
    means: list[float] = []
    for _ in range(SAMPLES):
        drawn = draw.integers(len(groups), size=len(groups))
        parts = [groups[n][draw.integers(len(groups[n]), size=len(groups[n]))] for n in drawn]
        means.append(float(np.concatenate(parts).mean()))
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(np.concatenate(groups).mean())
    return Interval(mean=mean, low=float(low), high=float(high))


def mean(outcomes: Sequence[Outcome], value: Value) -> float:
    """Return the mean over entities of one seed."""
    return float(_entity_means(outcomes, value).mean())


def _entity_means(outcomes: Sequence[Outcome], value: Value) -> np.ndarray:
    of_entity: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        of_entity[outcome.entity].append(float(value(outcome)))
    return np.array([np.mean(values) for values in of_entity.values()])
