"""The classifier of claims, and the probability of a label over several passages."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.model.bert import build_bert, hidden_states, pooled
from realm.model.classifier import Classifier, build_classifier, label_logits
from realm.model.inputs import TokenSequence, pad
from realm.model.likelihood import label_log_likelihood
from realm.model.realm import Budget
from realm.retrieval.reading import joint_inputs
from realm.tokenizer import WordpieceTokenizer

LABELS = ("no", "perhaps", "yes")
MakeClassifier = Callable[[], Classifier]


@pytest.fixture
def classifier(bert_shape: dict[str, object]) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build_bert(bert_shape), labels=LABELS).eval()


@pytest.fixture
def inputs(store: PassageStore, tokenizer: WordpieceTokenizer) -> list[TokenSequence]:
    claim = tokenizer.encode("Fermat was born in Basel.").ids
    return joint_inputs(store, claim, [0, 5, 2, 23], 64)


def test_joint_inputs_are_claim_then_body(
    inputs: list[TokenSequence], store: PassageStore, tokenizer: WordpieceTokenizer
) -> None:
    claim = tokenizer.encode("Fermat was born in Basel.").ids
    for (ids, segments), row in zip(inputs, [0, 5, 2, 23], strict=True):
        cls, sep = tokenizer.cls_id, tokenizer.sep_id
        assert ids == [cls, *claim, sep, *store.wordpieces(row).tolist(), sep]
        assert segments == [0] * (len(claim) + 2) + [1] * (len(ids) - len(claim) - 2)


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_logits_are_linear_in_the_pooled_output_whatever_is_read_together(
    classifier: Classifier, inputs: list[TokenSequence], batch_tokens: int
) -> None:
    with torch.no_grad():
        found = label_logits(classifier, inputs, Budget(pad_id=0, batch_tokens=batch_tokens))
        for logits, sequence in zip(found, inputs, strict=True):
            alone = pad([sequence], 0)
            hidden = hidden_states(classifier.bert, alone)
            expected = classifier.output(pooled(classifier.bert, hidden, alone))[0]
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (4, 3)


def test_settings_build_an_equal_classifier(
    classifier: Classifier, inputs: list[TokenSequence]
) -> None:
    again = build_classifier(classifier.settings).eval()
    again.load_state_dict(classifier.state_dict())
    assert again.labels == LABELS
    budget = Budget(pad_id=0, batch_tokens=512)
    with torch.no_grad():
        assert torch.equal(
            label_logits(again, inputs, budget), label_logits(classifier, inputs, budget)
        )


def logits_of(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor([probabilities]).log() + 3.0  # a softmax does not mind


def test_a_label_is_as_probable_as_the_passages_say_on_average() -> None:
    """By hand: 3/4 * 0.2 + 1/4 * 0.6 = 0.3."""
    scores = torch.tensor([[3.0, 1.0]]).log()
    found = label_log_likelihood(scores, logits_of([[0.2, 0.8], [0.6, 0.4]])).exp()
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.7]]))


def test_the_most_probable_label_may_differ_from_that_of_the_most_probable_pair() -> None:
    """The released code would say label 1: its pair with passage 0 is the likeliest, 0.36."""
    scores = torch.tensor([[0.4, 0.3, 0.3]]).log()
    found = label_log_likelihood(scores, logits_of([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])).exp()
    torch.testing.assert_close(found, torch.tensor([[0.58, 0.42]]))


def test_a_passage_is_favoured_that_predicts_the_label_better_than_expected() -> None:
    """The gradient is p(z|x) [p(label|z,x) / p(label|x) - 1], as in Appendix A."""
    scores = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log().requires_grad_()
    label_log_likelihood(scores, logits_of([[0.2, 0.8], [0.6, 0.4]]).double())[0, 0].backward()
    expected = torch.tensor([[0.75 * (0.2 / 0.3 - 1), 0.25 * (0.6 / 0.3 - 1)]])
    torch.testing.assert_close(scores.grad, expected.double(), rtol=1e-5, atol=1e-6)
