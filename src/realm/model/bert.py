"""The Transformer under every tower: transformers' own BertModel, attention `sdpa`.

On a CPU that multiplies in 16 bits, training uses `plain` attention instead: a training step of
MiniLM is then 1.3 times as fast (`docs/log.md`, entry 23), as the backward pass of torch's fused
kernel is slow there. In 32 bits the fused one is quicker (entry 36), unless weights are dropped.

There is a twin that needs no import of transformers and no padding (`quick_bert.py`): for
answering, for embedding, and on a CPU for training, too, where no weights are dropped. A step's
sequences are then read together, however their lengths differ (`docs/log.md`, entry 42).
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from realm.device import device_of, has_quick_bfloat16
from realm.model.inputs import (
    Inputs,
    Pack,
    TokenSequence,
    group_by_length,
    in_packs,
    pack,
    pad,
)
from realm.model.quick_bert import ACTIVATIONS, QuickBert, by_products

if TYPE_CHECKING:
    from transformers import BertModel as Bert
else:
    Bert = nn.Module  # importing transformers takes longer than to answer a question

KEPT_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "initializer_range",
)
"""What defines a BERT; everything else in a config.json is about running it."""
PADDING_ROW = "pad_token_id"
"""Row of the wordpiece embeddings that starts at zero and never learns: BERT's own is 0, that of
published REALM weights is 1, which is not their [PAD]. Kept only where it is not 0."""
QUICK = "quick"
"""In the settings of a BERT: build the twin, for answering alone, where it has all that is asked.
No part of a model's settings on disk."""

PLAIN = "realm_plain"
"""Name of `plain_attention` among transformers' attentions."""


def import_bert() -> None:
    """Import transformers now, where its seconds would be in the way later."""
    import_module("transformers.models.bert.modeling_bert")


def build_bert(settings: dict[str, Any]) -> Bert:
    """Return a BertModel with fresh parameters, without dropout (see `set_dropout`).

    Args:
        settings: values of KEPT_SETTINGS; missing ones are BERT-base's. With QUICK the twin for
            answering is built where it can be.
    """
    if settings.get(QUICK) and _can_be_quick(settings):
        kept = {name: settings[name] for name in (*KEPT_SETTINGS, PADDING_ROW) if name in settings}
        return cast("Bert", QuickBert(kept))
    from transformers import BertConfig, BertModel

    config = BertConfig(
        **{name: settings[name] for name in (*KEPT_SETTINGS, PADDING_ROW) if name in settings},
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue] - goes to the base class
    )
    return BertModel(config)


def bert_settings(bert: Bert) -> dict[str, Any]:
    """Return what `build_bert` needs to build an equal module."""
    kept: dict[str, Any] = {name: getattr(bert.config, name) for name in KEPT_SETTINGS}
    if bert.config.pad_token_id:
        kept[PADDING_ROW] = bert.config.pad_token_id
    return kept


def max_length(bert: Bert) -> int:
    """Return how many wordpieces the position embeddings reach."""
    return int(bert.config.max_position_embeddings)


def set_dropout(module: nn.Module, rate: float) -> None:
    """Set the rate of every dropout inside, attention included."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate


@contextmanager
def evaluating(*modules: nn.Module) -> Generator[None]:
    """Have modules in evaluation mode (no dropout), then as they were."""
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, before, strict=True):
            module.train(was_training)


def plain_attention(
    module: nn.Module,
    query: Float[Tensor, "rows heads length size"],
    key: Float[Tensor, "rows heads length size"],
    value: Float[Tensor, "rows heads length size"],
    attention_mask: Bool[Tensor, "rows 1 1 length"] | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Return what `by_products` does, as transformers wants it, and no weights.

    Args:
        module: the attention layer (dropout is its, in training mode).
        query: q.
        key: k.
        value: v.
        attention_mask: False where a key is padding; None: no padding.
        scaling: instead of 1 / sqrt(size).
        dropout: rate on the weights.
    """
    rate = dropout if module.training else 0.0
    attended = by_products(query, key, value, attention_mask, scaling=scaling, dropout=rate)
    return attended.transpose(1, 2).contiguous(), None


