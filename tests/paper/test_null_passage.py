"""The null passage: not every masked word needs world knowledge (section 3.4)."""

from collections.abc import Callable

import numpy as np
import torch

from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood
from realm.model.realm import Budget, read_candidates, score_candidates
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch, passage_sequence
from realm.retrieval.candidates import NULL_ROW, CandidateFinder
from realm.tokenizer import WordpieceTokenizer


def test_the_null_passage_is_first(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
) -> None:
    """An empty null passage is added to the top k; in the released code it is number 0."""
    towers = make_towers()
    finder = CandidateFinder(store, num_candidates=4, overlap_limit=0.6)
    examples = [make_example(store, row, "Fermat") for row in (0, 1, 2)]
    rows, _ = finder.find(make_snapshot(towers), torch.randn(3, 16), examples)
    assert all(chosen[0] == NULL_ROW for chosen in rows)
    assert all(NULL_ROW not in chosen[1:] for chosen in rows)


def test_it_is_an_empty_title_and_body_for_embedder_and_encoder(
    store: PassageStore,
    tokenizer: WordpieceTokenizer,
    make_example: Callable[..., MaskedExample],
    lengths: Lengths,
) -> None:
    """Embedder: [CLS] [SEP] [SEP]; encoder: [CLS] x [SEP] [SEP]."""
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert passage_sequence(store, tokenizer, NULL_ROW, 64) == ([cls, sep, sep], [0, 0, 1])
    example = make_example(store, 0, "1607")
    batch = candidate_batch(store, [example], [[NULL_ROW, 3]], lengths)
    assert batch.passages[0] == ([cls, sep, sep], [0, 0, 1])
    ids, segments = batch.joint[0]
    assert ids == [cls, *example.query_ids, sep, sep]
    assert segments == [0] * (len(ids) - 1) + [1]


def test_its_score_depends_on_the_query_and_is_learned(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    make_example: Callable[..., MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """f(x, null) is an inner product like any other, not a constant."""
    towers, encoder = make_towers(share=False), make_encoder()
    examples = [make_example(store, 0, "1607"), make_example(store, 5, "graph")]
    batch = candidate_batch(store, examples, [[NULL_ROW, 3], [NULL_ROW, 4]], lengths)
    scores = score_candidates(towers, batch, budget)
    assert (scores[0, 0] - scores[1, 0]).abs() > 1e-3

    empty = [passage_sequence(store, store.tokenizer, NULL_ROW, lengths.passage)]
    null = embed_in_groups(towers.passage, empty, pad_id=0, batch_tokens=512).detach()
    null.requires_grad_()
    queries = embed_in_groups(towers.query, batch.queries, pad_id=0, batch_tokens=512)
    torch.testing.assert_close(scores[:, 0], (queries * null).sum(dim=-1), rtol=1e-4, atol=1e-4)

    log_probs = read_candidates(encoder, batch, budget)
    log_p = marginal_log_likelihood(scores, log_probs, batch.mask_is_real).sum()
    (gradient,) = torch.autograd.grad(log_p, scores, retain_graph=True)
    assert (gradient[:, 0].abs() > 1e-6).all()
    (into_tower,) = torch.autograd.grad(scores[:, 0].sum(), towers.passage.projection.weight)
    assert into_tower.abs().sum() > 0


def test_it_is_never_in_the_index(
    store: PassageStore, make_towers: Callable[..., Towers], make_snapshot: Callable[..., Snapshot]
) -> None:
    towers = make_towers()
    snapshot = make_snapshot(towers)
    assert len(snapshot) == len(store)
    empty = [passage_sequence(store, store.tokenizer, NULL_ROW, 64)]
    with torch.no_grad():
        null = embed_in_groups(towers.passage, empty, pad_id=0, batch_tokens=512)
    vectors = snapshot.exact[torch.arange(len(store))]
    assert float((vectors - null).norm(dim=-1).min()) > 1e-3
    _, found = snapshot.search(null, len(store))
    assert np.array_equal(np.sort(found[0].numpy()), np.arange(len(store)))
