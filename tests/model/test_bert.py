"""The Transformer under every tower."""

from typing import Any

import pytest
import torch
from torch import nn

from realm.model import bert as bert_module
from realm.model.bert import (
    PLAIN,
    bert_settings,
    build_bert,
    hidden_states,
    set_attention,
    set_dropout,
)
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


def test_plain_attention_is_the_fused_one_in_another_order(bert_shape: dict[str, Any]) -> None:
    """For training on a CPU; padding is left out there, too, and the gradient is the same."""
    results: list[list[torch.Tensor]] = []
    bert = build_bert(bert_shape).train()
    inputs = pad(SEQUENCES, 0)
    for device in (torch.device("cuda"), torch.device("cpu")):
        set_attention(bert, device, dropout=0.1)
        bert.zero_grad()
        hidden = hidden_states(bert, inputs)[inputs.token_is_real]
        hidden.square().sum().backward()
        gradients = [p.grad.clone() for p in bert.parameters() if p.grad is not None]
        results.append([hidden.detach(), *gradients])
    assert bert.config._attn_implementation == PLAIN
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_quick", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_cpu_trains_with_the_attention_that_is_quicker_there(
    bert_shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, is_quick: bool, dropout: float
) -> None:
    monkeypatch.setattr(bert_module, "has_quick_bfloat16", lambda _: is_quick)
    bert = build_bert(bert_shape)
    set_attention(bert, torch.device("cpu"), dropout=dropout)
    found = bert.config._attn_implementation
    assert found == ("sdpa" if dropout == 0 and not is_quick else PLAIN)


def test_dropout_is_off_unless_it_is_set_and_in_training(bert_shape: dict[str, Any]) -> None:
    bert = build_bert(bert_shape)
    inputs = pad(SEQUENCES, 0)
    with torch.no_grad():
        plain = hidden_states(bert.eval(), inputs)
        torch.testing.assert_close(hidden_states(bert.train(), inputs), plain)
        set_dropout(bert, 0.5)
        assert not torch.allclose(hidden_states(bert.train(), inputs), plain)
        torch.testing.assert_close(hidden_states(bert.eval(), inputs), plain)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_set_dropout_reaches_the_attention(bert_shape: dict[str, Any], device: str) -> None:
    """Attention weights are dropped inside either kernel, by the rate of a module."""
    bert = build_bert(bert_shape).train()
    set_attention(bert, torch.device(device), dropout=0.5)
    inputs = pad(SEQUENCES, 0)
    set_dropout(bert, 0.5)
    for name, part in bert.named_modules():
        if isinstance(part, nn.Dropout) and "attention.self" not in name:
            part.p = 0.0
    with torch.no_grad():
        first, second = hidden_states(bert, inputs), hidden_states(bert, inputs)
    assert not torch.allclose(first, second)
