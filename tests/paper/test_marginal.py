"""The generative process: retrieve, then predict, marginalised over the passages (Eq. 1)."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.model.embedder import Towers
from realm.model.encoder import Encoder
from realm.model.likelihood import (
    marginal_log_likelihood,
    retrieval_utility,
    token_marginal_log_likelihood,
)
from realm.model.realm import Budget, read_candidates, score_candidates
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4))


def random_problem(
    shape: tuple[int, int, int], seed: int, spread: float = 3.0
) -> tuple[Tensor, Tensor, Tensor]:
    batch, candidates, masks = shape
    chance = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(batch, candidates, generator=chance, dtype=torch.float64)
    log_probs = -spread * torch.rand(batch, candidates, masks, generator=chance).double()
    num_real = torch.randint(1, masks + 1, (batch, 1), generator=chance)
    return scores, log_probs, torch.arange(masks)[None] < num_real


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 10_000))
def test_p_y_given_x_is_the_sum_over_z_of_p_y_given_z_x_times_p_z_given_x(
    shape: tuple[int, int, int], seed: int
) -> None:
    """Eq. 1 with p(y|z,x) = prod_j p(y_j|z,x) (section 3.2), by brute force."""
    scores, log_probs, is_real = random_problem(shape, seed)
    found = marginal_log_likelihood(scores, log_probs, is_real)
    for row in range(len(scores)):
        weights = [math.exp(s) for s in scores[row].tolist()]
        p_y = 0.0
        for z, weight in enumerate(weights):
            p_y_given_z = 1.0
            for j in range(is_real.shape[1]):
                if is_real[row, j]:
                    p_y_given_z *= math.exp(log_probs[row, z, j])
            p_y += weight / sum(weights) * p_y_given_z
        assert found[row].item() == pytest.approx(math.log(p_y), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 4), st.integers(0, 10_000))
def test_p_y_given_x_sums_to_one_over_all_y(
    num_candidates: int, num_masks: int, vocab: int, seed: int
) -> None:
    """Eq. 1 defines a distribution over y: enumerate every y of a small vocabulary."""
    chance = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, num_candidates, generator=chance, dtype=torch.float64)
    logits = torch.randn(num_candidates, num_masks, vocab, generator=chance, dtype=torch.float64)
    log_p = logits.log_softmax(dim=-1)
    total = 0.0
    for y in product(range(vocab), repeat=num_masks):
        gold = torch.stack([log_p[:, j, piece] for j, piece in enumerate(y)], dim=-1)
        is_real = torch.ones(1, num_masks, dtype=torch.bool)
        total += marginal_log_likelihood(scores, gold[None], is_real).exp().item()
    assert total == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_the_modules_compute_eq_1_as_a_pair_at_a_time_would(
    *,
    share: bool,
    pooling: str,
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    make_example: Callable[..., MaskedExample],
    plain: Callable[..., tuple[Tensor, list[list[Tensor]]]],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """Eq. 1 through Embed_input, Embed_doc and the encoder, against unpadded plain arithmetic."""
    towers, encoder = make_towers(share=share, pooling=pooling), make_encoder()
    examples = [
        make_example(store, 0, "1607", "Toulouse"),
        make_example(store, 5, "graph"),
        make_example(store, 10, "Noether", "Erlangen", "teacher"),
    ]
    rows = [[NULL_ROW, 3, 7, 2], [NULL_ROW, 8, 2, MISSING_ROW], [NULL_ROW, 9, 11, 3]]
    batch = candidate_batch(store, examples, rows, lengths)
    with torch.no_grad():
        scores = score_candidates(towers, batch, budget)
        log_probs = read_candidates(encoder, batch, budget)
        log_p = marginal_log_likelihood(scores, log_probs, batch.mask_is_real)
        for number, (example, chosen) in enumerate(zip(examples, rows, strict=True)):
            plain_scores, plain_log_probs = plain(store, towers, encoder, example, chosen)
            torch.testing.assert_close(scores[number], plain_scores, rtol=1e-5, atol=1e-5)
            p_z = plain_scores.softmax(dim=0)
            p_y_given_z = torch.tensor([math.exp(sum(pair)) for pair in plain_log_probs])
            torch.testing.assert_close(
                log_p[number].exp(), (p_z * p_y_given_z).sum(), rtol=1e-4, atol=0.0
            )
            count = len(example.target_ids)
            torch.testing.assert_close(
                log_probs[number, :, :count][batch.is_real[number]],
                torch.tensor(plain_log_probs)[batch.is_real[number]],
                rtol=1e-4,
                atol=1e-4,
            )


def test_p_z_given_x_is_a_softmax_over_the_candidates_so_a_constant_changes_nothing() -> None:
    """Section 3.2: p(z|x) = exp f(x,z) / sum_z' exp f(x,z')."""
    scores, log_probs, is_real = random_problem((2, 4, 2), seed=5)
    torch.testing.assert_close(
        marginal_log_likelihood(scores + 100.0, log_probs, is_real),
        marginal_log_likelihood(scores, log_probs, is_real),
    )


def test_a_candidate_that_is_left_out_has_no_part_in_the_marginal() -> None:
    scores, log_probs, is_real = random_problem((2, 4, 2), seed=6)
    shortened = marginal_log_likelihood(scores[:, :3], log_probs[:, :3], is_real)
    scores[:, 3] = float("-inf")
    torch.testing.assert_close(marginal_log_likelihood(scores, log_probs, is_real), shortened)
    torch.testing.assert_close(
        token_marginal_log_likelihood(scores, log_probs, is_real),
        token_marginal_log_likelihood(scores[:, :3], log_probs[:, :3], is_real),
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000))
def test_span_and_token_marginal_agree_for_one_mask(batch: int, candidates: int, seed: int) -> None:
    """The released code sums over z for each [MASK] by itself; with one there is no difference."""
    scores, log_probs, is_real = random_problem((batch, candidates, 1), seed)
    torch.testing.assert_close(
        marginal_log_likelihood(scores, log_probs, is_real),
        token_marginal_log_likelihood(scores, log_probs, is_real),
    )


def worked_example(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return both marginals of two equally likely passages with p(y_1|z), p(y_2|z) given."""
    scores = torch.zeros(1, 2, dtype=torch.float64)
    log_probs = torch.tensor([list(zip(first, second, strict=True))], dtype=torch.float64).log()
    is_real = torch.ones(1, 2, dtype=torch.bool)
    return (
        marginal_log_likelihood(scores, log_probs, is_real).exp().item(),
        token_marginal_log_likelihood(scores, log_probs, is_real).exp().item(),
    )


