"""The BERT that answers reads what transformers' BertModel reads, bit for bit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

import realm
from realm.checkpoint.checkpoints import load_model, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.model.bert import QUICK, bert_settings, build_bert, hidden_states, pooled
from realm.model.embedder import Embedder, Pooling, that_packs
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
def test_a_tower_that_packs_embeds_as_the_one_that_pads(
    twins: tuple[BertModel, Any], pooling: Pooling
) -> None:
    tower = Embedder(twins[0], projection_size=8, pooling=pooling).eval()
    packing = that_packs(tower)
    assert packing is not None
    sequences = [(list(range(1, n)), [0] * (n - 1)) for n in (9, 30, 4)]
    with torch.no_grad():
        expected = tower(pad(sequences, 0))
        torch.testing.assert_close(packing(pack(sequences, 0)), expected, atol=1e-5, rtol=1e-5)
    assert isinstance(tower.bert, BertModel)
    kept = zip(tower.parameters(), packing.parameters(), strict=True)
    assert all(one is other for one, other in kept)


def test_packs_hold_what_fits_in_order() -> None:
    assert list(in_packs([3, 4, 9, 1, 1, 1], 7)) == [[0, 1], [2], [3, 4, 5]]
    assert list(in_packs([], 7)) == []
    packed = pack([([5, 6], [0, 1]), ([7], [0])], pad_id=0)
    assert packed.ids[0, :4].tolist() == [5, 6, 7, 0]
    assert packed.lengths == (2, 1, PACK_MULTIPLE - 3)
    assert [len(one) for one in packed.split(torch.zeros(1, PACK_MULTIPLE, 2))] == [2, 1]
