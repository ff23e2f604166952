"""Parameters and FLOPs that are counted from a shape are those of the module."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from realm.errors import ConfigError
from realm.model.embedder import Embedder
from realm.model.inputs import Inputs
from realm.model.reader import Reader
from realm.planning.encoders import BACKWARD, SHAPES, EncoderShape, parse_encoder
from realm.planning.probes import (
    MASKS,
    QUERY,
    build_shape,
    new_encoder,
    new_tower,
    step_flops,
    take_step,
)

SHAPE = EncoderShape(name="small", layers=2, width=96, heads=3, inner=384, vocabulary=20_500)

PASSAGE = 150


def count(action: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def inputs(rows: int, length: int) -> Inputs:
    ids = torch.randint(5, 400, (rows, length))
    return Inputs(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("shape", [SHAPE, parse_encoder("1x32"), SHAPES["minilm"]])
def test_parameters_are_the_modules(shape: EncoderShape) -> None:
    assert shape.embedder_parameters(128) == size(new_tower(shape, 128))
    assert shape.encoder_parameters == size(new_encoder(shape))
    reader = Reader(build_shape(shape), span_hidden=256, max_answer_wordpieces=10)
    assert shape.reader_parameters(256) == size(reader)


def test_bert_base_has_110_million_parameters() -> None:
    """Table 1: 330 M in all are two towers and an encoder of 110 M each."""
    base = SHAPES["bert-base"]
    assert base.parameters == 109_482_240
    three = 2 * base.embedder_parameters(128) + base.encoder_parameters
    assert three == pytest.approx(330e6, rel=0.01)


@pytest.mark.parametrize("length", [16, 128, 400])
def test_forward_flops_are_what_torch_counts(length: int) -> None:
    tower: Embedder = new_tower(SHAPE, 128).eval()
    tower.bert.set_attn_implementation("eager")  # the counter does not see the fused kernel
    with torch.no_grad():
        counted = count(lambda: tower(inputs(3, length)))
    assert 3 * SHAPE.embed_flops(float(length), 128) == pytest.approx(counted, rel=0.01)


def test_flops_of_a_joint_step_are_what_torch_counts() -> None:
    """The null passage is not padded to the length of the others."""
    from realm.model.embedder import Towers

    towers, encoder = Towers(new_tower(SHAPE, 128)), new_encoder(SHAPE)
    for module in (towers.query, encoder):
        module.bert.set_attn_implementation("eager")
    counted = count(lambda: take_step(towers, encoder, [PASSAGE] * 4, candidates=3))
    read = 6 * SHAPE.forward_flops(float(QUERY + PASSAGE)) + SHAPE.head_flops(6.0 * MASKS)
    scored = 2 * SHAPE.embed_flops(float(QUERY), 128) + 5 * SHAPE.embed_flops(float(PASSAGE), 128)
    on_real_wordpieces = step_flops(SHAPE, [PASSAGE] * 4, dim=128, candidates=3)
    null = SHAPE.embed_flops(float(PASSAGE), 128) - SHAPE.embed_flops(2.0, 128)
    alone = SHAPE.forward_flops(float(QUERY + PASSAGE)) - SHAPE.forward_flops(float(QUERY))
    assert on_real_wordpieces == pytest.approx(read + scored - null - 2 * alone)
    assert on_real_wordpieces * (1 + BACKWARD) == pytest.approx(counted, rel=0.02)


def test_saved_bytes_grow_with_width_and_with_kept_attention() -> None:
    settings = {"half": True, "keeps_attention": False}
    assert SHAPE.saved_bytes(100.0, **settings) == 2 * 54 * 96
    more = SHAPE.saved_bytes(100.0, half=True, keeps_attention=True)
    assert more == 2 * (54 * 96 + 12 * 3 * 100)
    assert SHAPE.saved_bytes(100.0, half=False, keeps_attention=False) == 2 * 77 * 96


@pytest.mark.parametrize("text", ["bert", "2x", "0x128", "2x100", "axb", ""])
def test_an_unknown_encoder_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        parse_encoder(text)


def test_encoders_go_by_name_and_shape() -> None:
    assert parse_encoder("BERT-base").layers == 12
    assert parse_encoder("scratch:4x256") == parse_encoder("4x256")
    assert parse_encoder("4x256").heads == 8
