"""Untrained models of a given shape, and one joint step of them: what a calibration runs."""

from collections.abc import Sequence

import torch
from transformers import BertModel

from realm.device import autocast_to
from realm.model.bert import build_bert, set_dropout
from realm.model.embedder import Embedder, Towers
from realm.model.encoder import Encoder
from realm.model.inputs import TokenSequence
from realm.model.likelihood import marginal_log_likelihood
from realm.model.realm import Budget, CandidateBatch, read_candidates, score_candidates
from realm.planning.encoders import POSITIONS, EncoderShape

QUERY, MASKS = 32, 2
"""Wordpieces and masks of the made-up example."""
SHORTEST, LONGEST = 40, 270
"""Of a made-up passage."""
FIRST_PIECE, LAST_PIECE = 1_000, 20_000


def build_shape(shape: EncoderShape) -> BertModel:
    """Return a BERT of this shape with random parameters."""
    return build_bert(_settings(shape))


def new_tower(shape: EncoderShape, dim: int) -> Embedder:
    """Return an embedder with random parameters."""
    return Embedder(build_shape(shape), projection_size=dim, pooling="mean")


def new_encoder(shape: EncoderShape) -> Encoder:
    """Return an encoder with random parameters."""
    return Encoder(build_shape(shape))


def draw_lengths(queries: int, candidates: int, seed: int) -> list[int]:
    """Return a length for each passage read: real ones differ, so steps pad and make kernels."""
    generator = torch.Generator().manual_seed(seed)
    count = queries * (candidates - 1)
    lengths: list[int] = torch.randint(
        SHORTEST, LONGEST + 1, (count,), generator=generator
    ).tolist()
    return lengths


def step_flops(shape: EncoderShape, lengths: Sequence[int], *, dim: int, candidates: int) -> float:
    """Return forward FLOPs of `take_step`, padding aside."""
    queries, query = len(lengths) // (candidates - 1), float(QUERY)
    flops = sum(shape.embed_flops(float(n), dim) + shape.forward_flops(n + query) for n in lengths)
    flops += queries * (shape.embed_flops(query, dim) + shape.forward_flops(query))
    flops += shape.embed_flops(2.0, dim)  # the null passage, once
    return flops + queries * candidates * shape.head_flops(float(MASKS))


def take_step(towers: Towers, encoder: Encoder, lengths: Sequence[int], *, candidates: int) -> None:
    """Score and read made-up candidates and differentiate; parameters stay, gradients go."""
    for part in (towers, encoder):
        part.train()
        set_dropout(part, 0.1)
    batch = _batch(lengths, candidates)
    budget = Budget(pad_id=0, batch_tokens=4_096)
    with autocast_to("bfloat16", torch.device("cpu")):
        scores = score_candidates(towers, batch, budget)
        log_probs = read_candidates(encoder, batch, budget)
    likelihood = marginal_log_likelihood(scores.float(), log_probs, batch.mask_is_real)
    (-likelihood.mean()).backward()
    for part in (towers, encoder):
        part.zero_grad(set_to_none=True)


def _settings(shape: EncoderShape) -> dict[str, int]:
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "max_position_embeddings": POSITIONS,
    }


def _batch(lengths: Sequence[int], candidates: int) -> CandidateBatch:
    read = candidates - 1
    queries = len(lengths) // read
    null: TokenSequence = ([101, 102], [0, 0])
    joint = [
        _text(QUERY + (lengths[number * read + place - 1] if place else 0))
        for number in range(queries)
        for place in range(candidates)
    ]
    distinct = torch.arange(1, queries * read + 1).view(queries, read)
    return CandidateBatch(
        queries=[_text(QUERY) for _ in range(queries)],
        passages=[null, *(_text(length) for length in lengths)],
        passage_of=torch.cat([torch.zeros(queries, 1, dtype=torch.long), distinct], dim=1),
        is_real=torch.ones(queries, candidates, dtype=torch.bool),
        joint=joint,
        targets=torch.full((queries, MASKS), FIRST_PIECE),
        mask_positions=torch.arange(1, MASKS + 1).expand(queries, MASKS),
        mask_is_real=torch.ones(queries, MASKS, dtype=torch.bool),
    )


def _text(length: int) -> TokenSequence:
    ids: list[int] = torch.randint(FIRST_PIECE, LAST_PIECE, (length,)).tolist()
    return ids, [0] * length
