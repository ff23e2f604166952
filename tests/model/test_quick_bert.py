"""The BERT that answers reads what transformers' BertModel reads, bit for bit."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertModel

import realm
from realm.checkpoint.checkpoints import load_model, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.model.bert import (
    QUICK,
    bert_settings,
    build_bert,
    can_pack,
    hidden_states,
    pooled,
    set_dropout,
)
from realm.model.embedder import Embedder, Pooling
from realm.model.inputs import PACK_MULTIPLE, Inputs, in_packs, pack, pad
from realm.model.quick_bert import QuickBert
from realm.tokenizer import WordpieceTokenizer

Make = Callable[..., Any]


@pytest.fixture(params=["gelu", "relu"])
def twins(request: pytest.FixtureRequest, bert_shape: dict[str, Any]) -> tuple[BertModel, Any]:
    torch.manual_seed(0)
    whole = build_bert({**bert_shape, "hidden_act": request.param}).eval()
    for parameter in whole.parameters():  # also biases and norms, which start as zeros and ones
        torch.nn.init.normal_(parameter, std=0.3)
    quick = build_bert({**bert_settings(whole), QUICK: True}).eval()
    quick.load_state_dict(whole.state_dict())
    return whole, quick


def batch(*lengths: int) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    sequences = [
        (
            torch.randint(5, 60, (length,), generator=generator).tolist(),
            [0] * (length // 2) + [1] * (length - length // 2),
        )
        for length in lengths
    ]
    return pad(sequences, 0)


@pytest.mark.parametrize("lengths", [(1,), (17,), (9, 30, 4), (128, 1)])
def test_hidden_states_are_those_of_the_whole_model(
    twins: tuple[BertModel, Any], lengths: tuple[int, ...]
) -> None:
    whole, quick = twins
    assert isinstance(quick, QuickBert)
    assert isinstance(whole, BertModel)
    inputs = batch(*lengths)
    with torch.inference_mode():
        expected, found = hidden_states(whole, inputs), hidden_states(quick, inputs)
        assert torch.equal(found, expected)
        assert torch.equal(pooled(quick, found, inputs), pooled(whole, expected, inputs))


def test_its_parameters_and_settings_have_the_same_names(twins: tuple[BertModel, Any]) -> None:
    whole, quick = twins
    assert quick.state_dict().keys() == whole.state_dict().keys()
    assert bert_settings(quick) == bert_settings(whole)


def test_an_activation_that_it_lacks_is_the_whole_models(bert_shape: dict[str, Any]) -> None:
    settings = bert_settings(build_bert({**bert_shape, "hidden_act": "gelu_new"}))
    assert isinstance(build_bert({**settings, QUICK: True}), BertModel)


@pytest.mark.parametrize("share", [True, False])
def test_a_checkpoint_loads_quickly_with_the_same_parameters(
    tokenizer: WordpieceTokenizer,
    make_towers: Make,
    make_reader: Make,
    tmp_path: Path,
    *,
    share: bool,
) -> None:
    model = Model(tokenizer=tokenizer, towers=make_towers(share=share), reader=make_reader())
    save_checkpoint(tmp_path / "run", model, settings={}, inputs={})
    whole, quick = load_model(tmp_path / "run"), load_model(tmp_path / "run", quick=True)
    assert isinstance(quick.need_reader().bert, QuickBert)
    assert quick.need_towers().shared == share
    for one, other in zip(whole.modules.values(), quick.modules.values(), strict=True):
        assert one.settings == other.settings
        found = other.state_dict()
        for name, value in one.state_dict().items():
            assert torch.equal(found[name], value), name
    assert tower_hash(quick.need_towers().passage) == tower_hash(whole.need_towers().passage)


def test_whoever_asks_does_not_wait_for_transformers() -> None:
    told = "import sys, realm.asking; assert 'transformers' not in sys.modules"
    source = str(Path(realm.__file__).parents[1])
    subprocess.run([sys.executable, "-c", told], env={"PYTHONPATH": source}, check=True)


def test_sequences_in_one_row_are_read_as_each_alone(twins: tuple[BertModel, Any]) -> None:
    _, quick = twins
    lengths = (9, 30, 4)
    alone = [batch(length) for length in lengths]
    packed = pack([(one.ids[0].tolist(), one.segments[0].tolist()) for one in alone], 0)
    with torch.inference_mode():
        found = packed.split(hidden_states(quick, packed))
        for one, part in zip(alone, found, strict=True):
            torch.testing.assert_close(part[None], hidden_states(quick, one))


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_a_tower_embeds_a_pack_as_what_is_padded(
    twins: tuple[BertModel, Any], pooling: Pooling
) -> None:
    tower = Embedder(twins[0], projection_size=8, pooling=pooling).eval()
    assert can_pack(tower.bert)
    assert isinstance(tower.bert, BertModel)
    sequences = [(list(range(1, n)), [0] * (n - 1)) for n in (9, 30, 4)]
    with torch.no_grad():
        expected = tower(pad(sequences, 0))
        torch.testing.assert_close(tower(pack(sequences, 0)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("multiplies_in", ["16 bits", "32 bits"])
def test_what_is_learned_from_a_pack_is_what_is_learned_from_each_alone(
    twins: tuple[BertModel, Any], multiplies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "realm.model.quick_bert.has_quick_bfloat16", lambda _: multiplies_in == "16 bits"
    )
    plain, _ = twins
    sequences = [(list(range(1, n)), [0] * (n - 1)) for n in (9, 30, 4, 33)]
    weights = torch.linspace(-1, 1, plain.config.hidden_size)

    def gradients(parts: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        plain.zero_grad()
        torch.stack([(part * weights).sum() for part in parts]).sum().backward()
        found = {name: one.grad for name, one in plain.named_parameters()}
        return {name: one.clone() for name, one in found.items() if one is not None}

    packed = pack(sequences, 0)
    mine = gradients(packed.split(hidden_states(plain, packed)))
    alone = gradients(hidden_states(plain, pad([one], 0)) for one in sequences)
    assert mine.keys() == alone.keys()
    for name, one in mine.items():
        torch.testing.assert_close(one, alone[name], atol=2e-4, rtol=1e-4, msg=name)


def test_a_pack_is_read_with_the_parameters_of_now(twins: tuple[BertModel, Any]) -> None:
    plain = copy.deepcopy(twins[0])
    packed = pack([([1, 2, 3], [0, 0, 0])], 0)
    with torch.no_grad():
        before = hidden_states(plain, packed).clone()
        plain.embeddings.LayerNorm.bias.add_(1.0)
        changed = hidden_states(plain, packed).clone()
        assert not torch.allclose(before, changed)
        plain.embeddings.LayerNorm.bias = nn.Parameter(plain.embeddings.LayerNorm.bias - 1.0)
        torch.testing.assert_close(hidden_states(plain, packed), before)


def test_nothing_is_frozen_or_freed_by_reading_a_pack(twins: tuple[BertModel, Any]) -> None:
    plain = copy.deepcopy(twins[0])
    plain.embeddings.requires_grad_(requires_grad=False)
    before = {name: one.requires_grad for name, one in plain.named_parameters()}
    hidden_states(plain, pack([([1, 2, 3], [0, 0, 0])], 0))
    assert {name: one.requires_grad for name, one in plain.named_parameters()} == before


def test_who_drops_weights_reads_no_packs(twins: tuple[BertModel, Any]) -> None:
    plain = copy.deepcopy(twins[0]).train()
    assert can_pack(plain)
    set_dropout(plain, 0.1)
    assert not can_pack(plain)
    assert can_pack(plain.eval())


def test_masks_of_a_pack_are_where_they_are_in_each_sequence() -> None:
    packed = pack([([5, 6], [0, 0]), ([7, 8, 9], [0, 0, 0]), ([4], [0])], pad_id=0)
    places = packed.places(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 0]))
    assert packed.ids[0, places].tolist() == [6, 7, 9, 4]


def test_packs_hold_what_fits_in_order() -> None:
    assert list(in_packs([3, 4, 9, 1, 1, 1], 7)) == [[0, 1], [2], [3, 4, 5]]
    assert list(in_packs([], 7)) == []
    packed = pack([([5, 6], [0, 1]), ([7], [0])], pad_id=0)
    assert packed.ids[0, :4].tolist() == [5, 6, 7, 0]
    assert packed.lengths == (2, 1, PACK_MULTIPLE - 3)
    assert [len(one) for one in packed.split(torch.zeros(1, PACK_MULTIPLE, 2))] == [2, 1]
