"""Weights in 8 bits: the file of a packed checkpoint, a quarter of the size of one in 32 bits.

A matrix is stored as whole numbers from -127 to 127 and one 32-bit scale for each of its rows, so
that it comes back within half a step of that scale. Vectors (biases, layer norms) and the small
embeddings of positions and segments are stored in 16 bits. Equal tensors, such as a table of
wordpieces that two towers have in common, are stored once.

packed.safetensors
    NAME                int8, or float16 where it is no matrix
    NAME.scale          float32, one for each row of an int8 matrix
    metadata            format: "1"; tensors: JSON, name of each parameter -> NAME it is stored as
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from realm.checkpoint.pretrained import hash_tensors
from realm.errors import ArtifactError, ConfigError
from realm.storage import unreadable

PACKED = "packed.safetensors"
FORMAT = "1"
"""Raised when an older release could no longer read what we write."""
LEVELS = 127
KEPT_IN_16_BITS = ("position_embeddings.weight", "token_type_embeddings.weight")
_SCALE = ".scale"
_WRONG = (KeyError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError)
"""What a list of tensors leads to that is no list, or that names others than there are."""


def write_packed(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write parameters in 8 bits.

    Args:
        weights: by name, in 32 bits.
        path: of the file.

    Raises:
        ConfigError: a parameter is not finite, or too large for 16 bits.
        OSError: the file cannot be written.
    """
    stored: dict[str, Tensor] = {}
    stored_as: dict[str, str] = {}
    known: dict[str, str] = {}
    for name, value in weights.items():
        stored_as[name] = known.setdefault(hash_tensors({"": value}), name)
        if stored_as[name] == name:
            stored |= _stored(name, value)
    about = {"format": FORMAT, "tensors": json.dumps(stored_as)}
    path.write_bytes(_in_order(save(stored, about)))


def read_packed(path: Path) -> dict[str, Tensor]:
    """Return the parameters of a file that `write_packed` wrote, by name, in 32 bits.

    Those that were equal are one tensor.

    Raises:
        ArtifactError: the file is damaged, or of another format.
        UnreadableError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ArtifactError(
                    f"{path} has format {about.get('format')!r}, this release reads {FORMAT!r}; "
                    "pack the run again with this release"
                )
            stored_as: dict[str, str] = json.loads(about["tensors"])
            stored: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = {name: _value(name, stored) for name in set(stored_as.values())}
        return {name: values[source] for name, source in stored_as.items()}
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, *_WRONG) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}); reinstall it, or pack the run again"
        ) from error


def to_8_bits(
    matrix: Float[Tensor, "rows columns"],
) -> tuple[Int8[Tensor, "rows columns"], Float[Tensor, "rows 1"]]:
    """Return (whole numbers, step of each row); number x step is within half a step of the value.

    Symmetric and rounded: the largest value of a row becomes 127 or -127.
    """
    step = (matrix.abs().amax(dim=1, keepdim=True) / LEVELS).clamp_min(torch.finfo().tiny)
    return (matrix / step).round().to(torch.int8), step


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file whose header stands in one order: the library's own is random."""
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    told = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    told += b" " * (-len(told) % 8)
    return len(told).to_bytes(8, "little") + told + content[start:]


def _stored(name: str, value: Tensor) -> dict[str, Tensor]:
    if not value.isfinite().all():
        raise ConfigError(f"{name} holds values that are no numbers; expected a trained model")
    value = value.float()
    if value.dim() == 2 and not name.endswith(KEPT_IN_16_BITS):
        numbers, step = to_8_bits(value)
        return {name: numbers, name + _SCALE: step}
    halved = value.half()
    if not halved.isfinite().all():
        raise ConfigError(
            f"{name} holds {float(value.abs().max()):g}, expected values below 65,504 (16 bits); "
            "use `realm export --to safetensors`, which keeps 32 bits"
        )
    return {name: halved.contiguous()}


def _value(name: str, stored: Mapping[str, Tensor]) -> Tensor:
    value = stored[name]
    return value.float() * stored[name + _SCALE] if value.dtype == torch.int8 else value.float()
