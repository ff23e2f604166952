"""What a question teaches reader and retriever, by objective; the equations are tested in model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from realm.config import FinetuneConfig
from realm.model.likelihood import (
    correct_log_likelihood,
    emdr2_log_likelihood,
    passage_log_likelihood,
    pdist_loss,
)
from realm.training.objectives import QuestionLoss, prior_scores, question_loss

SIZES = (6, 4, 8)


def case(seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Three passages of several lengths, spans of two widths, the last passage without answer."""
    chance = torch.Generator().manual_seed(seed)
    logits = [torch.randn(size // 2, 2, generator=chance) for size in SIZES]
    logits[1][-1, 1] = float("-inf")
    correct = torch.rand(sum(SIZES), generator=chance) < 0.4
    correct[0], correct[-SIZES[-1] :] = True, False
    return logits, correct, torch.randn(3, generator=chance, requires_grad=True)


def losses(config: FinetuneConfig, *, null: float | None = None) -> tuple[QuestionLoss, Tensor]:
    """Return the losses as a job computes them, and the scores that they may teach."""
    logits, correct, scores = case()
    prior = prior_scores(scores, config).log_softmax(dim=0)
    raised = [part + one for part, one in zip(logits, prior, strict=True)]
    if null is not None:
        raised.append(torch.tensor([[null, float("-inf")]]))
        correct = torch.cat([correct, torch.tensor([False, False])])
    return question_loss(raised, correct, scores, config), scores


def padded() -> tuple[Tensor, Tensor]:
    """Return the spans and answers of `case` with one axis of passages."""
    logits, correct, _ = case()
    flat = [part.reshape(-1) for part in logits]
    spans = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=float("-inf"))
    marks = torch.nn.utils.rnn.pad_sequence(list(correct.split(SIZES)), batch_first=True)
    return spans[None], marks[None]


def gradient(loss: Tensor, scores: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, scores)
    return found


def test_in_the_papers_objective_the_readers_loss_teaches_the_retriever() -> None:
    found, scores = losses(FinetuneConfig())
    logits, correct, _ = case()
    prior = scores.log_softmax(dim=0)
    flat = torch.cat([(a + b).reshape(-1) for a, b in zip(logits, prior, strict=True)])
    expected = -correct_log_likelihood(flat[None], correct[None])[0]
    torch.testing.assert_close(found.reader, expected)
    assert found.retriever == 0.0
    torch.testing.assert_close(gradient(found.reader, scores), gradient(expected, scores))


def test_emdr2_is_that_of_the_model_whatever_the_passages_lengths() -> None:
    found, scores = losses(FinetuneConfig(objective="emdr2"))
    expected = -emdr2_log_likelihood(scores[None], *padded())[0]
    torch.testing.assert_close(found.reader + found.retriever, expected)
    assert not found.reader.requires_grad
    torch.testing.assert_close(gradient(found.retriever, scores), gradient(expected, scores))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_pdist_is_that_of_the_model(temperature: float) -> None:
    config = FinetuneConfig(objective="pdist", pdist_temperature=temperature)
    found, scores = losses(config)
    log_p = passage_log_likelihood(*padded())
    expected = pdist_loss(scores[None], log_p, temperature=temperature)[0]
    torch.testing.assert_close(found.retriever, expected)
    assert not found.reader.requires_grad
    torch.testing.assert_close(gradient(found.retriever, scores), gradient(expected, scores))


@pytest.mark.parametrize("objective", ["emdr2", "pdist"])
def test_the_null_passage_competes_in_the_reader_and_teaches_the_retriever_nothing(
    objective: Any,
) -> None:
    config = FinetuneConfig(objective=objective)
    (without, scores), (with_it, again) = losses(config), losses(config, null=1.0)
    assert with_it.reader > without.reader
    torch.testing.assert_close(with_it.retriever, without.retriever)
    torch.testing.assert_close(
        gradient(with_it.retriever, again), gradient(without.retriever, scores)
    )
