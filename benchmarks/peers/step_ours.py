"""Our joint training step: what `realm pretrain` does between choosing candidates and the next."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batch import Stepper, part, read_batch, read_weights
from peer import memory_bytes, serve
from torch import Tensor

from realm.config import PretrainConfig
from realm.device import CPU, autocast_to
from realm.memory import limit_kernel_cache, return_free_memory
from realm.model.bert import build_bert, set_attention
from realm.model.embedder import Embedder, Towers
from realm.model.encoder import Encoder
from realm.model.inputs import in_packs
from realm.model.likelihood import token_marginal_log_likelihood
from realm.model.realm import Budget, CandidateBatch, read_candidates
from realm.training.backward import BackwardPass

DRAWN = 2
"""Candidates of a query that the encoder learns from, in mode `drawn`."""

limit_kernel_cache()
torch.set_num_threads(1)


def main(folder: Path, mode: str) -> None:
    """Load, and answer calls."""
    content, weights = read_batch(folder), read_weights(folder)
    baseline = memory_bytes("VmRSS")
    encoder = Encoder(build_bert(content["bert"]))
    encoder.load_state_dict(part(weights, "encoder."))
    tower = Embedder(
        build_bert(content["bert"]),
        projection_size=content["dim"],
        pooling="mean",
        norm_eps=content["norm_eps"],
    )
    tower.load_state_dict(part(weights, "tower."))
    del weights
    towers, config = Towers(tower), PretrainConfig()
    for module in (towers, encoder):
        set_attention(module.train(), CPU, dropout=0.0)
    stepper = Stepper(baseline, [towers, encoder] if mode != "encoder" else [encoder])
    budget = Budget(pad_id=0, batch_tokens=config.batch_tokens)
    given, steps = torch.tensor(content["scores"]), 0

    def objective(scores: Tensor, log_probs: Tensor, is_real: Tensor) -> Tensor:
        return token_marginal_log_likelihood(scores, log_probs, is_real) / is_real.sum(dim=-1)

    backward_pass = BackwardPass(
        towers=towers,
        encoder=encoder,
        budget=budget,
        autocast=config.autocast,
        objective=objective,
    )
    rng = np.random.default_rng(0)

    def backward() -> float:
        loss = 0.0
        for group in groups_of(content, config.batch_tokens):
            batch = candidate_batch(content, group)
            if mode != "encoder":
                told: dict[str, Any] = {"num_examples": len(given), "is_frozen": False}
                if mode == "whole":
                    passed = backward_pass.through_all(batch, **told)
                else:
                    passed = backward_pass.through_drawn(batch, DRAWN, rng, **told)
                loss -= passed.likelihood.sum().item() / len(given)
                continue
            with autocast_to(config.autocast, CPU):
                log_probs = read_candidates(encoder, batch, budget)
            mine = -objective(given[group], log_probs, batch.mask_is_real).sum() / len(given)
            mine.backward()
            loss += mine.item()
        return loss

    def step() -> dict[str, Any]:
        nonlocal steps
        steps += 1
        told = stepper.step(backward)
        return_free_memory(steps)
        return told

    serve({"step": step})


def groups_of(content: dict[str, Any], batch_tokens: int) -> list[list[int]]:
    """Return the queries of each backward pass, as `PretrainJob` groups them."""
    candidates = len(content["passage_of"][0])
    lengths = [len(ids) - 3 for ids, _ in content["joint"]]
    rows = range(0, len(lengths), candidates)
    sizes = [sum(lengths[row : row + candidates]) for row in rows]
    return list(in_packs(sizes, batch_tokens))


def candidate_batch(content: dict[str, Any], group: list[int]) -> CandidateBatch:
    """Return some of the queries with their candidates."""
    passage_of = torch.tensor(content["passage_of"])[group]
    distinct, places = passage_of.unique(return_inverse=True)  # the null passage is number 0
    candidates = passage_of.shape[1]
    targets = torch.tensor(content["targets"])[group]
    return CandidateBatch(
        queries=[tuple(content["queries"][row]) for row in group],
        passages=[tuple(content["passages"][number]) for number in distinct.tolist()],
        passage_of=places,
        is_real=torch.ones_like(passage_of, dtype=torch.bool),
        joint=[
            tuple(content["joint"][row * candidates + place])
            for row in group
            for place in range(candidates)
        ],
        targets=targets,
        mask_positions=torch.tensor(content["positions"])[group],
        mask_is_real=torch.ones_like(targets, dtype=torch.bool),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
