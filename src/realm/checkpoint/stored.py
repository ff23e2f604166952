"""Weights of others as they lie on disk: safetensors or weights-only torch files, read by name.

Opening reads names and shapes; a tensor is read when it is asked for, rows of a large one by rows.
"""

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from realm.errors import ArtifactError, ConfigError
from realm.storage import beside, read_json, unreadable

FILES = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
"""Ending of the file that says which part of a checkpoint in several files holds which weight."""


class StoredWeights(Mapping[str, tuple[int, ...]]):
    """Name -> shape of every weight in a checkpoint folder."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], files: Mapping[str, Path]) -> None:
        self._shapes = dict(shapes)
        self._file_of = dict(files)
        self._loaded: dict[Path, dict[str, Tensor]] = {}

    @classmethod
    def open(cls, folder: Path) -> "StoredWeights":
        """Find the weights in a folder: one file, or several with an index.

        Raises:
            ConfigError: there are none.
            ArtifactError: a file is damaged, or missing from those that the index names.
        """
        files = weight_files(folder)
        stored = cls({}, {})
        for file in files:
            for name, shape in stored._shapes_in(file):
                stored._shapes[name] = shape
                stored._file_of[name] = file
        return stored

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def tensor(self, name: str) -> Tensor:
        """Return one weight as it is stored.

        Raises:
            ArtifactError: its file is damaged.
        """
        return self.rows(name, 0, None)

    def rows(self, name: str, start: int, stop: int | None) -> Tensor:
        """Return rows `start` to `stop` (None: to the end) of one weight; the others stay on disk.

        Raises:
            ArtifactError: its file is damaged.
        """
        file = self._file_of[name]
        if file.suffix != ".safetensors":
            value = self._torch_file(file)[name]
            return (value if start == 0 and stop is None else value[start:stop]).contiguous()
        try:
            with _open_safetensors(file) as opened:
                if start == 0 and stop is None:
                    return cast("Tensor", opened.get_tensor(name))
                return cast("Tensor", opened.get_slice(name)[start:stop])
        except OSError as error:
            raise unreadable(file, error) from error
        except SafetensorError as error:
            raise _damaged(file, error) from error

    def _shapes_in(self, file: Path) -> list[tuple[str, tuple[int, ...]]]:
        if file.suffix != ".safetensors":
            return [(name, tuple(value.shape)) for name, value in self._torch_file(file).items()]
        try:
            with _open_safetensors(file) as opened:
                return [(name, tuple(opened.get_slice(name).get_shape())) for name in opened.keys()]  # noqa: SIM118
        except OSError as error:
            raise unreadable(file, error) from error
        except SafetensorError as error:
            raise _damaged(file, error) from error

    def _torch_file(self, file: Path) -> dict[str, Tensor]:
        if file not in self._loaded:
            self._loaded[file] = _load_torch(file)
        return self._loaded[file]


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights of a checkpoint folder.

    Raises:
        ConfigError: there are none.
        ArtifactError: one that the index names is missing, or does not lie in the folder.
    """
    for name in FILES:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}{INDEX}").is_file():
            return _parts(index)
    raise ConfigError(
        f"{folder} has no {' or '.join(FILES)}; expected one of them, or an index of several parts "
        f"({FILES[0]}{INDEX})"
    )


def _parts(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ArtifactError(f"{index} has no weight_map; expected weight -> file")
    names = sorted({str(name) for name in cast("dict[str, Any]", weight_map).values()})
    for name in names:
        if beside(index.parent, name).suffix not in {".safetensors", ".bin"}:
            raise ArtifactError(
                f"{index} names the file {name!a}, expected a .safetensors or .bin beside it"
            )
        if not _is_file(index.parent / name):
            raise ArtifactError(f"{index.parent / name} is missing; {index.name} names it")
    return [index.parent / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _open_safetensors(file: Path) -> Any:  # noqa: ANN401 - the library has no type for it
    return safe_open(file, framework="pt")


def _load_torch(file: Path) -> dict[str, Tensor]:
    """Return what a torch file holds: tensors by name, mapped from disk where its format allows."""
    try:
        with warnings.catch_warnings(action="ignore"):
            found = _load_anything(file)
    except Exception as error:  # torch raises whatever a damaged file leads it to
        raise _damaged(file, error) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{file} holds a {type(found).__name__}, expected weights by name")
    named: dict[str, Tensor] = {}
    for name, value in cast("dict[object, object]", found).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ArtifactError(
                f"{file} holds {name!r}: {type(value).__name__}, expected only weights by name"
            )
        if value.layout != torch.strided or value.device.type != "cpu":
            raise ArtifactError(
                f"{file} holds {name} as a {value.layout} tensor on {value.device}, expected plain "
                "numbers; save the checkpoint again as safetensors"
            )
        named[name] = value.detach()
    return named


def _load_anything(file: Path) -> object:
    _check_zip(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the format before torch 1.6 cannot be mapped; or it is damaged
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_zip(file: Path) -> None:
    """Refuse a torch file whose parts are compressed: torch writes none, and they can blow up."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"its part {part.filename[:80]} is compressed, expected none that is"
                )


def _damaged(file: Path, error: Exception) -> ArtifactError:
    told = json.dumps(str(error).split("\n", 1)[0][:200])
    return ArtifactError(f"the weights in {file} cannot be read ({told}); fetch the file again")
