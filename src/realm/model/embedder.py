"""Embed_input and Embed_doc: text to vector (section 3.2)."""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, cast

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
    max_length,
    mean_over_tokens,
    pooled,
    widened,
)
from realm.model.inputs import Inputs, Pack, TokenSequence

Pooling = Literal["pooler", "mean"]
NORM_EPS = 1e-3
"""Of the released code's layer norm; the Hugging Face port used 1e-12."""


class Embedder(nn.Module):
    """One tower: LayerNorm(W BERT(text) + b), width `projection_size`.

    The paper writes W BERT_CLS; the released code takes BERT's *pooled* output (dense and tanh on
    [CLS]), a bias, a layer norm with `norm_eps` and dropout. That is `pooling="pooler"`.
    `pooling="mean"` averages the last hidden states, for encoders trained that way. Scores are
    plain inner products: no temperature, no normalisation to unit length.
    """

    def __init__(
        self,
        bert: Bert,
        *,
        projection_size: int,
        pooling: Pooling,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.bert = bert
        self.pooling: Pooling = pooling
        width = int(bert.config.hidden_size)
        self.projection = nn.Linear(width, projection_size)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.norm = nn.LayerNorm(projection_size, eps=norm_eps)
        self.dropout = nn.Dropout(0.0)

    def features(self, inputs: Inputs | Pack) -> Float[Tensor, "rows width"]:
        """Return the pooled text before the projection."""
        hidden = hidden_states(self.bert, inputs)
        if self.pooling == "pooler":
            return pooled(self.bert, hidden, inputs)
        return mean_over_tokens(hidden, inputs)

    def forward(self, inputs: Inputs | Pack) -> Float[Tensor, "rows dim"]:
        """Return one embedding per sequence, in 32 bits."""
        projected = self.projection(widened(self.features(inputs)))
        return self.dropout(self.norm(widened(projected)))

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.projection.out_features

    @property
    def max_length(self) -> int:
        """Longest text in wordpieces, [CLS] and [SEP] included."""
        return max_length(self.bert)

    def projection_scale(self, norm_eps: float) -> float:
        """Return by what to multiply W and b so that a layer norm with another eps gives the same.

        LayerNorm with eps e of x is LayerNorm with eps s^2 e of s x.
        """
        return math.sqrt(norm_eps / self.norm.eps)

    @torch.no_grad()
    def init_score_scale(self, scale: float) -> None:
        """Set the layer norm's gain so that a text scores `scale` with itself."""
        self.norm.weight.fill_((scale / self.dim) ** 0.5)

    @torch.no_grad()
    def init_projection(self, features: Float[Tensor, "rows width"]) -> None:
        """Set W and b to the principal components of a sample of passages' features.

        Keeps what the start encoder already knows of similarity, where a random projection to
        128 dimensions would blur it. Not in the paper, whose ICT is long enough to forget it.
        """
        mean = features.mean(dim=0)
        _, _, directions = torch.linalg.svd(features - mean, full_matrices=False)
        kept = directions[: self.dim]
        scale = (features - mean).norm(dim=-1).mean().clamp_min(1e-6)  # a sample of one
        self.projection.weight.zero_()
        self.projection.weight[: len(kept)] = kept / scale
        self.projection.bias.copy_(-(self.projection.weight @ mean))


class MeanEmbedder(nn.Module):
    """A sentence encoder as it comes: mean of the last hidden states, unit length.

    The zero-shot baseline (all-MiniLM); not part of REALM.
    """

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, inputs: Inputs | Pack) -> Float[Tensor, "rows width"]:
        """Return one vector per sequence, in 32 bits."""
        mean = mean_over_tokens(hidden_states(self.bert, inputs), inputs)
        return nn.functional.normalize(mean, dim=-1)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.bert.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Longest text in wordpieces, [CLS] and [SEP] included."""
        return max_length(self.bert)


class Towers(nn.Module):
    """Embed_input and Embed_doc side by side; one module when shared.

    Released code shares them by default; the paper writes two BERTs.
    """

    def __init__(self, query: Embedder, passage: Embedder | None = None) -> None:
        super().__init__()
        self.query = query
        self.passage = query if passage is None else passage

    @property
    def shared(self) -> bool:
        """Whether queries and passages go through the same parameters."""
        return self.query is self.passage

    @property
    def settings(self) -> dict[str, Any]:
        """What `build_towers` needs to build an equal module."""
        return {
            "bert": bert_settings(self.query.bert),
            "projection_size": self.query.dim,
            "pooling": self.query.pooling,
            "norm_eps": self.query.norm.eps,
            "share_towers": self.shared,
        }

    def untied(self) -> "Towers":
        """Return two towers with equal parameters, for training only one of them."""
        return Towers(self.query, copy.deepcopy(self.query)) if self.shared else self

    def tied(self) -> "Towers":
        """Return one tower where the two are equal, bit for bit, as where neither was trained."""
        query, passage = self.query.state_dict(), self.passage.state_dict()
        is_one = all(torch.equal(value, passage[name]) for name, value in query.items())
        return Towers(self.query) if is_one else self


def in_16_bits(tower: Embedder | MeanEmbedder) -> Embedder | MeanEmbedder:
    """Return a copy whose BERT is in bfloat16 throughout; what comes after it stays in 32 bits.

    For embedding on a GPU, where autocast would keep the hidden states in 32 bits and be held up
    by moving them.
    """
    copied = copy.deepcopy(tower)
    cast("nn.Module", copied.bert).to(torch.bfloat16)
    return copied


def embed_in_groups(
    tower: Embedder | MeanEmbedder,
    sequences: Sequence[TokenSequence],
    *,
    pad_id: int,
    batch_tokens: int,
) -> Float[Tensor, "rows dim"]:
    """Return the embeddings of all sequences in their order, with gradients, in main memory.

    Those of like length are padded together where the tower does not read packs, so that little
    is computed on padding.
    """
    join, groups_of = joining(tower.bert)
    groups = list(groups_of([len(ids) for ids, _ in sequences], batch_tokens))
    if not groups:
        return torch.zeros((0, tower.dim))
    device = device_of(tower)
    vectors = [tower(join([sequences[i] for i in group], pad_id).to(device)) for group in groups]
    order = torch.tensor([i for group in groups for i in group])
    return torch.cat(vectors).to(CPU)[order.argsort()]


def build_tower(settings: dict[str, Any]) -> Embedder:
    """Return one fresh tower."""
    return Embedder(
        build_bert(settings["bert"]),
        projection_size=int(settings["projection_size"]),
        pooling=cast("Pooling", settings["pooling"]),
        norm_eps=float(settings.get("norm_eps", NORM_EPS)),
    )


def build_towers(settings: dict[str, Any]) -> Towers:
    """Return fresh towers as `Towers.settings` describes them."""
    query = build_tower(settings)
    return Towers(query, None if settings["share_towers"] else build_tower(settings))