def set_attention(module: nn.Module, device: torch.device, *, dropout: float) -> None:
    """Give every BERT inside the attention that trains fastest on a device.

    Args:
        module: holds them.
        device: where it trains.
        dropout: rate; on a CPU torch's fused kernel has none, and takes a detour where it is not 0.
    """
    from transformers import AttentionInterface, BertModel

    AttentionInterface.register(PLAIN, plain_attention)
    is_plain = device.type == "cpu" and (dropout > 0 or has_quick_bfloat16(device))
    for part in module.modules():
        if isinstance(part, BertModel):
            part.set_attn_implementation(PLAIN if is_plain else "sdpa")


def can_pack(bert: Bert) -> bool:
    """Return whether this BERT reads packs: on a CPU, one with a twin, and nothing is dropped."""
    if device_of(bert).type != "cpu":
        return False
    if isinstance(bert, QuickBert):
        return True
    is_dropping = bert.training and any(
        part.p > 0 for part in bert.modules() if isinstance(part, nn.Dropout)
    )
    return not is_dropping and _can_be_quick(bert_settings(bert))


def joining(
    bert: Bert,
) -> tuple[
    Callable[[Sequence[TokenSequence], int], Inputs | Pack],
    Callable[[Sequence[int], int], Iterable[list[int]]],
]:
    """Return how sequences become what this BERT reads, and how they are put into groups."""
    return (pack, in_packs) if can_pack(bert) else (pad, group_by_length)


def hidden_states(bert: Bert, inputs: Inputs | Pack) -> Float[Tensor, "rows length width"]:
    """Return the last layer's hidden states; a pack only where `can_pack` says so."""
    if isinstance(inputs, Pack):
        return _twin(bert)(inputs.ids, inputs.segments, lengths=inputs.lengths).last_hidden_state
    mask = inputs.token_is_real[:, None, None, :] if inputs.is_padded else None
    output = bert(
        input_ids=inputs.ids,
        token_type_ids=inputs.segments,
        # In the shape that attention takes, so that nobody looks into it: a GPU would be waited for
        attention_mask=mask,
    )
    return cast("Tensor", output.last_hidden_state)


def pooled(
    bert: Bert, hidden: Float[Tensor, "rows length width"], inputs: Inputs | Pack
) -> Float[Tensor, "sequences width"]:
    """Return BERT's pooled output of each sequence: tanh of a dense layer on [CLS]."""
    pooler = cast("nn.Module", bert.pooler)
    if isinstance(inputs, Pack):
        hidden = torch.stack([one[:1] for one in inputs.split(hidden)])
    return cast("Tensor", pooler(hidden))


def widened(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the values in 32 bits, where autocast left fewer; 64 stay 64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_over_tokens(
    hidden: Float[Tensor, "rows length width"], inputs: Inputs | Pack
) -> Float[Tensor, "sequences width"]:
    """Return the mean hidden state over each sequence's wordpieces."""
    if isinstance(inputs, Pack):
        return torch.stack([one.mean(dim=0) for one in inputs.split(widened(hidden))])
    weights = inputs.token_is_real.to(torch.float32)[:, :, None]
    return (widened(hidden) * weights).sum(dim=1) / weights.sum(dim=1)


_TWINS: WeakKeyDictionary[nn.Module, QuickBert] = WeakKeyDictionary()


def _twin(bert: Bert) -> QuickBert:
    """Return what reads packs with the parameters of this BERT, not a copy of them."""
    if isinstance(bert, QuickBert):
        return bert
    twin = _TWINS.get(bert)
    if twin is None or set(twin.parameters()) != set(bert.parameters()):
        with torch.device("meta"):
            twin = QuickBert(bert_settings(bert))
        for name, parameter in bert.named_parameters():
            owner, _, last = name.rpartition(".")
            setattr(twin.get_submodule(owner), last, parameter)
        _TWINS[bert] = twin
    return twin


def _can_be_quick(settings: dict[str, Any]) -> bool:
    return settings.keys() >= set(KEPT_SETTINGS) and settings["hidden_act"] in ACTIVATIONS