def test_span_and_token_marginal_differ_for_two_masks() -> None:
    """Two masks, two passages of p(z|x) = 1/2, of which one knows both pieces.

    span 1/2 (0.8 x 0.8) + 1/2 (0.2 x 0.2) = 0.34; token [1/2 (0.8 + 0.2)]^2 = 0.25.
    """
    assert worked_example((0.8, 0.2), (0.8, 0.2)) == pytest.approx((0.34, 0.25))


def test_neither_marginal_bounds_the_other() -> None:
    """Each passage knows one piece: span 0.8 x 0.2 = 0.16, token still 0.25.

    span - token is the covariance over z of p(y_1|z,x) and p(y_2|z,x), of either sign.
    """
    assert worked_example((0.8, 0.2), (0.2, 0.8)) == pytest.approx((0.16, 0.25))


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 10_000))
def test_both_marginals_are_at_least_the_expected_log_likelihood(
    shape: tuple[int, int, int], seed: int
) -> None:
    """Jensen: log sum_z p(z|x) p(y|z,x) >= sum_z p(z|x) log p(y|z,x), and so for each mask."""
    scores, log_probs, is_real = random_problem(shape, seed)
    real = log_probs.masked_fill(~is_real[:, None], 0.0).sum(dim=-1)
    expected = (scores.softmax(dim=-1) * real).sum(dim=-1)
    assert (marginal_log_likelihood(scores, log_probs, is_real) >= expected - 1e-9).all()
    assert (token_marginal_log_likelihood(scores, log_probs, is_real) >= expected - 1e-9).all()


def test_masks_that_are_padding_do_not_count() -> None:
    scores, log_probs, _ = random_problem((1, 3, 3), seed=7)
    is_real = torch.tensor([[True, True, False]])
    for objective in (marginal_log_likelihood, token_marginal_log_likelihood):
        found = objective(scores, log_probs, is_real)
        torch.testing.assert_close(
            found, objective(scores, log_probs[..., :2], is_real[:, :2]), rtol=0.0, atol=1e-12
        )
    utility = retrieval_utility(log_probs, is_real)
    torch.testing.assert_close(utility, retrieval_utility(log_probs[..., :2], is_real[:, :2]))
