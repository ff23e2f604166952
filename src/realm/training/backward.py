"""Two ways from a group of queries to its gradients: through all that is read, or a part of it.

The encoder's gradient under Eq. 1 is an expectation (w its parameters):

    d log p(y|x) / dw = sum_z p(z|x,y) d log p(y|z,x) / dw

All candidates must be read, for p(z|x,y) and for the retriever, to which each of them counts. But
most weigh next to nothing here, and cost as much as the others: a backward pass takes twice as
long as reading, and keeps all that was read in memory. So all are read without gradients, and a
few, drawn by their weight, once more with them, divided by the probability that they are drawn: the
same gradient in expectation. That of the towers stays what it is: r(z) is of both signs and sums to
0, and candidates drawn by it taught the retriever far more slowly (docs/log.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from realm.device import autocast_to, device_of, send
from realm.model.bert import evaluating
from realm.model.embedder import Towers
from realm.model.encoder import Encoder
from realm.model.realm import (
    Budget,
    CandidateBatch,
    candidate_vectors,
    gold_of,
    joint_groups,
    read_candidates,
    read_masks,
    score_vectors,
)

Objective = Callable[
    [
        Float[Tensor, "batch candidates"],
        Float[Tensor, "batch candidates masks"],
        Bool[Tensor, "batch masks"],
    ],
    Float[Tensor, " batch"],
]
"""(scores, log p of each mask, which masks are real) -> the log-likelihood of each example."""


class Passed(NamedTuple):
    """What a group came to; its gradients are where the parameters are."""

    scores: Float[Tensor, "batch candidates"]
    log_probs: Float[Tensor, "batch candidates masks"]
    passages: Float[Tensor, "passages dim"]
    likelihood: Float[Tensor, " batch"]
    posterior_drawn: float | None = None
    """How much of p(z|x,y) the candidates have that were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardPass:
    """What a group of queries goes through, to leave gradients."""

    towers: Towers
    encoder: Encoder
    budget: Budget
    autocast: Literal["bfloat16", "none"]
    objective: Objective

    def through_all(self, batch: CandidateBatch, *, num_examples: int, is_frozen: bool) -> Passed:
        """Leave the gradients of the mean loss, this group's part of it.

        Args:
            batch: queries and candidates.
            num_examples: of the whole batch, which the mean is over.
            is_frozen: whether the towers learn nothing.
        """
        scores, passages = self._score(batch, is_frozen=is_frozen)
        with self._autocast():
            log_probs = read_candidates(self.encoder, batch, self.budget)
        likelihood = self.objective(scores, log_probs, batch.mask_is_real)
        (-likelihood.sum() / num_examples).backward()
        return Passed(scores.detach(), log_probs.detach(), passages, likelihood.detach())

    def through_drawn(
        self,
        batch: CandidateBatch,
        num_drawn: int,
        rng: np.random.Generator,
        *,
        num_examples: int,
        is_frozen: bool,
    ) -> Passed:
        """Leave the same gradients in the towers, and in expectation in the encoder.

        What is read for p(z|x,y) is read without dropout; the gradients have it.

        Args:
            batch: see `through_all`.
            num_drawn: candidates that are drawn for a query, on average over the group.
            rng: draws.
            num_examples: see `through_all`.
            is_frozen: see `through_all`.
        """
        scores, passages = self._score(batch, is_frozen=is_frozen)
        with torch.no_grad(), evaluating(self.encoder), self._autocast():
            log_probs = read_candidates(self.encoder, batch, self.budget)
        read = log_probs.detach().requires_grad_()
        likelihood = self.objective(scores, read, batch.mask_is_real)
        (-likelihood.sum() / num_examples).backward()
        # [joint, masks]; under Eq. 1 it is -p(z|x,y) / num_examples at each mask of a candidate
        by_mask = cast("Tensor", read.grad).flatten(0, 1)
        # where p is near 1, log p hardly moves: the gradient of the logits is as large as 1 - p
        moved = by_mask.abs() * -torch.expm1(log_probs.flatten(0, 1))
        chances = draw(moved.sum(dim=-1), num_drawn * len(scores), rng)
        self._read_again(batch, chances, by_mask)
        weight = by_mask.abs().sum(dim=-1)
        return Passed(
            scores.detach(),
            log_probs,
            passages,
            likelihood.detach(),
            float(weight[chances > 0].sum() / weight.sum()),
        )

    def _autocast(self) -> torch.autocast:
        return autocast_to(self.autocast, device_of(self.towers))

    def _score(
        self, batch: CandidateBatch, *, is_frozen: bool
    ) -> tuple[Float[Tensor, "batch candidates"], Float[Tensor, "passages dim"]]:
        """Return the candidates' fresh scores, and their vectors without gradients."""
        with torch.set_grad_enabled(not is_frozen), self._autocast():
            queries, passages = candidate_vectors(self.towers, batch, self.budget)
            return score_vectors(queries, passages, batch), passages.detach()

    def _read_again(
        self,
        batch: CandidateBatch,
        chances: Float[Tensor, " joint"],
        weights: Float[Tensor, "joint masks"],
    ) -> None:
        """Take drawn joint inputs through the encoder and back."""
        drawn = chances.nonzero()[:, 0].tolist()
        for group in joint_groups(self.encoder, batch, drawn, self.budget):
            with self._autocast():
                read = read_masks(self.encoder, batch, group, self.budget)
                gold = gold_of(batch, read)
            mine = weights[read.owners, read.places] / chances[read.owners]
            (gold * send(mine.to(gold.dtype), gold.device)).sum().backward()


def draw(
    weights: Float[Tensor, " items"], count: int, rng: np.random.Generator
) -> Float[Tensor, " items"]:
    """Return the probability with which each item that was drawn is drawn; 0 where it was not.

    An item is drawn with probability min(1, c weight), c such that `count` are drawn in all:
    systematic sampling, so that their number varies by less than one and neighbours (the
    candidates of one query) share theirs. Without weight none is; all are if any is not finite.

    Args:
        weights: not negative.
        count: how many are drawn; all with a weight, where those are no more.
        rng: one number is taken from it.
    """
    if not weights.isfinite().all():
        return torch.ones_like(weights, dtype=torch.float64)
    chances = _chances(weights.double().numpy(), count)
    place = chances.cumsum() + rng.random()
    is_drawn = (np.diff(np.floor(place), prepend=np.floor(place[:1] - chances[:1])) > 0) | (
        chances >= 1
    )
    return torch.from_numpy(np.where(is_drawn, chances, 0.0))


def _chances(weights: Float[np.ndarray, " items"], count: int) -> Float[np.ndarray, " items"]:
    """Return min(1, c weight) with the sum `count`, or 1 for all that have a weight."""
    if np.count_nonzero(weights) <= count:
        return (weights > 0).astype(np.float64)
    order = np.argsort(-weights, kind="stable")
    heaviest = weights[order]
    rest = heaviest[::-1].cumsum()[::-1]  # from each on
    left = count - np.arange(len(weights))
    sure = int(np.argmax(left * heaviest < rest))  # before it: those that are drawn in any case
    chances = np.ones_like(weights)
    chances[order[sure:]] = left[sure] * heaviest[sure:] / rest[sure]
    return chances
