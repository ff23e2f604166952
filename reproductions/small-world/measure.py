"""What a retriever and an encoder make of masked sentences about entities that they never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from world import telling

from realm.config import PretrainConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.index.searchable import Searchable
from realm.masking.store import ExampleStore
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.realm import Budget, mask_logits, predict_masks, score_candidates
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import CandidateFinder

GROUP = 16
DEPTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out for one masked sentence."""

    entity: str
    rank: int | None
    """Place of the passage that tells the fact, from 1; None beyond DEPTH."""
    is_right: bool
    """Whether the masked span was predicted, with retrieval."""
    is_right_alone: bool
    """The same with the null passage only."""


@torch.inference_mode()
def outcomes(
    examples: ExampleStore,
    store: PassageStore,
    index: Searchable,
    towers: Towers,
    encoder: Encoder,
    config: PretrainConfig,
) -> list[Outcome]:
    """Return what came out for each example, read as in training, dropout off.

    Args:
        examples: masked sentences of the news.
        store: the passages Z.
        index: what is searched.
        towers: embed the sentences, and score the candidates.
        encoder: reads the candidates.
        config: lengths and number of candidates.
    """
    towers.eval()
    encoder.eval()
    finder = CandidateFinder(
        store,
        num_candidates=config.num_candidates,
        overlap_limit=config.overlap_limit,
        exclude_own=config.exclude_own,
    )
    found: list[Outcome] = []
    for first in range(0, len(examples), GROUP):
        drawn = [examples[row] for row in range(first, min(first + GROUP, len(examples)))]
        found += _group(drawn, finder, index, towers, encoder, config)
    return found


def _group(
    drawn: Sequence[MaskedExample],
    finder: CandidateFinder,
    index: Searchable,
    towers: Towers,
    encoder: Encoder,
    config: PretrainConfig,
) -> list[Outcome]:
    store = finder.store
    budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
    lengths = Lengths(
        query=config.query_wordpieces,
        passage=config.passage_wordpieces,
        joint=config.joint_wordpieces,
    )
    with autocast_to(config.autocast, device_of(towers)):
        queries = embed_in_groups(
            towers.query,
            [store.tokenizer.query_input(e.query_ids, lengths.query) for e in drawn],
            pad_id=budget.pad_id,
            batch_tokens=budget.batch_tokens,
        ).float()
        rows, _ = finder.find(index, queries, drawn)
        batch = candidate_batch(store, drawn, rows, lengths)
        weights = score_candidates(towers, batch, budget).float().softmax(dim=-1)
        read = mask_logits(encoder, batch, budget)
    alone = torch.zeros_like(weights)
    alone[:, 0] = 1.0
    is_right, is_right_alone = (
        ((predict_masks(batch, w, read) == batch.targets) | ~batch.mask_is_real)
        .all(dim=-1)
        .tolist()
        for w in (weights, alone)
    )
    _, ranked = index.search(queries, DEPTH)
    found: list[Outcome] = []
    for number, example in enumerate(drawn):
        wanted = telling(example.article_id)
        names = [store.article_id(row) for row in ranked[number].tolist()]
        found.append(
            Outcome(
                entity=example.article_id.split("-")[1],
                rank=names.index(wanted) + 1 if wanted in names else None,
                is_right=is_right[number],
                is_right_alone=is_right_alone[number],
            )
        )
    return found
