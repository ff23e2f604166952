"""The span reader for Open-QA: which words of the passage answer the question (ORQA)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from realm.model.bert import Bert, bert_settings, build_bert, can_pack, hidden_states, widened
from realm.model.inputs import Inputs, Pack

NORM_EPS = 1e-3
"""Of the released code's layer norm over span features."""


class Reader(nn.Module):
    """Scores every span of at most `max_answer_wordpieces` inside the passage.

    h(span) = LayerNorm(ReLU(W_start BERT_start + W_end BERT_end)), score = w . h + b, with
    `span_hidden` units and eps 1e-3 as released. The retriever's inner product is added by the
    caller, before the softmax over the spans of all passages together.

    With `reads_null` it also learned what to say of the null passage, [CLS] question [SEP] [SEP],
    whose one span, the last [SEP], stands for "no answer in what was read".
    """

    def __init__(
        self,
        bert: Bert,
        *,
        span_hidden: int,
        max_answer_wordpieces: int,
        norm_eps: float = NORM_EPS,
        reads_null: bool = False,
    ) -> None:
        super().__init__()
        self.bert = bert
        self.reads_null = reads_null
        self.max_answer_wordpieces = max_answer_wordpieces
        self.span_hidden = span_hidden
        self.projection = nn.Linear(int(bert.config.hidden_size), 2 * span_hidden)
        self.norm = nn.LayerNorm(span_hidden, eps=norm_eps)
        self.score = nn.Linear(span_hidden, 1)
        for layer in (self.projection, self.score):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    @property
    def settings(self) -> dict[str, Any]:
        """What `build_reader` needs to build an equal module."""
        return {
            "bert": bert_settings(self.bert),
            "span_hidden": self.span_hidden,
            "max_answer_wordpieces": self.max_answer_wordpieces,
            "norm_eps": self.norm.eps,
            "reads_null": self.reads_null,
        }

    def forward(
        self, inputs: Inputs, in_passage: Bool[Tensor, "rows length"]
    ) -> Float[Tensor, "rows length widths"]:
        """Return the logit of each span, -inf outside the passage.

        Args:
            inputs: joint inputs [CLS] question [SEP] body [SEP].
            in_passage: True at the body's wordpieces.

        Returns:
            logits[r, s, w] of the span of w + 1 wordpieces that starts at s.
        """
        return self._score(hidden_states(self.bert, inputs), in_passage.long() - 1)

    @property
    def can_pack(self) -> bool:
        """Whether `read_packed` is there."""
        return can_pack(self.bert)

    def read_packed(
        self,
        pack: Pack,
        owners: Int[Tensor, "1 length"],
    ) -> Float[Tensor, "1 length widths"]:
        """Return the logits of the spans of sequences that stand one after the other.

        Nothing is padded, and what is read of one sequence does not depend on those beside it.

        Args:
            pack: the joint inputs.
            owners: the number of its sequence at the body's wordpieces, -1 elsewhere.
        """
        return self._score(hidden_states(self.bert, pack), owners)

    def _score(
        self, hidden: Float[Tensor, "rows length width"], owners: Int[Tensor, "rows length"]
    ) -> Float[Tensor, "rows length widths"]:
        """Return the logit of each span that stays within one body, -inf of all others."""
        widths = self.max_answer_wordpieces
        starts, ends = self.projection(hidden).split(self.span_hidden, dim=-1)
        padded_ends = nn.functional.pad(ends, (0, 0, 0, widths - 1))
        per_width = [padded_ends[:, w : w + starts.shape[1]] for w in range(widths)]
        spans = torch.relu(starts[:, :, None] + torch.stack(per_width, dim=2))
        logits = widened(self.score(self.norm(spans)).squeeze(-1))
        padded_owners = nn.functional.pad(owners, (0, widths - 1), value=-1)
        of_end = torch.stack(
            [padded_owners[:, w : w + owners.shape[1]] for w in range(widths)], dim=2
        )
        is_span = (owners[:, :, None] == of_end) & (of_end >= 0)
        return logits.masked_fill(~is_span, float("-inf"))


def build_reader(settings: dict[str, Any]) -> Reader:
    """Return a fresh reader as `Reader.settings` describes it."""
    return Reader(
        build_bert(settings["bert"]),
        span_hidden=int(settings["span_hidden"]),
        max_answer_wordpieces=int(settings["max_answer_wordpieces"]),
        norm_eps=float(settings.get("norm_eps", NORM_EPS)),
        reads_null=bool(settings.get("reads_null", False)),
    )
