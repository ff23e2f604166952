"""What a question teaches reader and retriever: the objectives of `finetune.objective`.

marginal is the paper's: one likelihood, whose gradient goes to both. In the other two the reader
learns with the passages' probabilities as they are, and the retriever from how well the reader
answers with each passage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from realm.config import FinetuneConfig
from realm.model.likelihood import (
    correct_log_likelihood,
    emdr2_retriever,
    passage_log_likelihood,
    pdist_loss,
)


class QuestionLoss(NamedTuple):
    """The losses of one question, in nats."""

    reader: Float[Tensor, ""]
    retriever: Float[Tensor, ""]
    """What the reader's answers teach the retriever; 0 where the reader's loss does (marginal)."""


def prior_scores(scores: Float[Tensor, " read"], config: FinetuneConfig) -> Float[Tensor, " read"]:
    """Return the scores that raise the reader's logits; their gradient counts in marginal only."""
    return scores if config.objective == "marginal" else scores.detach()


def question_loss(
    logits: Sequence[Float[Tensor, "_ widths"]],
    correct: Bool[Tensor, " spans"],
    scores: Float[Tensor, " read"],
    config: FinetuneConfig,
) -> QuestionLoss:
    """Return the losses of one question.

    Args:
        logits: of the spans of each passage, raised by log p(z|x) of `prior_scores`; where there is
            one more than there are scores, it is the null passage's.
        correct: which of the flattened spans are right.
        scores: f(x, z) of the passages read.
        config: objective and temperature.
    """
    flat = torch.cat([part.reshape(-1) for part in logits])
    reader = -correct_log_likelihood(flat[None], correct[None])[0]
    if config.objective == "marginal":
        return QuestionLoss(reader, torch.zeros(()))
    sizes = [part.numel() for part in logits]
    # log p(z|x), the same for all spans of a passage, is nothing to the softmax over them
    log_p_answer = torch.stack(
        [
            passage_log_likelihood(part.detach().reshape(1, 1, -1), marks[None, None])[0, 0]
            for part, marks in zip(logits, correct.split(sizes), strict=True)
        ]
    )[None, : len(scores)]
    if config.objective == "emdr2":
        return QuestionLoss(reader, -emdr2_retriever(scores[None], log_p_answer)[0])
    temperature = config.pdist_temperature
    return QuestionLoss(reader, pdist_loss(scores[None], log_p_answer, temperature=temperature)[0])
