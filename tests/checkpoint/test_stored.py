"""Weights of others are read by name, nothing in their files is run, and damage is told."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from realm.checkpoint.stored import StoredWeights, weight_files
from realm.errors import ArtifactError, ConfigError, RealmError

Save = Callable[[dict[str, Tensor], Path], Path]


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(7, 3),
        "a.bias": torch.randn(7),
        "half": torch.randn(4, 2).half(),
        "ids": torch.arange(6).view(1, 6),
        "scalar": torch.tensor(3.0),
        "none": torch.zeros(0, 3),
    }


def save_safetensors(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def save_bin(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def save_old_bin(weights: dict[str, Tensor], folder: Path) -> Path:
    """As torch wrote files before 1.6."""
    file = folder / "pytorch_model.bin"
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    return file


FORMATS = pytest.mark.parametrize("save", [save_safetensors, save_bin, save_old_bin])


def save_in_parts(parts: dict[str, dict[str, Tensor]], folder: Path) -> Path:
    """Write files and the index that names them."""
    for name, weights in parts.items():
        if name.endswith(".bin"):
            torch.save(weights, folder / name)
        else:
            save_file(weights, folder / name)
    kind = "pytorch_model.bin" if all(n.endswith(".bin") for n in parts) else "model.safetensors"
    where = {weight: name for name, weights in parts.items() for weight in weights}
    index = folder / f"{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


def assert_holds(stored: StoredWeights, expected: dict[str, Tensor]) -> None:
    assert dict(stored) == {name: tuple(value.shape) for name, value in expected.items()}
    for name, value in expected.items():
        found = stored.tensor(name)
        assert found.dtype == value.dtype
        assert found.equal(value)


@FORMATS
def test_names_shapes_and_values_are_read(save: Save, tmp_path: Path) -> None:
    file = save(tensors(), tmp_path)
    assert weight_files(tmp_path) == [file]
    assert_holds(StoredWeights.open(tmp_path), tensors())


@FORMATS
def test_rows_are_read_by_themselves(save: Save, tmp_path: Path) -> None:
    save(tensors(), tmp_path)
    stored, whole = StoredWeights.open(tmp_path), tensors()["a.weight"]
    for start, stop in ((0, 7), (0, 3), (2, 5), (6, 7), (3, None), (0, None)):
        assert stored.rows("a.weight", start, stop).equal(whole[start:stop])


def test_safetensors_come_before_a_torch_file(tmp_path: Path) -> None:
    save_bin({"old": torch.ones(1)}, tmp_path)
    save_safetensors({"new": torch.ones(1)}, tmp_path)
    assert list(StoredWeights.open(tmp_path)) == ["new"]


@pytest.mark.parametrize("endings", [("safetensors",) * 2, ("bin",) * 2, ("safetensors", "bin")])
def test_a_checkpoint_in_several_files_is_one(endings: tuple[str, str], tmp_path: Path) -> None:
    whole = list(tensors().items())
    first, second = (f"part-{number}.{ending}" for number, ending in enumerate(endings))
    save_in_parts({first: dict(whole[:2]), second: dict(whole[2:])}, tmp_path)
    assert_holds(StoredWeights.open(tmp_path), tensors())


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has no model\.safetensors or pytorch_model\.bin; expect"
    ):
        StoredWeights.open(tmp_path)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    parts = {f"part-{n}.safetensors": {f"w{n}": torch.ones(2)} for n in range(2)}
    save_in_parts(parts, tmp_path)
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"part-1\.safetensors is missing; model\.safetensors"):
        StoredWeights.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "sub/inside.safetensors", "..", "/etc/passwd", "run.py"]
)
def test_a_part_that_is_no_weights_file_beside_the_index_is_refused(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for place in ("folder/../outside.safetensors", "folder/sub/inside.safetensors"):
        save_file({"w": torch.ones(2)}, tmp_path / place)
    (folder / "run.py").write_text("raise SystemExit")
    index = {"weight_map": {"w": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=r"names the file .*, expected"):
        StoredWeights.open(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "has no weight_map; expected weight -> file"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": ["a.bin"]}', "has no weight_map"),
        ("[]", "holds a list, expected an object"),
        ('{"weight_map"', "is damaged"),
    ],
)
def test_an_index_that_is_none_is_told(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ArtifactError, match=told):
        StoredWeights.open(tmp_path)


@FORMATS
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 0.97, 0.999])
def test_a_truncated_file_is_told(save: Save, share: float, tmp_path: Path) -> None:
    file = save({name: value.repeat(1, 40) for name, value in tensors().items()}, tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ArtifactError, match=r"cannot be read .*; fetch the file again") as caught:
        StoredWeights.open(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@FORMATS
def test_a_changed_byte_gives_our_error_or_tensors(save: Save, tmp_path: Path) -> None:
    file = save({"a": torch.ones(3, 2), "b": torch.zeros(4)}, tmp_path)
    whole, chance = file.read_bytes(), random.Random(0)  # noqa: S311
    failed = 0
    for _ in range(120):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] = chance.randrange(256)
        file.unlink()
        file.write_bytes(changed)
        try:
            stored = StoredWeights.open(tmp_path)
            for name in stored:
                stored.tensor(name)
        except RealmError:
            failed += 1
    assert failed > 5


class Evil:
    """Asks its reader to create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def dump_bare(value: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("write", [dump_bare, torch.save])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"a": torch.ones(2), "b": evil}])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    write: Callable[[object, Path], None], wrap: Callable[[Evil], object], tmp_path: Path
) -> None:
    marker, file = tmp_path / "was-run", tmp_path / "pytorch_model.bin"
    write(wrap(Evil(marker)), file)
    with pytest.raises(ArtifactError, match="cannot be read"):
        StoredWeights.open(tmp_path)
    assert not marker.exists()
    if write is dump_bare:  # the file does what it should not be allowed to
        pickle.loads(file.read_bytes())  # noqa: S301
        assert marker.exists()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([torch.ones(2)], "holds a list, expected weights by name"),
        (torch.ones(2), "holds a Tensor, expected weights by name"),
        ({"a": torch.ones(2), "epoch": 3}, "holds 'epoch': int, expected only weights by name"),
        ({"model": {"a": torch.ones(2)}}, "holds 'model': dict, expected only weights by name"),
        ({3: torch.ones(2)}, "holds 3: Tensor, expected only weights by name"),
        ({"a": torch.eye(2).to_sparse()}, "holds a as a torch.sparse_coo tensor on cpu"),
        ({"a": torch.ones(2, device="meta")}, "holds a as a torch.strided tensor on meta"),
    ],
)
def test_what_is_no_weight_is_named(value: object, told: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=told):
        StoredWeights.open(tmp_path)


