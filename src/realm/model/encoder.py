"""The knowledge-augmented encoder: a BERT that reads query and passage together (section 3.2)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from realm.model.bert import Bert, bert_settings, build_bert, hidden_states, widened
from realm.model.inputs import Inputs, Pack


class MlmHead(nn.Module):
    """BERT's masked-language-model head without its decoder, which is tied to the embeddings."""

    def __init__(
        self,
        width: int,
        vocab_size: int,
        *,
        layer_norm_eps: float = 1e-12,
        hidden_act: str = "gelu",
    ) -> None:
        super().__init__()
        from transformers.activations import ACT2FN  # slow to import, and not for answering

        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.activation = ACT2FN[hidden_act]

    def forward(
        self, hidden: Float[Tensor, "masks width"], embeddings: Float[Tensor, "vocab width"]
    ) -> Float[Tensor, "masks vocab"]:
        """Return the vocabulary's logits at each mask."""
        transformed = self.norm(self.activation(self.dense(hidden)))
        return nn.functional.linear(transformed, embeddings, self.bias)


class Encoder(nn.Module):
    """p(y_j | z, x): reads [CLS] x [SEP] body of z [SEP], predicts the wordpiece at each [MASK]."""

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self.bert = bert
        self.head = MlmHead(
            int(bert.config.hidden_size),
            int(bert.config.vocab_size),
            layer_norm_eps=float(bert.config.layer_norm_eps),
            hidden_act=str(bert.config.hidden_act),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What `build_encoder` needs to build an equal module."""
        return {"bert": bert_settings(self.bert)}

    def forward(
        self,
        inputs: Inputs | Pack,
        mask_rows: Int[Tensor, " masks"],
        mask_positions: Int[Tensor, " masks"],
    ) -> Float[Tensor, "masks vocab"]:
        """Return logits over the vocabulary at the masked positions only.

        Args:
            inputs: joint inputs.
            mask_rows: row of each mask in `inputs`.
            mask_positions: its position in that row, [CLS] counted.
        """
        hidden = hidden_states(self.bert, inputs)
        if isinstance(inputs, Pack):
            at_masks = hidden[0, inputs.places(mask_rows, mask_positions)]
        else:
            at_masks = hidden[mask_rows, mask_positions]
        return self.head(at_masks, self.bert.embeddings.word_embeddings.weight)

    def log_probs(
        self,
        inputs: Inputs | Pack,
        mask_rows: Int[Tensor, " masks"],
        mask_positions: Int[Tensor, " masks"],
        targets: Int[Tensor, " masks"],
    ) -> tuple[Float[Tensor, " masks"], Int[Tensor, " masks"]]:
        """Return (log p(target), most probable wordpiece) of each mask, in 32 bits."""
        logits = widened(self(inputs, mask_rows, mask_positions))
        gold = logits.gather(-1, targets[:, None])[:, 0]
        return gold - logits.logsumexp(dim=-1), logits.argmax(dim=-1)


def build_encoder(settings: dict[str, Any]) -> Encoder:
    """Return a fresh encoder as `Encoder.settings` describes it."""
    return Encoder(build_bert(settings["bert"]))
