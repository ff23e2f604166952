"""Retrieval utility: what a passage adds over no passage at all (Eq. 2, Appendix D)."""

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.corpus.store import PassageStore
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_minus_null, retrieval_utility
from realm.model.realm import Budget, read_candidates
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import NULL_ROW


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))
def test_ru_is_log_p_y_given_z_minus_log_p_y_given_null(
    candidates: int, masks: int, seed: int
) -> None:
    """Eq. 2: RU(z|x) = log p(y|z,x) - log p(y|null,x); the null passage has 0."""
    chance = torch.Generator().manual_seed(seed)
    p = torch.rand(2, candidates, masks, generator=chance, dtype=torch.float64) * 0.9 + 0.05
    utility = retrieval_utility(p.log(), torch.ones(2, masks, dtype=torch.bool))
    torch.testing.assert_close(utility.exp(), p.prod(dim=-1) / p[:, :1].prod(dim=-1))
    assert (utility[:, 0] == 0.0).all()


def test_what_the_released_code_logs_is_another_number() -> None:
    """It logs log p(y|x) - log p(y|null,x): here log 1.5, where Eq. 2 says log 2 of one passage."""
    scores = torch.zeros(1, 2)
    log_probs = torch.tensor([[[0.25], [0.5]]]).log()
    is_real = torch.ones(1, 1, dtype=torch.bool)
    torch.testing.assert_close(
        marginal_minus_null(scores, log_probs, is_real), torch.tensor([1.5]).log()
    )
    torch.testing.assert_close(
        retrieval_utility(log_probs, is_real), torch.tensor([[1.0, 2.0]]).log()
    )


def test_a_passage_with_nothing_in_it_has_no_utility_through_the_encoder(
    store: PassageStore,
    make_encoder: Callable[..., Encoder],
    make_example: Callable[..., MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """Eq. 2 with p(y|z,x) from the encoder: candidate 0 and only candidate 0 is the null."""
    batch = candidate_batch(
        store, [make_example(store, 0, "1607", "Toulouse")], [[NULL_ROW, 0, 3]], lengths
    )
    with torch.no_grad():
        log_probs = read_candidates(make_encoder(), batch, budget)
    utility = retrieval_utility(log_probs, batch.mask_is_real)[0]
    assert utility[0] == 0.0
    assert (utility[1:].abs() > 1e-3).all()
