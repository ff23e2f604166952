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
    answered = _possible_log_likelihood(span_logits.flatten(0, 1), is_correct.flatten(0, 1))
    is_possible = (is_correct & (span_logits > float("-inf"))).any(dim=-1)
    return torch.where(is_possible, answered.view(is_possible.shape), float("-inf"))


def emdr2_log_likelihood(
    scores: Float[Tensor, "batch passages"],
    span_logits: Float[Tensor, "batch passages spans"],
    is_correct: Bool[Tensor, "batch passages spans"],
) -> Float[Tensor, " batch"]:
    """Return EMDR2's objective of each question, to be maximised; 0 where no span is correct.

    log p(a | q, Z) + log sum_k SG[ p(a | q, z_k) ] p(z_k | q; Z)

    The final objective of section 2 of Singh, Reddy, Hamilton, Dyer and Yogatama 2021 ("End-to-End
    Training of Multi-Document Reader and Retriever for Open-Domain QA"); SG stops the gradient. The
    first term teaches the reader alone, the second (`emdr2_retriever`) the retriever alone.

    Their reader generates from all passages at once. Here p(a | q, Z) is what a span reader answers
    with: the softmax over the spans of all passages together, each raised by SG[ log p(z | q) ].

    Training takes the two terms one by one (`training/objectives.py`); this is what they come to.

    Args:
        scores: f(q, z); p(z | q; Z) is their softmax over the passages read.
        span_logits: of each passage's spans, without its score; -inf where there is no span.
        is_correct: which spans are answers.
    """
    joint = span_logits + scores.detach().log_softmax(dim=-1)[:, :, None]
    reader = _possible_log_likelihood(joint.flatten(1), is_correct.flatten(1))
    return reader + emdr2_retriever(scores, passage_log_likelihood(span_logits, is_correct))


def emdr2_retriever(
    scores: Float[Tensor, "batch passages"], log_p_answer: Float[Tensor, "batch passages"]
) -> Float[Tensor, " batch"]:
    """Return log sum_k SG[ p(a | q, z_k) ] p(z_k | q; Z); 0 where no passage has the answer.

    Its gradient for score k is p(z_k | q, a) - p(z_k | q): the posterior, an E-step with the
    passage as what is hidden, less the prior. (The paper divides scores by a temperature, which
    stays 1 here: the score is what the reader adds to its logits.)

    Args:
        scores: f(q, z), finite.
        log_p_answer: log p(a | q, z) from `passage_log_likelihood`; -inf where it is 0.
    """
    given = log_p_answer.detach()
    has_answer = given > float("-inf")
    lowest = torch.finfo(scores.dtype).min
    joint = torch.where(has_answer, scores + given, lowest).logsumexp(dim=-1)
    return torch.where(has_answer.any(dim=-1), joint - scores.logsumexp(dim=-1), 0.0)


def pdist_loss(
    scores: Float[Tensor, "batch passages"],
    log_p_answer: Float[Tensor, "batch passages"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return perplexity distillation's loss of each question; 0 where no passage has the answer.

    KL( p_k || p(z_k | q) ),  p_k = softmax_k( SG[ log p(a | q, z_k) ] / temperature )

    Section 2.2 of Izacard et al. 2022 ("Atlas: Few-shot Learning with Retrieval Augmented Language
    Models"): p_k is the posterior of the K passages under a uniform prior. The gradient for score k
    is p(z_k | q) - p_k. It teaches the retriever alone: the reader needs a loss of its own.

    Their commands divide both log p(a | q, z), a mean over the answer's wordpieces, and the score
    by 0.01 (`temperature_gold`, `temperature_score`). Here log p is of the whole answer, which is
    what the posterior is made of, and the score stays as the reader adds it.

    Args:
        scores: f(q, z), finite; p(z | q) is their softmax over the K passages.
        log_p_answer: log p(a | q, z) from `passage_log_likelihood`; -inf where it is 0.
        temperature: of the target: above 1 flattens it, towards 0 only the best passage is left.
    """
    given = log_p_answer.detach() / temperature
    has_answer = (given > float("-inf")).any(dim=-1, keepdim=True)
    log_target = torch.where(has_answer, given, 0.0).log_softmax(dim=-1)
    target = log_target.exp()
    gap = torch.where(target > 0, log_target, 0.0) - scores.log_softmax(dim=-1)
    return torch.where(has_answer[:, 0], (target * gap).sum(dim=-1), 0.0)


def _possible_log_likelihood(
    logits: Float[Tensor, "batch choices"], is_correct: Bool[Tensor, "batch choices"]
) -> Float[Tensor, " batch"]:
    """Return `correct_log_likelihood` where some choices, or all, have a logit of -inf.

    The softmax of nothing but -inf would send nan.
    """
    is_possible = logits > float("-inf")
    nothing = ~is_possible.any(dim=-1, keepdim=True)
    return correct_log_likelihood(logits.masked_fill(nothing, 0.0), is_correct & is_possible)
