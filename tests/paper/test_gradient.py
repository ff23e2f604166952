"""What the retriever learns from: the gradient of Eq. 1 (section 3.3, Appendices A and B)."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.model.embedder import Towers
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood, score_gradient, span_log_probs
from realm.model.realm import Budget, read_candidates, score_candidates
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW


def random_problem(candidates: int, masks: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(2, candidates, generator=chance, dtype=torch.float64)
    log_probs = -3 * torch.rand(2, candidates, masks, generator=chance, dtype=torch.float64)
    return scores.requires_grad_(), log_probs, torch.ones(2, masks, dtype=torch.bool)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_the_gradient_of_log_p_y_is_r_z(candidates: int, masks: int, seed: int) -> None:
    """Appendix A: d log p(y|x) / d f(x,z) = [p(y|z,x) / p(y|x) - 1] p(z|x), in 64 bits."""
    scores, log_probs, is_real = random_problem(candidates, masks, seed)
    log_p = marginal_log_likelihood(scores, log_probs, is_real)
    (by_autograd,) = torch.autograd.grad(log_p.sum(), scores)
    p_y_given_z = log_probs.sum(dim=-1).exp()
    by_formula = (p_y_given_z / log_p.exp()[:, None] - 1) * scores.softmax(dim=-1)
    torch.testing.assert_close(by_autograd, by_formula)
    torch.testing.assert_close(score_gradient(scores, log_probs, is_real), by_formula)


def test_the_gradient_of_log_p_y_is_r_z_through_the_modules(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    make_example: Callable[..., MaskedExample],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """Appendix A with f(x,z) from the towers and p(y|z,x) from the encoder."""
    towers, encoder = make_towers(), make_encoder()
    examples = [make_example(store, 0, "1607", "Toulouse"), make_example(store, 5, "graph")]
    rows = [[NULL_ROW, 3, 7, 2], [NULL_ROW, 8, 2, MISSING_ROW]]
    batch = candidate_batch(store, examples, rows, lengths)
    scores = score_candidates(towers, batch, budget)
    log_probs = read_candidates(encoder, batch, budget)
    log_p = marginal_log_likelihood(scores, log_probs, batch.mask_is_real)
    (by_autograd,) = torch.autograd.grad(log_p.sum(), scores, retain_graph=True)
    p_y_given_z = span_log_probs(log_probs, batch.mask_is_real).exp()
    by_formula = (p_y_given_z / log_p.exp()[:, None] - 1) * scores.softmax(dim=-1)
    torch.testing.assert_close(by_autograd, by_formula, rtol=1e-4, atol=1e-6)
    assert by_autograd[1, 3] == 0.0
    assert by_autograd.abs().max() > 1e-3


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 10_000))
def test_a_passage_gains_score_iff_it_predicts_better_than_expected(
    candidates: int, masks: int, seed: int
) -> None:
    """Section 3.3: r(z) is positive iff p(y|z,x) > p(y|x), the expectation of p(y|z,x)."""
    scores, log_probs, is_real = random_problem(candidates, masks, seed)
    log_p = marginal_log_likelihood(scores, log_probs, is_real)
    (gradient,) = torch.autograd.grad(log_p.sum(), scores)
    is_better = span_log_probs(log_probs, is_real) > log_p[:, None]
    torch.testing.assert_close(gradient > 0, is_better)
    torch.testing.assert_close(score_gradient(scores.detach(), log_probs, is_real) > 0, is_better)


def test_what_some_passages_gain_the_others_lose() -> None:
    """The r(z) of a query sum to 0: p(z|x) is a softmax."""
    scores, log_probs, is_real = random_problem(5, 3, seed=1)
    total = score_gradient(scores.detach(), log_probs, is_real).sum(dim=-1)
    torch.testing.assert_close(total, torch.zeros(2, dtype=torch.float64), rtol=0.0, atol=1e-12)


def test_no_passage_moves_when_all_predict_alike() -> None:
    scores, _, is_real = random_problem(5, 3, seed=2)
    alike = torch.full((2, 5, 3), -0.7, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(marginal_log_likelihood(scores, alike, is_real).sum(), scores)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0.0, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_when_one_passage_explains_y_the_gradient_is_that_of_supervised_retrieval(
    candidates: int, seed: int, p_y: float
) -> None:
    """Appendix B: if only z* gives y any probability, grad log p(y|x) = grad log p(z*|x)."""
    scores, _, _ = random_problem(candidates, 1, seed)
    best = seed % candidates
    log_probs = torch.full((2, candidates, 1), float("-inf"), dtype=torch.float64)
    log_probs[:, best] = torch.tensor(p_y, dtype=torch.float64).log()
    is_real = torch.ones(2, 1, dtype=torch.bool)
    log_p = marginal_log_likelihood(scores, log_probs, is_real)
    (gradient,) = torch.autograd.grad(log_p.sum(), scores)
    (supervised,) = torch.autograd.grad(scores.log_softmax(dim=-1)[:, best].sum(), scores)
    torch.testing.assert_close(gradient, supervised)


@pytest.mark.parametrize("gap", [200.0, 1e5])
def test_r_z_stays_finite_where_a_ratio_of_probabilities_would_overflow(gap: float) -> None:
    scores = torch.tensor([[0.0, -gap, float("-inf")]])
    log_probs = torch.tensor([[[-gap / 2], [-1.0], [-1.0]]])
    gradient = score_gradient(scores, log_probs, torch.ones(1, 1, dtype=torch.bool))
    assert gradient.isfinite().all()
    assert gradient[0, 2] == 0.0
