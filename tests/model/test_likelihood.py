"""The reader's and ICT's losses; Eq. 1 and its relatives stand in tests/paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.model.likelihood import (
    correct_log_likelihood,
    emdr2_log_likelihood,
    emdr2_retriever,
    inverse_cloze_loss,
    marginal_log_likelihood,
    passage_log_likelihood,
    pdist_loss,
)

NO = float("-inf")


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000))
def test_log_probability_of_all_correct_choices_together(
    batch: int, choices: int, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, choices, generator=chance, dtype=torch.float64)
    is_correct = torch.rand(batch, choices, generator=chance) < 0.4
    found = correct_log_likelihood(logits, is_correct)
    p = logits.softmax(dim=-1)
    for row in range(batch):
        correct = float(p[row][is_correct[row]].sum())
        if is_correct[row].any():
            assert found[row].exp().item() == pytest.approx(correct)
        else:
            assert found[row] == 0.0


def test_a_question_without_a_correct_choice_sends_no_gradient() -> None:
    logits = torch.tensor([[1.0, float("-inf"), 2.0], [1.0, 3.0, 2.0]], requires_grad=True)
    is_correct = torch.tensor([[False, False, False], [True, False, False]])
    correct_log_likelihood(logits, is_correct).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [0.0, 0.0, 0.0]
    expected = torch.tensor([1.0, 0.0, 0.0]) - logits.detach()[1].softmax(dim=-1)
    torch.testing.assert_close(logits.grad[1], expected)


def test_choices_of_no_probability_send_no_gradient_and_no_nan() -> None:
    logits = torch.tensor([[1.0, float("-inf"), 2.0]], requires_grad=True)
    correct_log_likelihood(logits, torch.tensor([[True, False, False]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
    assert logits.grad.isfinite().all()


def test_everything_correct_has_probability_one() -> None:
    logits = torch.tensor([[5.0, -3.0, 0.5]])
    assert correct_log_likelihood(logits, torch.ones(1, 3, dtype=torch.bool)).item() == 0.0


def test_huge_scores_overflow_nowhere() -> None:
    """Scores of the released code span tens; a hundred times that is still a probability."""
    scores = torch.tensor([[5_000.0, -5_000.0, 4_999.0]])
    log_probs = torch.tensor([[[-300.0], [-0.1], [-0.1]]])
    found = marginal_log_likelihood(scores, log_probs, torch.ones(1, 1, dtype=torch.bool))
    expected = scores.double().softmax(dim=-1)[0, 2].log() - 0.1
    assert found.item() == pytest.approx(float(expected), rel=1e-5)


def test_inverse_cloze_loss_is_the_mean_cross_entropy_of_the_own_passage() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    own = torch.tensor([0, 2])
    expected = -(scores.log_softmax(dim=-1)[0, 0] + scores.log_softmax(dim=-1)[1, 2]) / 2
    torch.testing.assert_close(inverse_cloze_loss(scores, own), expected)


def by_hand() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, span logits and answers: p(z|q) = 1/2, 1/4, 1/4; p(a|q,z) = 1/2, 3/4, 0."""
    scores = torch.tensor([[2.0, 1.0, 1.0]]).log()
    logits = torch.tensor([[[1.0, 1.0, 2.0], [3.0, 1.0, 0.0], [1.0, 1.0, 1.0]]]).log() + 5.0
    correct = torch.tensor([[[1, 1, 0], [1, 0, 1], [0, 0, 0]]]).bool()  # a span of log 0 is none
    return scores.double(), logits.double(), correct


def test_a_passage_answers_with_the_share_of_its_own_spans() -> None:
    _, logits, correct = by_hand()
    found = passage_log_likelihood(logits, correct).exp()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.75, 0.0]]).double())


