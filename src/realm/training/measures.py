"""What joint pre-training measures: at every step for free, and on held-out examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.model.embedder import Towers
from realm.model.encoder import Encoder
from realm.model.likelihood import (
    marginal_log_likelihood,
    marginal_minus_null,
    retrieval_utility,
)
from realm.model.realm import (
    Budget,
    CandidateBatch,
    gold_log_probs,
    mask_logits,
    predict_masks,
    score_candidates,
)
from realm.ranks import ALONE, Ranks
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, body_of, candidate_batch
from realm.training.held_out import HeldOutRead

EVAL_GROUP = 8
MEANS_OVER: Mapping[str, str] = {
    "loss_per_mask": "masks",
    "piece_accuracy": "masks",
    "piece_accuracy_null": "masks",
    "utility/mean": "with_passages",
    "utility/best": "with_passages",
    "index/score_drift": "with_scores",
    "index/rank_correlation": "with_orders",
}
"""Of which of a group's counts a measure is the mean: masked wordpieces, examples with a passage,
with a score in the snapshot, with several; all others are over all examples."""
COUNTS = frozenset({"count", *MEANS_OVER.values()})


Candidates = Callable[[Sequence[MaskedExample]], tuple[list[list[int]], Tensor]]
"""Examples -> (candidate rows of each, their scores in the snapshot)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPass:
    """What a forward pass over masked examples takes."""

    store: PassageStore
    towers: Towers
    encoder: Encoder
    candidates: Candidates
    lengths: Lengths
    budget: Budget
    null_passage: bool
    autocast: Literal["bfloat16", "none"]
    ranks: Ranks = ALONE


def step_measures(
    scores: Float[Tensor, "batch candidates"],
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    batch: CandidateBatch,
    stale: Float[Tensor, "batch candidates"],
) -> dict[str, float]:
    """Return the numbers of one forward pass.

    Drift compares the snapshot's scores of the candidates with the fresh ones: mean absolute
    change, and Spearman's rank correlation. In training mode it includes dropout's noise. Means
    over passages are taken within each example first: no example weighs more than another. Utility
    is measured against the null passage also where that gets no probability: it is read all the
    same.
    """
    weights = scores.softmax(dim=-1)
    utility = retrieval_utility(mask_log_probs, batch.mask_is_real)
    is_passage = batch.is_real.clone()
    is_passage[:, 0] = False
    known = is_passage & ~stale.isnan()
    log_likelihood = marginal_log_likelihood(scores, mask_log_probs, batch.mask_is_real)
    measures = {
        "count": float(len(scores)),
        "masks": float(batch.mask_is_real.sum()),
        "loss": -float(log_likelihood.mean()),
        "loss_per_mask": -float(log_likelihood.sum() / batch.mask_is_real.sum()),
        "utility/marginal_minus_null": float(
            marginal_minus_null(scores, mask_log_probs, batch.mask_is_real).mean()
        ),
        "p_null": float(weights[:, 0].mean()),
        "tokens": float(batch.num_tokens),
    }
    if is_passage.any():
        best = utility.masked_fill(~is_passage, -torch.inf)[is_passage.any(dim=-1)].amax(-1)
        measures |= {
            "with_passages": float(len(best)),
            "utility/mean": float(_means(utility, is_passage).mean()),
            "utility/best": float(best.mean()),
        }
    if known.any():
        drifts = _means((scores - stale).abs(), known)
        measures |= {"with_scores": float(len(drifts)), "index/score_drift": float(drifts.mean())}
    orders = rank_correlations(scores, stale, known)
    if len(orders):
        measures |= {
            "with_orders": float(len(orders)),
            "index/rank_correlation": float(orders.mean()),
        }
    return measures


def _means(
    values: Float[Tensor, "batch candidates"], counted: Bool[Tensor, "batch candidates"]
) -> Float[Tensor, " some"]:
    """Return each row's mean over what counts in it; rows in which nothing does are left out."""
    rows = counted.any(dim=-1)
    return values.masked_fill(~counted, 0.0)[rows].sum(dim=-1) / counted[rows].sum(dim=-1)


def average(
    parts: Sequence[Mapping[str, float]], *, sums: set[str] | None = None
) -> dict[str, float]:
    """Return measures of several groups as if they were one: weighted by what each is a mean of."""
    total = sum(part["count"] for part in parts)
    names = {name for part in parts for name in part} - COUNTS
    joined: dict[str, float] = {}
    for name in sorted(names):
        having = [part for part in parts if name in part]
        if sums and name in sums:
            joined[name] = sum(part[name] for part in having)
        else:
            weight = MEANS_OVER.get(name, "count")
            whole = sum(part[weight] for part in having)
            joined[name] = sum(part[name] * part[weight] for part in having) / whole
    return {**joined, "examples": total}


