"""Retrieve-then-predict likelihoods: the paper's equations as pure tensor functions.

All logarithms are natural; all scores are inner products f(x, z) under current parameters.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


def marginal_log_likelihood(
    scores: Float[Tensor, "batch candidates"],
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    mask_is_real: Bool[Tensor, "batch masks"],
) -> Float[Tensor, " batch"]:
    """Return log p(y | x), marginalised over the candidates (Eq. 1).

    log p(y|x) = logsumexp_z [ log p(z|x) + sum_j log p(y_j|z,x) ]

    Args:
        scores: f(x, z); p(z|x) is their softmax, which sums to 1 over the candidates. A score of
            -inf leaves a candidate out.
        mask_log_probs: log p(y_j | z, x) of the gold wordpiece at each [MASK], in nats.
        mask_is_real: False where the masks axis is padding.

    Differs from the released code, which marginalises each [MASK] on its own
    (`token_marginal_log_likelihood`). The two agree when an example has one [MASK].
    """
    return torch.logsumexp(
        scores.log_softmax(dim=-1) + span_log_probs(mask_log_probs, mask_is_real), dim=-1
    )


def token_marginal_log_likelihood(
    scores: Float[Tensor, "batch candidates"],
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    mask_is_real: Bool[Tensor, "batch masks"],
) -> Float[Tensor, " batch"]:
    """Return sum_j logsumexp_z [ log p(z|x) + log p(y_j|z,x) ]: the released code's objective.

    Args:
        scores: f(x, z).
        mask_log_probs: log p(y_j | z, x) of the gold wordpiece at each [MASK].
        mask_is_real: False where the masks axis is padding.
    """
    log_p_z = scores.log_softmax(dim=-1)[:, :, None]
    per_mask = torch.logsumexp(log_p_z + mask_log_probs, dim=1)
    return per_mask.masked_fill(~mask_is_real, 0.0).sum(dim=-1)


def span_log_probs(
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    mask_is_real: Bool[Tensor, "batch masks"],
) -> Float[Tensor, "batch candidates"]:
    """Return log p(y | z, x) = sum_j log p(y_j | z, x), masks given z independent (section 3.2)."""
    return mask_log_probs.masked_fill(~mask_is_real[:, None], 0.0).sum(dim=-1)


def retrieval_utility(
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    mask_is_real: Bool[Tensor, "batch masks"],
) -> Float[Tensor, "batch candidates"]:
    """Return RU(z|x) = log p(y|z,x) - log p(y|null,x) of every candidate (Eq. 2).

    Candidate 0 is the null passage, whose utility is 0 by definition.
    """
    log_p_y = span_log_probs(mask_log_probs, mask_is_real)
    return log_p_y - log_p_y[:, :1]


def marginal_minus_null(
    scores: Float[Tensor, "batch candidates"],
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    mask_is_real: Bool[Tensor, "batch masks"],
) -> Float[Tensor, " batch"]:
    """Return log p(y|x) - log p(y|null,x): what the released code logs as retrieval utility."""
    null = span_log_probs(mask_log_probs, mask_is_real)[:, 0]
    return marginal_log_likelihood(scores, mask_log_probs, mask_is_real) - null


def score_gradient(
    scores: Float[Tensor, "batch candidates"],
    mask_log_probs: Float[Tensor, "batch candidates masks"],
    mask_is_real: Bool[Tensor, "batch masks"],
) -> Float[Tensor, "batch candidates"]:
    """Return r(z) = [ p(y|z,x) / p(y|x) - 1 ] p(z|x) = d log p(y|x) / d f(x,z) (Appendix A).

    Positive exactly for passages that predict y better than expected. Computed as
    p(z|x,y) - p(z|x), the same by Bayes' rule, which cannot overflow.
    """
    log_p_y = span_log_probs(mask_log_probs, mask_is_real)
    return (scores + log_p_y).softmax(dim=-1) - scores.softmax(dim=-1)


def correct_log_likelihood(
    logits: Float[Tensor, "batch choices"], is_correct: Bool[Tensor, "batch choices"]
) -> Float[Tensor, " batch"]:
    """Return log of the probability of all correct choices together; 0 where none is correct.

    log p = logsumexp(correct logits) - logsumexp(all logits): the reader's loss over spans and
    the retriever's early loss over passages (ORQA). A question without a correct choice
    contributes nothing, as released.
    """
    any_correct = is_correct.any(dim=-1)
    lowest = torch.finfo(logits.dtype).min
    correct = logits.masked_fill(~is_correct, lowest).logsumexp(dim=-1)
    return torch.where(any_correct, correct - logits.logsumexp(dim=-1), 0.0)


def label_log_likelihood(
    scores: Float[Tensor, "batch passages"], label_logits: Float[Tensor, "batch passages labels"]
) -> Float[Tensor, "batch labels"]:
    """Return log p(label | x) of every label, marginalised over the passages read (as Eq. 1).

    log p(label|x) = logsumexp_z [ log p(z|x) + log p(label|z,x) ]

    Args:
        scores: f(x, z); p(z|x) is their softmax over the passages read.
        label_logits: of the labels, given one passage each; p(label|z,x) is their softmax.

    Differs from the released code (text_classifier_model), which adds the score to every logit of
    its passage and takes one softmax over all pairs of passage and label: a passage counts there
    by the sum of its labels' exp(logit), too. It trains on the sum of the right label's column,
    as here, and answers with the label of the single most probable pair, where here the most
    probable label wins.
    """
    log_p_label = label_logits.log_softmax(dim=-1)
    return torch.logsumexp(scores.log_softmax(dim=-1)[:, :, None] + log_p_label, dim=1)


def inverse_cloze_loss(
    scores: Float[Tensor, "queries passages"], own: Int[Tensor, " queries"]
) -> Float[Tensor, ""]:
    """Return the mean softmax cross-entropy of each pseudo-query's own passage in the batch.

    No temperature, queries to passages only (ORQA, section 5.1).
    """
    return cross_entropy(scores, own)


def passage_log_likelihood(
    span_logits: Float[Tensor, "batch passages spans"],
    is_correct: Bool[Tensor, "batch passages spans"],
) -> Float[Tensor, "batch passages"]:
    """Return log p(a | q, z) of a span reader, for each passage on its own.

    p(a | q, z) is the sum of the softmax over z's own spans at those that are answers. -inf where
    none is, or where z has no span at all; no gradient goes there, and none is nan.

    Args:
        span_logits: of each passage's spans, without the passage's score; -inf where there is no
            span (padding).
        is_correct: which spans are answers.
    """
    is_correct = is_correct & (span_logits > float("-inf"))
    correct = correct_log_likelihood(span_logits, is_correct)
    return torch.where(is_correct.any(dim=-1), correct, float("-inf"))


def emdr2_log_likelihood(
    scores: Float[Tensor, "batch passages"],
    span_logits: Float[Tensor, "batch passages spans"],
    is_correct: Bool[Tensor, "batch passages spans"],
) -> Float[Tensor, " batch"]:
    """Return EMDR2's objective of each question, to be maximised; 0 where no span is correct.

    log p(a | q, Z) + log sum_k SG[ p(a | q, z_k) ] p(z_k | q; Z)

    Equation 6 of Singh, Reddy, Hamilton, Dyer and Yogatama 2021 ("End-to-End Training of
    Multi-Document Reader and Retriever for Open-Domain QA"); SG stops the gradient. The first
    term teaches the reader alone, and the second the retriever alone: its gradient for score k is
    p(z_k | q, a) - p(z_k | q), an E-step of expectation maximisation with Z as what is hidden.

    Their reader reads all passages at once. Here p(a | q, Z) is the softmax over the spans of all
    passages together, without their scores, which is what such a span reader can say by itself.

    Args:
        scores: f(q, z); p(z | q; Z) is their softmax over the passages read. -inf leaves one out
            of both terms.
        span_logits: of each passage's spans, without its score; -inf where there is no span.
        is_correct: which spans are answers.
    """
    is_read = scores > float("-inf")
    logits = span_logits.masked_fill(~is_read[:, :, None], float("-inf"))
    is_correct = is_correct & (logits > float("-inf"))
    reader = correct_log_likelihood(logits.flatten(1), is_correct.flatten(1))
    log_p_answer = passage_log_likelihood(logits, is_correct).detach()
    return reader + _log_mean(scores, log_p_answer)


def pdist_loss(
    scores: Float[Tensor, "batch passages"],
    span_logits: Float[Tensor, "batch passages spans"],
    is_correct: Bool[Tensor, "batch passages spans"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return perplexity distillation's loss of each question; 0 where no span is correct.

    KL( p_k || p(z_k | q) ), p_k = softmax_k( log p(a | q, z_k) / temperature ), no gradient to p_k

    Section 2.2 of Izacard et al. 2022 ("Atlas: Few-shot Learning with Retrieval Augmented Language
    Models"), where p_k is the posterior of the passages under a uniform prior, and retriever
    and target may each have a temperature. The retriever's is 1 here, since its score is what
    the reader adds to its logits. The gradient for score k is p(z_k | q) - p_k. It teaches the
    retriever alone: the reader needs a loss of its own.

    Args:
        scores: f(q, z); p(z | q) is their softmax over the passages. -inf leaves one out of both
            distributions.
        span_logits: of each passage's spans, without its score; -inf where there is no span.
        is_correct: which spans are answers.
        temperature: of the target; above 1 flattens it, to 0 it is the best passage alone.
    """
    is_read = scores > float("-inf")
    log_p_answer = passage_log_likelihood(span_logits, is_correct).detach()
    target_logits = (log_p_answer / temperature).masked_fill(~is_read, float("-inf"))
    any_correct = (target_logits > float("-inf")).any(dim=-1, keepdim=True)
    target = torch.where(any_correct, target_logits, 0.0).softmax(dim=-1)
    log_p = scores.masked_fill(~is_read, torch.finfo(scores.dtype).min).log_softmax(dim=-1)
    # 0 log 0 = 0, for passages without an answer
    divergence = torch.where(target > 0, target * (target.log() - log_p), 0.0).sum(dim=-1)
    return torch.where(any_correct[:, 0], divergence, 0.0)


def _log_mean(
    scores: Float[Tensor, "batch passages"], log_p: Float[Tensor, "batch passages"]
) -> Float[Tensor, " batch"]:
    """Return log sum_k p_k softmax(scores)_k; 0, without a gradient, where every p is 0."""
    lowest = torch.finfo(scores.dtype).min
    is_possible = (log_p > float("-inf")) & (scores > float("-inf"))
    kept = torch.where(is_possible, scores + log_p, lowest).logsumexp(dim=-1)
    total = scores.masked_fill(scores == float("-inf"), lowest).logsumexp(dim=-1)
    return torch.where(is_possible.any(dim=-1), kept - total, 0.0)