def test_emdr2_by_hand() -> None:
    """Retriever: 1/2 * 1/2 + 1/4 * 3/4 = 7/16. Reader: spans weighed by p(z|q), all together.

    Logits 1, 1, 2 raised by 1/2, and 3, 1 and 1, 1, 1 by 1/4: 1 + 3/4 of 2 + 1 + 3/4.
    """
    scores, logits, correct = by_hand()
    retriever = emdr2_retriever(scores, passage_log_likelihood(logits, correct))
    assert retriever.exp().item() == pytest.approx(7 / 16)
    found = emdr2_log_likelihood(scores, logits, correct)
    assert found.exp().item() == pytest.approx(7 / 16 * (1.75 / 3.75))


def test_pdist_by_hand() -> None:
    """Target 2/5, 3/5, 0 against 1/2, 1/4, 1/4; with temperature 1/2: 4/13, 9/13, 0."""
    scores, logits, correct = by_hand()
    log_p = passage_log_likelihood(logits, correct)
    expected = 0.4 * math.log(0.4 / 0.5) + 0.6 * math.log(0.6 / 0.25)
    assert pdist_loss(scores, log_p).item() == pytest.approx(expected)
    sharp = 4 / 13 * math.log(4 / 13 / 0.5) + 9 / 13 * math.log(9 / 13 / 0.25)
    assert pdist_loss(scores, log_p, temperature=0.5).item() == pytest.approx(sharp)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_objectives_send_their_closed_gradients_and_never_nan(
    batch: int, passages: int, spans: int, seed: int
) -> None:
    """EMDR2: posterior - prior. PDist: prior - target. The reader gets nothing of the latter two.

    Among the random cases are passages without an answer, without a span, and questions that no
    passage answers: these send no gradient at all.
    """
    chance = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, passages, spans, generator=chance, dtype=torch.float64)
    logits[torch.rand(batch, passages, spans, generator=chance) < 0.3] = NO
    logits.requires_grad_()
    scores = torch.randn(batch, passages, generator=chance, dtype=torch.float64).requires_grad_()
    is_correct = torch.rand(batch, passages, spans, generator=chance) < 0.3
    log_p = passage_log_likelihood(logits, is_correct)
    p = log_p.detach().exp()
    is_answered = (p > 0).any(dim=-1, keepdim=True)
    prior = scores.detach().softmax(dim=-1)
    posterior = prior * p / (prior * p).sum(dim=-1, keepdim=True)
    target = p.sqrt() / p.sqrt().sum(dim=-1, keepdim=True)
    cases = [
        (emdr2_retriever(scores, log_p), posterior - prior),
        (pdist_loss(scores, log_p, temperature=2.0), prior - target),
    ]
    for value, expected in cases:
        assert value.isfinite().all()
        assert (value.detach()[~is_answered[:, 0]] == 0).all()
        got, none = torch.autograd.grad(value.sum(), [scores, logits], allow_unused=True)
        torch.testing.assert_close(got, torch.where(is_answered, expected, 0.0))
        assert none is None
    whole = emdr2_log_likelihood(scores, logits, is_correct)
    to_scores, to_logits = torch.autograd.grad(whole.sum(), [scores, logits])
    torch.testing.assert_close(to_scores, torch.where(is_answered, posterior - prior, 0.0))
    joint = (logits.detach() + prior.log()[:, :, None]).flatten(1)
    everything = joint.masked_fill(~(joint > NO).any(dim=-1, keepdim=True), 0.0).softmax(dim=-1)
    right = everything * is_correct.flatten(1)
    reader = right / right.sum(dim=-1, keepdim=True) - everything
    torch.testing.assert_close(to_logits.flatten(1), torch.where(is_answered, reader, 0.0))


def test_pdist_is_least_where_the_retriever_is_the_posterior() -> None:
    log_p = torch.tensor([[0.5, 0.25, 0.0]]).log()
    scores = torch.tensor([[2.0, 1.0, 1e-30]]).log()
    assert pdist_loss(scores, log_p).item() == pytest.approx(0.0, abs=1e-6)
