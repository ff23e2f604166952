"""BERT's optimiser: what decays, how fast each part learns, and the schedule."""

import pytest
import torch
from torch import nn

from realm.config import OptimizerConfig
from realm.model.embedder import Embedder, Towers, build_towers
from realm.model.encoder import Encoder, build_encoder
from realm.training.optimizer import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
    warmup_steps,
)

BERT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
}
TOWERS = {"bert": BERT, "projection_size": 8, "pooling": "mean"}


def towers(*, shared: bool) -> Towers:
    return build_towers({**TOWERS, "share_towers": shared})


def encoder() -> Encoder:
    return build_encoder({"bert": BERT})


def names_of(module: nn.Module, optimizer: torch.optim.Optimizer, group: int) -> set[str]:
    chosen = {id(p) for p in optimizer.param_groups[group]["params"]}
    return {name for name, p in module.named_parameters() if id(p) in chosen}


def test_biases_and_layer_norms_do_not_decay() -> None:
    module = encoder()
    optimizer = build_optimizer({"encoder": (module, 1.0)}, OptimizerConfig(weight_decay=0.01))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    decayed, plain = (names_of(module, optimizer, group) for group in (0, 1))
    assert decayed | plain == {name for name, _ in module.named_parameters()}
    assert {"bert.embeddings.word_embeddings.weight", "head.dense.weight"} <= decayed
    assert {"head.bias", "head.norm.weight", "bert.embeddings.LayerNorm.weight"} <= plain
    assert all(name.endswith("bias") or "norm" in name.lower() for name in plain)
    assert not any(name.endswith("bias") or "norm" in name.lower() for name in decayed)


def test_the_embedders_own_layer_norm_does_not_decay() -> None:
    module = towers(shared=True)
    optimizer = build_optimizer({"embedder": (module, 1.0)}, OptimizerConfig())
    assert "query.norm.weight" in names_of(module, optimizer, 1)
    assert "query.projection.weight" in names_of(module, optimizer, 0)


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_tower_is_trained_once_and_two_towers_both(shared: bool) -> None:  # noqa: FBT001
    module = towers(shared=shared)
    optimizer = build_optimizer({"embedder": (module, 1.0)}, OptimizerConfig())
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in trained}) == len(trained)
    one = sum(p.numel() for p in module.query.parameters())
    assert sum(p.numel() for p in trained) == (one if shared else 2 * one)


def test_parts_learn_at_their_own_rate() -> None:
    parts = {"embedder": (towers(shared=True), 0.5), "encoder": (encoder(), 1.0)}
    optimizer = build_optimizer(parts, OptimizerConfig())
    set_learning_rate(optimizer, 1e-3)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-4, 1e-3, 1e-3]


def test_what_is_frozen_is_left_out() -> None:
    module = towers(shared=False)
    module.passage.requires_grad_(requires_grad=False)
    optimizer = build_optimizer({"embedder": (module, 1.0)}, OptimizerConfig())
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.query.parameters()}


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    factors = [learning_rate_factor(step, num_steps=10, warmup=4) for step in range(10)]
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert factors == pytest.approx(expected)
    assert learning_rate_factor(10, num_steps=10, warmup=4) == 0.0


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_factor(0, num_steps=5, warmup=0) == 1.0


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(10, 5), (150, 75), (400, 100), (5_000, 500), (1_000_000, 10_000)]
)
def test_the_warmup_is_berts_but_at_most_half_of_the_steps(num_steps: int, expected: int) -> None:
    assert warmup_steps(OptimizerConfig(), num_steps) == expected


def test_a_set_warmup_is_taken_as_it_is() -> None:
    assert warmup_steps(OptimizerConfig(warmup_steps=0), 1_000) == 0
    assert warmup_steps(OptimizerConfig(warmup_steps=700), 1_000) == 700


def test_moments_come_back_as_they_were_also_where_a_part_has_none_yet() -> None:
    def one() -> tuple[Embedder, Encoder, torch.optim.AdamW]:
        torch.manual_seed(0)
        pair = towers(shared=True).query, encoder()
        parts = {"embedder": (pair[0], 1.0), "encoder": (pair[1], 1.0)}
        return *pair, build_optimizer(parts, OptimizerConfig(learning_rate=0.01))

    tower, module, optimizer = one()
    module.head.dense.weight.square().sum().backward()  # the tower is frozen in this step
    optimizer.step()
    kept = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    assert kept
    assert all(name.startswith("optimizer.") for name in kept)

    other_tower, other_module, other = one()
    other_tower.load_state_dict(tower.state_dict())
    other_module.load_state_dict(module.state_dict())
    restore_optimizer(other, kept)
    for chosen, other_chosen in ((module, other_module), (tower, other_tower)):
        for part, adam in ((chosen, optimizer), (other_chosen, other)):
            adam.zero_grad(set_to_none=True)
            sum(p.square().sum() for p in part.parameters()).backward()
            adam.step()
        for found, expected in zip(other_chosen.parameters(), chosen.parameters(), strict=True):
            assert torch.equal(found, expected)