def test_parameters_come_without_gradients_and_rows_in_order(tmp_path: Path) -> None:
    across = torch.arange(12.0).view(3, 4).t()
    weights = {"parameter": torch.nn.Parameter(torch.ones(2)), "across": across}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    stored = StoredWeights.open(tmp_path)
    assert not stored.tensor("parameter").requires_grad
    assert stored.rows("across", 1, 3).equal(across[1:3])
    assert stored.rows("across", 1, 3).is_contiguous()


@FORMATS
def test_a_file_that_goes_away_while_it_is_used_is_told(save: Save, tmp_path: Path) -> None:
    file = save(tensors(), tmp_path)
    stored = StoredWeights.open(tmp_path)
    file.unlink()
    if file.suffix == ".safetensors":
        with pytest.raises(ArtifactError, match="cannot read"):
            stored.tensor("a.bias")
    else:  # mapped or in memory
        assert stored.tensor("a.bias").equal(tensors()["a.bias"])


def test_a_folder_reached_through_links_is_read(tmp_path: Path) -> None:
    """As the cache of the hub keeps its files."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    save_in_parts({"part-0.safetensors": {"w": torch.ones(2)}}, tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert_holds(StoredWeights.open(tmp_path / "snapshot"), {"w": torch.ones(2)})
    shutil.rmtree(tmp_path / "blobs")
    with pytest.raises(RealmError):
        StoredWeights.open(tmp_path / "snapshot")
