"""The reader's and ICT's losses; Eq. 1 and its relatives stand in tests/paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.model.likelihood import (
    correct_log_likelihood,
    inverse_cloze_loss,
    marginal_log_likelihood,
)


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
