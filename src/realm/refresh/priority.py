"""Which passages a rolling refresh embeds next.

A passage that is retrieved with rate p and was last embedded a steps ago costs p * a per step in
staleness of what is retrieved. Spread over time, the sum is least when passages are embedded
with a frequency proportional to sqrt(p): whenever p * a^2 is largest. Passages that nobody
retrieved have a small rate too, so that none is forgotten.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Order = Literal["oldest", "hottest", "drifted"]
NUM_HOT = 1 << 16
"""Passages, at most, whose demand is published with the parameters."""
UNSEEN_SHARE = 0.2
"""Share of all retrievals that is spread evenly over the passages, as if retrieved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the trainer has seen of the passages that it retrieved."""

    rows: Int[Tensor, " hot"]
    retrievals: Float[Tensor, " hot"]
    """How often each was a candidate, older times counting less."""
    drift: Float[Tensor, " hot"]
    """Mean absolute difference of its scores in the index and afresh."""


class DemandCounter:
    """Counts what a trainer retrieves."""

    def __init__(self, num_passages: int) -> None:
        self._retrievals = torch.zeros(num_passages)
        self._drift = torch.zeros(num_passages)

    def count(self, rows: Int[Tensor, " seen"], drift: Float[Tensor, " seen"]) -> None:
        """Count candidates, with the absolute difference of their scores (nan: unknown)."""
        self._retrievals.index_add_(0, rows, torch.ones(len(rows)))
        known = ~drift.isnan()
        rows, drift = rows[known], drift[known]
        self._drift[rows] += 0.5 * (drift - self._drift[rows])

    def take(self, *, keep: float = 0.5) -> Demand:
        """Return the demand so far.

        Args:
            keep: what it counts from here on, beside new retrievals.
        """
        rows = self._retrievals.nonzero()[:, 0]
        if len(rows) > NUM_HOT:
            rows = rows[self._retrievals[rows].topk(NUM_HOT).indices]
        demand = Demand(
            rows=rows.clone(),
            retrievals=self._retrievals[rows].clone(),
            drift=self._drift[rows].clone(),
        )
        self._retrievals *= keep
        self._retrievals[self._retrievals < 0.05] = 0.0
        return demand


def nothing_retrieved() -> Demand:
    """Return the demand before the first step."""
    return Demand(
        rows=torch.zeros(0, dtype=torch.int64), retrievals=torch.zeros(0), drift=torch.zeros(0)
    )


def next_rows(
    row_steps: Int[Tensor, " passages"],
    newest_step: int,
    demand: Demand,
    count: int,
    order: Order,
) -> Int[Tensor, " rows"]:
    """Return the rows that are worth most to embed with parameters of `newest_step`.

    Args:
        row_steps: training step of each row's parameters.
        newest_step: of the parameters at hand; rows that have them already are left out.
        demand: what is retrieved, and how far it has drifted.
        count: rows, at most.
        order: oldest: by age a alone; hottest: by p * a^2; drifted: by p * drift * a^2.
    """
    age = (newest_step - row_steps).clamp_min(0).float()
    priority = age
    if order != "oldest":
        weight = demand.retrievals
        if order == "drifted":
            weight = weight * demand.drift
        total = float(weight.sum()) or 1.0
        rate = torch.full_like(age, UNSEEN_SHARE * total / len(age))
        rate.index_add_(0, demand.rows, weight)
        priority = rate * age.square()
    rows = priority.topk(min(count, len(age))).indices
    return rows[age[rows] > 0].sort().values
