"""Patches: rows with their vectors, whole or refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.errors import ArtifactError
from realm.index.builder import EmbedderVersion
from realm.refresh.patches import list_patches, publish_patch, read_patch

ROWS = torch.tensor([4, 1, 9])
VECTORS = torch.arange(12.0).view(3, 4)


def make(run: Path, step: int = 5) -> Path:
    version = EmbedderVersion(model_hash="abc", step=step)
    return publish_patch(run, ROWS, VECTORS, version=version, passages_fingerprint="passages")


def test_what_is_published_comes_back(tmp_path: Path) -> None:
    patch = read_patch(make(tmp_path), "passages")
    assert torch.equal(patch.rows, ROWS)
    assert torch.equal(patch.vectors, VECTORS)
    assert (patch.step, patch.model_hash) == (5, "abc")


def test_they_are_listed_oldest_first_unless_unfinished(tmp_path: Path) -> None:
    made = [make(tmp_path, step) for step in (10, 9, 9)]
    (make(tmp_path) / "manifest.json").unlink()
    assert list_patches(tmp_path) == [*sorted((9, one) for one in made[1:]), (10, made[0])]


@pytest.mark.parametrize("name", ["rows.i64", "exact.f32"])
def test_a_flipped_bit_is_refused_by_name(
    name: str, tmp_path: Path, flip: Callable[[Path], None]
) -> None:
    folder = make(tmp_path)
    flip(folder / name)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        read_patch(folder, "passages")


def test_other_passages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="other passages"):
        read_patch(make(tmp_path), "others")
