"""Embed_input and Embed_doc: pooling, starting values, one tower or two."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.model.bert import build_bert, hidden_states
from realm.model.embedder import (
    Embedder,
    MeanEmbedder,
    Towers,
    build_towers,
    embed_in_groups,
)
from realm.model.inputs import TokenSequence, pad
from realm.tokenizer import WordpieceTokenizer


@pytest.fixture
def sequences(store: PassageStore, tokenizer: WordpieceTokenizer) -> list[TokenSequence]:
    return [tokenizer.query_input(store.wordpieces(row).tolist(), 64) for row in range(24)]


def embed(tower: Embedder, sequences: list[TokenSequence], batch_tokens: int = 256) -> Tensor:
    with torch.no_grad():
        return embed_in_groups(tower, sequences, pad_id=0, batch_tokens=batch_tokens)


def test_mean_pooling_averages_real_wordpieces_only(
    make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    tower = make_towers(pooling="mean").query
    inputs = pad(sequences[:3], 0)
    with torch.no_grad():
        found, hidden = tower.features(inputs), hidden_states(tower.bert, inputs)
    for row, (ids, _) in enumerate(sequences[:3]):
        torch.testing.assert_close(found[row], hidden[row, : len(ids)].mean(dim=0))


def test_pooler_is_the_tanh_layer_on_cls(
    make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    tower = make_towers(pooling="pooler").query
    inputs = pad(sequences[:3], 0)
    with torch.no_grad():
        found = tower.features(inputs)
        expected = tower.bert.pooler.dense(hidden_states(tower.bert, inputs)[:, 0]).tanh()
    torch.testing.assert_close(found, expected)


def test_embeddings_come_in_the_order_of_the_sequences(
    make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    tower = make_towers().query
    together = embed(tower, sequences)
    for row in (0, 5, 23):
        alone = embed(tower, [sequences[row]])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)


def test_no_sequences_have_no_embeddings(
    make_towers: Callable[..., Towers], bert_shape: dict[str, Any]
) -> None:
    assert embed(make_towers().query, []).shape == (0, 16)
    assert embed(MeanEmbedder(build_bert(bert_shape)), []).shape == (0, 32)


def test_embeddings_are_32_bit_floats_under_autocast(
    make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert embed(make_towers().query, sequences[:2]).dtype == torch.float32


@pytest.mark.parametrize("scale", [1.0, 20.0, 128.0])
def test_init_score_scale_is_the_score_of_a_text_with_itself(
    scale: float, make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    tower = make_towers().query
    tower.init_score_scale(scale)
    vectors = embed(tower, sequences)
    own = (vectors * vectors).sum(dim=-1)
    torch.testing.assert_close(own, torch.full_like(own, scale), rtol=0.02, atol=0.0)
    assert (vectors @ vectors.T).max() <= own.max() * 1.001


def test_init_projection_keeps_the_neighbours_that_the_features_have(
    make_towers: Callable[..., Towers],
) -> None:
    """Principal components keep distances that a random projection blurs."""
    chance = torch.Generator().manual_seed(0)
    latent = torch.randn(200, 8, generator=chance)
    features = latent @ torch.randn(8, 32, generator=chance) + 5.0
    features += 0.01 * torch.randn(200, 32, generator=chance)
    tower = make_towers(dim=16).query

    def neighbours(vectors: Tensor) -> Tensor:
        distances = torch.cdist(vectors, vectors)
        return distances.fill_diagonal_(float("inf")).argmin(dim=-1)

    tower.init_projection(features)
    with torch.no_grad():
        projected = tower.projection(features)
    truth = neighbours(features)
    kept = (neighbours(projected) == truth).float().mean()
    blurred = features @ torch.randn(32, 4, generator=chance)
    assert kept > 0.98
    assert kept > (neighbours(blurred) == truth).float().mean()
    torch.testing.assert_close(projected.mean(dim=0), torch.zeros(16), rtol=0.0, atol=1e-4)
    ratio = torch.cdist(projected, projected) / torch.cdist(features, features)
    seen = ratio[~torch.eye(200, dtype=torch.bool)]
    assert seen.std() / seen.mean() < 0.01


def test_init_projection_of_a_sample_of_one_stays_finite(
    make_towers: Callable[..., Towers],
) -> None:
    tower = make_towers().query
    tower.init_projection(torch.ones(1, 32))
    assert tower.projection.weight.isfinite().all()
    assert tower.projection.bias.isfinite().all()


def test_shared_towers_are_one_module(make_towers: Callable[..., Towers]) -> None:
    towers = make_towers(share=True)
    assert towers.shared
    assert towers.passage is towers.query
    assert len(list(towers.parameters())) == len(list(towers.query.parameters()))


def test_untied_towers_are_equal_copies_that_learn_apart(
    make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    towers = make_towers(share=True)
    towers.query.dropout.p = 0.25
    apart = towers.untied()
    assert not apart.shared
    assert apart.query is towers.query
    assert apart.passage.dropout.p == 0.25
    assert not apart.passage.training
    torch.testing.assert_close(embed(apart.passage, sequences), embed(apart.query, sequences))
    before = copy.deepcopy(apart.passage.state_dict())
    with torch.no_grad():
        for parameter in apart.query.parameters():
            parameter.add_(1.0)
    for name, value in apart.passage.state_dict().items():
        assert torch.equal(value, before[name])


def test_two_towers_stay_as_they_are_when_untied(make_towers: Callable[..., Towers]) -> None:
    towers = make_towers(share=False)
    assert towers.untied() is towers


@pytest.mark.parametrize("share", [True, False])
def test_settings_build_equal_towers(
    *, share: bool, make_towers: Callable[..., Towers], sequences: list[TokenSequence]
) -> None:
    towers = make_towers(share=share, pooling="pooler")
    again = build_towers(towers.settings).eval()
    assert again.shared is share
    again.load_state_dict(towers.state_dict())
    torch.testing.assert_close(embed(again.passage, sequences), embed(towers.passage, sequences))
    assert again.settings == towers.settings


def test_the_mean_embedder_gives_unit_vectors(
    bert_shape: dict[str, Any], sequences: list[TokenSequence]
) -> None:
    vectors = embed(MeanEmbedder(build_bert(bert_shape)).eval(), sequences)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(24))


def test_a_start_has_no_bias_and_a_gain_of_one(bert_shape: dict[str, Any]) -> None:
    """As released: before `init_score_scale`, a text scores `dim` with itself."""
    tower = Towers(Embedder(build_bert(bert_shape), projection_size=16, pooling="mean")).query
    assert tower.projection.bias.abs().sum() == 0
    assert tower.norm.eps == 1e-3
    assert (tower.norm.weight == 1).all()
