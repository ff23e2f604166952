"""The classifier of claims: which label a claim has, as far as one passage can tell."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from realm.device import CPU, device_of
from realm.model.bert import (
    Bert,
    bert_settings,
    build_bert,
    hidden_states,
    joining,
    pooled,
    widened,
)
from realm.model.inputs import Inputs, Pack, TokenSequence
from realm.model.realm import Budget


class Classifier(nn.Module):
    """p(label | z, x) = softmax(W h + b), from [CLS] claim [SEP] body of z [SEP].

    h is BERT's pooled output, a dense layer and tanh on [CLS], as in the released code's
    text_classifier_model.
    """

    def __init__(self, bert: Bert, *, labels: Sequence[str]) -> None:
        super().__init__()
        self.bert = bert
        self.labels = tuple(labels)
        """In the order of the logits."""
        self.output = nn.Linear(int(bert.config.hidden_size), len(self.labels))
        nn.init.trunc_normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    @property
    def settings(self) -> dict[str, Any]:
        """What `build_classifier` needs to build an equal module."""
        return {"bert": bert_settings(self.bert), "labels": list(self.labels)}

    def forward(self, inputs: Inputs | Pack) -> Float[Tensor, "rows labels"]:
        """Return the logit of each label for each joint input, in 32 bits."""
        hidden = hidden_states(self.bert, inputs)
        return widened(self.output(pooled(self.bert, hidden, inputs)))


def label_logits(
    classifier: Classifier, inputs: Sequence[TokenSequence], budget: Budget
) -> Float[Tensor, "inputs labels"]:
    """Return the logits of joint inputs in their order, with gradients, in main memory."""
    join, groups_of = joining(classifier.bert)
    groups = list(groups_of([len(ids) for ids, _ in inputs], budget.batch_tokens))
    if not groups:
        return torch.zeros((0, len(classifier.labels)))
    device = device_of(classifier)
    logits = [
        classifier(join([inputs[i] for i in group], budget.pad_id).to(device)) for group in groups
    ]
    order = torch.tensor([i for group in groups for i in group])
    return torch.cat(logits).to(CPU)[order.argsort()]


def build_classifier(settings: dict[str, Any]) -> Classifier:
    """Return a fresh classifier as `Classifier.settings` describes it."""
    return Classifier(build_bert(settings["bert"]), labels=[str(x) for x in settings["labels"]])
