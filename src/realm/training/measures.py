"""What joint pre-training measures: at every step for free, and on held-out examples."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from realm.index.builder import autocast_to
from realm.model.likelihood import (
    marginal_log_likelihood,
    marginal_minus_null,
    retrieval_utility,
)
from realm.model.realm import (
    CandidateBatch,
    gold_log_probs,
    mask_logits,
    predict_masks,
    score_candidates,
)
from realm.records import MaskedExample
from realm.retrieval.batch import body_of, candidate_batch

if TYPE_CHECKING:
    from realm.training.pretrain import PretrainJob

EVAL_GROUP = 8


def step_measures(
    scores: Float[Tensor, "batch candidates"],
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    batch: CandidateBatch,
    stale: Float[Tensor, "batch candidates"],
) -> dict[str, float]:
    """Return the numbers of one forward pass.

    Drift compares the snapshot's scores of the candidates with the fresh ones: mean absolute
    change, and Spearman's rank correlation. In training mode it includes dropout's noise.
    """
    weights = scores.softmax(dim=-1)
    utility = retrieval_utility(mask_log_probs, batch.mask_is_real)
    is_passage = batch.is_real.clone()
    is_passage[:, 0] = False
    known = is_passage & ~stale.isnan()
    log_likelihood = marginal_log_likelihood(scores, mask_log_probs, batch.mask_is_real)
    measures = {
        "count": float(len(scores)),
        "loss": -float(log_likelihood.mean()),
        "loss_per_mask": -float(log_likelihood.sum() / batch.mask_is_real.sum()),
        "utility/marginal_minus_null": float(
            marginal_minus_null(scores, mask_log_probs, batch.mask_is_real).mean()
        )
        if bool(batch.is_real[:, 0].all())
        else 0.0,
        "p_null": float(weights[:, 0].mean()),
        "tokens": float(batch.num_tokens),
    }
    if is_passage.any():
        measures |= {
            "utility/mean": float(utility[is_passage].mean()),
            "utility/best": float(
                utility.masked_fill(~is_passage, -torch.inf).max(dim=-1).values.mean()
            ),
        }
    if known.any():
        measures["index/score_drift"] = float((scores - stale)[known].abs().mean())
        measures["index/rank_correlation"] = _rank_correlation(scores, stale, known)
    return measures


def average(
    parts: Sequence[Mapping[str, float]], *, sums: set[str] | None = None
) -> dict[str, float]:
    """Return measures of several groups together, weighted by their "count"."""
    total = sum(part["count"] for part in parts)
    names = {name for part in parts for name in part} - {"count"}
    joined: dict[str, float] = {}
    for name in sorted(names):
        having = [part for part in parts if name in part]
        if sums and name in sums:
            joined[name] = sum(part[name] for part in having)
        else:
            weight = sum(part["count"] for part in having)
            joined[name] = sum(part[name] * part["count"] for part in having) / weight
    return {**joined, "examples": total}


class PretrainMeasures:
    """Held-out examples through the whole model, dropout off."""

    def __init__(self, job: "PretrainJob") -> None:
        self.job = job

    @torch.inference_mode()
    def held_out(self, examples: Sequence[MaskedExample]) -> dict[str, float]:
        """Return accuracy with and without retrieval, utility and recall on held-out examples."""
        job = self.job
        parts: list[dict[str, float]] = []
        for start in range(0, len(examples), EVAL_GROUP):
            drawn = examples[start : start + EVAL_GROUP]
            rows, stale = job.candidates(drawn)
            batch = candidate_batch(job.store, drawn, rows, job.lengths)
            if not job.config.null_passage:
                batch.is_real[:, 0] = False
            with autocast_to(job.config.autocast, torch.device("cpu")):
                scores = score_candidates(job.towers, batch, job.budget).float()
                logits, owners, places = mask_logits(job.encoder, batch, job.budget)
            log_probs = gold_log_probs(batch, logits, owners, places)
            measured = step_measures(scores, log_probs, batch, stale)
            del measured["tokens"]
            only_null = torch.zeros_like(scores)
            only_null[:, 0] = 1.0
            for name, weights in (("", scores.softmax(dim=-1)), ("_null", only_null)):
                predicted = predict_masks(batch, weights, logits, owners, places)
                right = (predicted == batch.targets) | ~batch.mask_is_real
                measured[f"span_accuracy{name}"] = float(right.all(dim=-1).float().mean())
                hits = (right & batch.mask_is_real).sum() / batch.mask_is_real.sum()
                measured[f"piece_accuracy{name}"] = float(hits)
            holds = [self._holds(e, r) for e, r in zip(drawn, rows, strict=True)]
            measured["candidates_hold_span"] = sum(holds) / len(holds)
            parts.append(measured)
        return {f"eval/{name}": value for name, value in average(parts).items()} if parts else {}

    def _holds(self, example: MaskedExample, rows: Sequence[int]) -> bool:
        """Return whether any candidate holds the masked wordpieces, side by side."""
        wanted = " ".join(map(str, example.target_ids))
        texts = (" ".join(map(str, body_of(self.job.store, row))) for row in rows if row >= 0)
        return any(f" {wanted} " in f" {text} " for text in texts)


def _rank_correlation(scores: Tensor, stale: Tensor, known: Tensor) -> float:
    """Return the mean Spearman correlation of rows with at least two known candidates."""
    values: list[float] = []
    for row in range(len(scores)):
        fresh, old = scores[row, known[row]], stale[row, known[row]]
        if len(fresh) < 2:
            continue
        ranks = torch.stack([fresh.argsort().argsort(), old.argsort().argsort()]).float()
        values.append(float(torch.corrcoef(ranks)[0, 1]))
    return sum(values) / len(values) if values else 1.0
