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
from realm.checkpoint.checkpoints import Model, load_model, save_checkpoint, tower_hash
from realm.model.bert import QUICK, bert_settings, build_bert, hidden_states, pooled
from realm.model.inputs import Inputs, pad
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
        assert torch.equal(pooled(quick, found), pooled(whole, expected))


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
    joined = [
        torch.cat([getattr(one, name) for one in alone], dim=1) for name in Inputs._fields[:2]
    ]
    with torch.inference_mode():
        found = quick(input_ids=joined[0], token_type_ids=joined[1], lengths=lengths)
        for one, part in zip(alone, found.last_hidden_state.split(lengths, dim=1), strict=True):
            torch.testing.assert_close(part, hidden_states(quick, one))
