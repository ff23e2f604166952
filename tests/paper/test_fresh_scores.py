"""The index only selects: scores and gradients are fresh (section 3.3)."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood
from realm.model.realm import (
    Budget,
    candidate_vectors,
    read_candidates,
    score_candidates,
    score_vectors,
)
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import NULL_ROW, CandidateFinder


def corrupted(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with noise for vectors: as stale as an index can be."""
    noise = torch.randn(len(snapshot), 16, generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(
        snapshot,
        exact=MappedRows([noise]),
        scan=MappedRows([noise.bfloat16()]),
        max_norm=float(noise.norm(dim=-1).max()),
    )


def loss_and_gradients(
    store: PassageStore,
    towers: Towers,
    encoder: Encoder,
    examples: list[MaskedExample],
    rows: list[list[int]],
    lengths: Lengths,
    budget: Budget,
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    for module in (towers, encoder):
        module.zero_grad(set_to_none=True)
    batch = candidate_batch(store, examples, rows, lengths)
    scores = score_candidates(towers, batch, budget)
    log_probs = read_candidates(encoder, batch, budget)
    loss = -marginal_log_likelihood(scores, log_probs, batch.mask_is_real).mean()
    loss.backward()
    gradients = [p.grad for module in (towers, encoder) for p in module.parameters()]
    return scores.detach(), loss.detach(), gradients


@pytest.fixture
def examples(
    store: PassageStore, make_example: Callable[..., MaskedExample]
) -> list[MaskedExample]:
    return [make_example(store, 0, "1607", "Toulouse"), make_example(store, 13, "Cantor")]


def embed_queries(store: PassageStore, towers: Towers, examples: list[MaskedExample]) -> Tensor:
    queries = [store.tokenizer.query_input(e.query_ids, 40) for e in examples]
    with torch.no_grad():
        return embed_in_groups(towers.query, queries, pad_id=0, batch_tokens=512)


def test_a_stale_index_changes_which_candidates_are_found_but_never_their_loss(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    make_snapshot: Callable[..., Snapshot],
    examples: list[MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """What MIPS searches may be stale; p(z|x) and its gradient never are (section 3.3)."""
    towers, encoder = make_towers(), make_encoder()
    fresh = make_snapshot(towers)
    stale = corrupted(fresh)
    finder = CandidateFinder(store, num_candidates=5, overlap_limit=0.6)
    vectors = embed_queries(store, towers, examples)
    fresh_rows, fresh_scores = finder.find(fresh, vectors, examples)
    stale_rows, stale_scores = finder.find(stale, vectors, examples)
    assert fresh_rows != stale_rows

    # The same candidates in the stale index's order: the loss must not know who found them.
    everything = sorted({row for rows in stale_rows for row in rows if row >= 0})
    rows = [[NULL_ROW, *everything]] * 2
    found = loss_and_gradients(store, towers, encoder, examples, rows, lengths, budget)
    moved = [[NULL_ROW, *reversed(everything)]] * 2
    again = loss_and_gradients(store, towers, encoder, examples, moved, lengths, budget)
    torch.testing.assert_close(again[1], found[1])
    for one, other in zip(again[2], found[2], strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)

    scores, _, _ = loss_and_gradients(store, towers, encoder, examples, stale_rows, lengths, budget)
    passages = fresh.exact[torch.tensor([rows[1:] for rows in stale_rows])]
    truth = torch.einsum("bd,bcd->bc", vectors, passages)
    torch.testing.assert_close(scores[:, 1:], truth, rtol=1e-4, atol=1e-4)
    assert (stale_scores[:, 1:] - truth).abs().max() > 0.1
    fresh_truth = score_candidates(
        towers, candidate_batch(store, examples, fresh_rows, lengths), budget
    )
    torch.testing.assert_close(fresh_scores[:, 1:], fresh_truth[:, 1:], rtol=1e-4, atol=1e-4)


def test_16_bit_products_round_no_score(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    examples: list[MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """f(x, z) is the inner product of the 32-bit embeddings, however those were computed."""
    towers = make_towers()
    for tower in (towers.query, towers.passage):
        tower.init_score_scale(128.0)
    batch = candidate_batch(store, examples, [[NULL_ROW, 3, 7, 2], [NULL_ROW, 9, 2, 20]], lengths)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        queries, passages = candidate_vectors(towers, batch, budget)
        scores = score_vectors(queries, passages, batch)
        again = score_candidates(towers, batch, budget)
    exact = torch.einsum("bd,bcd->bc", queries, passages[batch.passage_of])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(again, exact, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_gradients_reach_embed_input_embed_doc_and_the_encoder(
    *,
    share: bool,
    pooling: str,
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    examples: list[MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """Section 3.3: "we can backpropagate the gradient" through retriever and encoder; no stop."""
    towers, encoder = make_towers(share=share, pooling=pooling), make_encoder()
    assert towers.shared is share
    rows = [[NULL_ROW, 3, 7, 2], [NULL_ROW, 9, 2, 20]]
    loss_and_gradients(store, towers, encoder, examples, rows, lengths, budget)
    parts = {"query": towers.query, "passage": towers.passage, "encoder": encoder}
    for name, part in parts.items():
        for parameter in ("word_embeddings", "encoder.layer.0", "encoder.layer.1"):
            total = sum(
                float(p.grad.abs().sum()) for n, p in part.bert.named_parameters() if parameter in n
            )
            assert total > 0, (name, parameter)
    for tower in (towers.query, towers.passage):
        assert tower.projection.weight.grad.abs().sum() > 0
        assert tower.norm.weight.grad.abs().sum() > 0
    assert encoder.head.dense.weight.grad.abs().sum() > 0


def test_a_step_up_the_gradient_raises_the_score_of_the_passage_that_helps(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    examples: list[MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """The whole loop in one step: log p(y|x) rises, and so does the best predictor's p(z|x)."""
    towers, encoder = make_towers(), make_encoder()
    rows = [[NULL_ROW, 3, 7, 2]]
    batch = candidate_batch(store, examples[:1], rows, lengths)
    encoder.requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(towers.parameters(), lr=1e-2)

    def read() -> tuple[Tensor, Tensor, Tensor]:
        scores = score_candidates(towers, batch, budget)
        log_probs = read_candidates(encoder, batch, budget)
        return scores, log_probs, marginal_log_likelihood(scores, log_probs, batch.mask_is_real)

    scores, log_probs, before = read()
    (-before).sum().backward()
    optimizer.step()
    best = int(log_probs.sum(dim=-1)[0].argmax())
    with torch.no_grad():
        new_scores, _, after = read()
    assert after > before
    assert new_scores.softmax(dim=-1)[0, best] > scores.softmax(dim=-1)[0, best]
