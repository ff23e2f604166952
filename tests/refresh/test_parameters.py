"""Published parameters: what a builder reads is what the trainer had, or an error."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig
from realm.errors import ArtifactError
from realm.model.embedder import Embedder
from realm.refresh.parameters import Published, list_parameters, load_parameters
from realm.refresh.priority import Demand

Publish = Callable[..., Published]


def test_what_is_published_comes_back(
    tmp_path: Path, tower: Embedder, publish: Publish, index_config: IndexConfig
) -> None:
    demand = Demand(
        rows=torch.tensor([2, 5]),
        retrievals=torch.tensor([1.5, 3.0]),
        drift=torch.tensor([0.25, 0.0]),
    )
    published = publish(tmp_path, tower, 7, demand)
    assert list_parameters(tmp_path) == [published]
    loaded = load_parameters(published)
    assert tower_hash(loaded.tower) == published.model_hash == tower_hash(tower)
    assert loaded.index == index_config
    assert loaded.published.version.step == 7
    for name in ("rows", "retrievals", "drift"):
        assert torch.equal(getattr(loaded.demand, name), getattr(demand, name))
    assert load_model(published.folder).towers is not None  # a checkpoint like any other


def test_they_are_listed_by_step_and_replaced_at_the_same_step(
    tmp_path: Path, tower: Embedder, publish: Publish, learn: Callable[[Embedder], None]
) -> None:
    for step in (10, 9, 100):
        publish(tmp_path, tower, step)
    learn(tower)
    publish(tmp_path, tower, 9)
    assert [one.step for one in list_parameters(tmp_path)] == [9, 10, 100]
    assert list_parameters(tmp_path)[0].model_hash == tower_hash(tower)


def test_unfinished_ones_are_not_listed_and_damaged_ones_are_refused_by_name(
    tmp_path: Path, tower: Embedder, publish: Publish, flip: Callable[[Path], None]
) -> None:
    published = publish(tmp_path, tower, 1)
    shutil.copytree(published.folder, tmp_path / "embedders" / "step-2")
    (tmp_path / "embedders" / "step-2" / "manifest.json").unlink()
    assert list_parameters(tmp_path) == [published]
    flip(published.folder / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"step-1/model.safetensors is damaged"):
        load_parameters(published)
    shutil.rmtree(published.folder)
    with pytest.raises(ArtifactError, match="found no folder"):
        load_parameters(published)