@torch.inference_mode()
def measure_held_out(
    forward: ForwardPass,
    examples: Sequence[MaskedExample],
    *,
    on_first: Callable[[HeldOutRead], None] | None = None,
) -> dict[str, float]:
    """Return accuracy with and without retrieval, utility and recall; dropout must be off.

    Several ranks measure a group each, in turn, and join in the search when none is left.

    Args:
        forward: the parts.
        examples: those that are held out.
        on_first: called with what was read of this rank's first examples.
    """
    parts: list[tuple[int, dict[str, float]]] = []
    rank, world = forward.ranks.rank, forward.ranks.world
    for first in range(0, len(examples), EVAL_GROUP * world):
        start = first + rank * EVAL_GROUP
        drawn = examples[start : start + EVAL_GROUP]
        rows, stale = forward.candidates(drawn)
        if not drawn:
            continue
        batch = candidate_batch(forward.store, drawn, rows, forward.lengths)
        if not forward.null_passage:
            leave_out_null(batch)
        with autocast_to(forward.autocast, device_of(forward.encoder)):
            scores = score_candidates(forward.towers, batch, forward.budget)
            read = mask_logits(forward.encoder, batch, forward.budget)
        log_probs = gold_log_probs(batch, read)
        measured = step_measures(scores, log_probs, batch, stale)
        del measured["tokens"]
        only_null = torch.zeros_like(scores)
        only_null[:, 0] = 1.0
        all_predicted: list[Tensor] = []
        for name, weights in (("", scores.softmax(dim=-1)), ("_null", only_null)):
            predicted = predict_masks(batch, weights, read)
            all_predicted.append(predicted)
            right = (predicted == batch.targets) | ~batch.mask_is_real
            measured[f"span_accuracy{name}"] = float(right.all(dim=-1).float().mean())
            hits = (right & batch.mask_is_real).sum() / batch.mask_is_real.sum()
            measured[f"piece_accuracy{name}"] = float(hits)
        holds = [_holds(forward.store, e, r) for e, r in zip(drawn, rows, strict=True)]
        measured["candidates_hold_span"] = sum(holds) / len(holds)
        if on_first is not None and not parts:
            on_first(
                HeldOutRead(
                    store=forward.store,
                    examples=drawn,
                    rows=rows,
                    batch=batch,
                    scores=scores,
                    log_probs=log_probs,
                    predicted=all_predicted[0],
                    predicted_without=all_predicted[1],
                )
            )
        parts.append((start, measured))
    everything = [part for found in forward.ranks.gather_values(parts) for part in found]
    measures = [measured for _, measured in sorted(everything, key=lambda part: part[0])]
    return {f"eval/{name}": v for name, v in average(measures).items()} if measures else {}


def leave_out_null(batch: CandidateBatch) -> None:
    """Give the null passage no probability, except where there is nothing else to read."""
    batch.is_real[:, 0] = ~batch.is_real[:, 1:].any(dim=-1)


def _holds(store: PassageStore, example: MaskedExample, rows: Sequence[int]) -> bool:
    """Return whether any candidate holds the masked wordpieces, side by side."""
    wanted = " ".join(map(str, example.target_ids))
    texts = (" ".join(map(str, body_of(store, row))) for row in rows if row >= 0)
    return any(f" {wanted} " in f" {text} " for text in texts)


def rank_correlations(
    scores: Float[Tensor, "batch candidates"],
    stale: Float[Tensor, "batch candidates"],
    known: Bool[Tensor, "batch candidates"],
) -> Float[Tensor, " some"]:
    """Return Spearman's correlation of each row with at least two known candidates.

    1 - 6 sum of squared differences of rank / (n (n^2 - 1)), of all rows at once: one by one they
    took longer than finding the candidates.
    """
    n = known.sum(dim=-1).double()
    # what is not known stands last in both orders
    fresh, old = (
        one.masked_fill(~known, torch.inf).argsort(dim=-1).argsort(dim=-1)
        for one in (scores, stale)
    )
    apart = (fresh - old).square().masked_fill(~known, 0).sum(dim=-1)
    return (1 - 6 * apart / (n * (n.square() - 1)))[n >= 2]
