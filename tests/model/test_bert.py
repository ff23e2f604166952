"""The Transformer under every tower."""

from typing import Any

import torch
from torch import nn

from realm.model.bert import bert_settings, build_bert, hidden_states, set_dropout
from realm.model.inputs import pad

SEQUENCES = [([2, 7, 8, 9, 3], [0, 0, 0, 1, 1]), ([2, 7, 3], [0, 0, 0])]


def test_settings_build_an_equal_module(bert_shape: dict[str, Any]) -> None:
    bert = build_bert(bert_shape)
    again = build_bert(bert_settings(bert))
    again.load_state_dict(bert.state_dict())
    inputs = pad(SEQUENCES, 0)
    with torch.no_grad():
        states = [hidden_states(module.eval(), inputs) for module in (bert, again)]
    assert torch.equal(*states)
    assert bert_settings(again) == bert_settings(bert)


def test_attention_is_the_fused_one(bert_shape: dict[str, Any]) -> None:
    assert build_bert(bert_shape).config._attn_implementation == "sdpa"


def test_dropout_is_off_unless_it_is_set_and_in_training(bert_shape: dict[str, Any]) -> None:
    bert = build_bert(bert_shape)
    inputs = pad(SEQUENCES, 0)
    with torch.no_grad():
        plain = hidden_states(bert.eval(), inputs)
        torch.testing.assert_close(hidden_states(bert.train(), inputs), plain)
        set_dropout(bert, 0.5)
        assert not torch.allclose(hidden_states(bert.train(), inputs), plain)
        torch.testing.assert_close(hidden_states(bert.eval(), inputs), plain)


def test_set_dropout_reaches_the_attention(bert_shape: dict[str, Any]) -> None:
    """Attention weights are dropped inside the fused kernel, by the rate of a module."""
    bert = build_bert(bert_shape).train()
    inputs = pad(SEQUENCES, 0)
    set_dropout(bert, 0.5)
    for name, part in bert.named_modules():
        if isinstance(part, nn.Dropout) and "attention.self" not in name:
            part.p = 0.0
    with torch.no_grad():
        first, second = hidden_states(bert, inputs), hidden_states(bert, inputs)
    assert not torch.allclose(first, second)
