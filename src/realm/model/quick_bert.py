"""BERT without padding: parameters and operations of transformers' BertModel, not that package.

Importing transformers takes longer than to answer a question. This twin gives the same hidden
states bit for bit (a test compares them), and reads sequences that stand one after the other. It
knows no dropout. Its parameters start as whatever is in memory: they are to be loaded.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from realm.device import has_quick_bfloat16

ACTIVATIONS = {"gelu": nn.functional.gelu, "relu": nn.functional.relu}
"""Those that are here; a BERT with another one is transformers' own."""

ALIGNMENT = 32
"""Of the lengths for which attention is computed in training: the kernel library compiles its
matrix products for every shape, forwards and backwards, which took a quarter of a step's time."""


class QuickOutput(NamedTuple):
    """What `QuickBert` returns, under the name that BertModel gives it."""

    last_hidden_state: Float[Tensor, "rows length width"]


class QuickBert(nn.Module):
    """Reads like a BertModel in evaluation mode; its parameters have the same names."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**{"pad_token_id": 0, **settings})
        self.embeddings = _Embeddings(self.config)
        self.encoder = nn.Module()
        layers = [_Layer(self.config) for _ in range(self.config.num_hidden_layers)]
        self.encoder.layer = nn.ModuleList(layers)
        self.pooler = _Pooler(self.config.hidden_size)

    def forward(
        self,
        input_ids: Int[Tensor, "rows length"],
        token_type_ids: Int[Tensor, "rows length"],
        attention_mask: Bool[Tensor, "rows 1 1 length"] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> QuickOutput:
        """Return the last layer's hidden states.

        Args:
            input_ids: wordpieces.
            token_type_ids: segments.
            attention_mask: True where a wordpiece is real; None where all are.
            lengths: of sequences that stand one after the other in each row, and see only
                themselves: no padding, and what is read of one does not depend on the others;
                None: each row is one sequence.
        """
        hidden = self.embeddings(input_ids, token_type_ids, lengths)
        for layer in self.encoder.layer:  # pyright: ignore[reportGeneralTypeIssues]
            hidden = layer(hidden, attention_mask, lengths)
        return QuickOutput(hidden)


def by_products(
    query: Float[Tensor, "rows heads length size"],
    key: Float[Tensor, "rows heads length size"],
    value: Float[Tensor, "rows heads length size"],
    mask: Bool[Tensor, "rows 1 1 length"] | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "rows heads length size"]:
    """Return softmax(q k^T / sqrt(size)) v as two matrix products.

    Args:
        query: q.
        key: k.
        value: v.
        mask: False where a key is padding; None: no padding.
        scaling: instead of 1 / sqrt(size).
        dropout: rate on the weights.
    """
    scores = (query * (scaling or query.shape[-1] ** -0.5)) @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = nn.functional.dropout(scores.softmax(dim=-1), p=dropout, training=dropout > 0)
    return weights.to(value.dtype) @ value


def _aligned(
    query: Float[Tensor, "1 heads length size"],
    key: Float[Tensor, "1 heads length size"],
    value: Float[Tensor, "1 heads length size"],
) -> Float[Tensor, "1 heads length size"]:
    """Return `by_products` of one sequence, computed on a multiple of ALIGNMENT wordpieces."""
    length = query.shape[2]
    rest = -length % ALIGNMENT
    if not rest:
        return by_products(query, key, value)
    is_real = torch.arange(length + rest, device=query.device) < length
    query, key, value = (nn.functional.pad(part, (0, 0, 0, rest)) for part in (query, key, value))
    return by_products(query, key, value, is_real[None, None, None])[:, :, :length]


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Leave them: drawing numbers takes longer than loading the real ones."""


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Leave them, see `_Linear`."""


class _Embeddings(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = _Embedding(config.vocab_size, width)
        self.position_embeddings = _Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = _Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self,
        ids: Int[Tensor, "rows length"],
        segments: Int[Tensor, "rows length"],
        lengths: Sequence[int] | None,
    ) -> Float[Tensor, "rows length width"]:
        summed = self.word_embeddings(ids) + self.token_type_embeddings(segments)
        parts = [self.position_embeddings.weight[:n] for n in lengths or (ids.shape[1],)]
        return self.LayerNorm(summed + (torch.cat(parts) if len(parts) > 1 else parts[0]))


class _Projected(nn.Module):
    """What a layer adds to its input: projected, summed, normalised."""

    def __init__(self, config: SimpleNamespace, width: int) -> None:
        super().__init__()
        self.dense = _Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, inner: Float[Tensor, "rows length inner"], hidden: Float[Tensor, "rows length width"]
    ) -> Float[Tensor, "rows length width"]:
        return self.LayerNorm(self.dense(inner) + hidden)


class _SelfAttention(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = _Linear(config.hidden_size, config.hidden_size)
        self.key = _Linear(config.hidden_size, config.hidden_size)
        self.value = _Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden: Float[Tensor, "rows length width"],
        mask: Bool[Tensor, "rows 1 1 length"] | None,
        lengths: Sequence[int] | None,
    ) -> Float[Tensor, "rows length width"]:
        heads = [
            part(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        attend = nn.functional.scaled_dot_product_attention
        if lengths is None:
            attended = attend(*heads, attn_mask=mask)
        else:
            if hidden.requires_grad and has_quick_bfloat16(hidden.device):
                attend = _aligned  # torch's own is slow backwards there (`realm.model.bert`)
            sequences = zip(*(part.split(list(lengths), dim=2) for part in heads), strict=True)
            attended = torch.cat([attend(*one) for one in sequences], dim=2)
        return attended.transpose(1, 2).flatten(-2)


class _Attention(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Projected(config, config.hidden_size)


class _Intermediate(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.dense = _Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(
        self, hidden: Float[Tensor, "rows length width"]
    ) -> Float[Tensor, "rows length inner"]:
        return self.activation(self.dense(hidden))


class _Layer(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Intermediate(config)
        self.output = _Projected(config, config.intermediate_size)

    def forward(
        self,
        hidden: Float[Tensor, "rows length width"],
        mask: Bool[Tensor, "rows 1 1 length"] | None,
        lengths: Sequence[int] | None,
    ) -> Float[Tensor, "rows length width"]:
        attended = self.attention.output(self.attention.self(hidden, mask, lengths), hidden)
        return self.output(self.intermediate(attended), attended)


class _Pooler(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = _Linear(width, width)

    def forward(self, hidden: Float[Tensor, "rows length width"]) -> Float[Tensor, "rows width"]:
        return self.dense(hidden[:, 0]).tanh()
