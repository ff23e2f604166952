"""The files of a snapshot: shards, each whole or absent, and what the manifest says of them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from realm.index.mapped import MappedRows
from realm.index.snapshot import shard_names
from realm.storage import Request, sync


def split_into_shards(num_passages: int, size: int) -> list[range]:
    """Return the rows of each shard."""
    return [range(i, min(i + size, num_passages)) for i in range(0, num_passages, size)]


def is_shard_whole(scratch: Path, number: int, num_rows: int, dim: int) -> bool:
    """Return whether `write_shard` came to its end before the build was killed."""
    sizes = (num_rows * dim * 2, num_rows * dim * 4)
    for name, size in zip(shard_names(number), sizes, strict=True):
        try:
            if (scratch / name).stat().st_size != size:
                return False
        except OSError:
            return False
    return True


def write_shard(scratch: Path, number: int, exact: Float[Tensor, "rows dim"]) -> None:
    """Write one shard, whole or absent."""
    scan_name, exact_name = shard_names(number)
    for name, tensor in ((exact_name, exact), (scan_name, exact.to(torch.bfloat16))):
        write_matrix(scratch / name, tensor)


def write_matrix(path: Path, matrix: Shaped[Tensor, "*shape"]) -> None:
    """Write a tensor's bytes, so that the file is whole or absent."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        # Not numpy's `tofile`: on a full disk it can leave the end out and say nothing.
        with partial.open("wb") as stream:
            stream.write(matrix.contiguous().view(torch.uint8).numpy().data)
        sync(partial)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # it may be what fills the disk
        raise


def snapshot_content(
    scratch: Path, request: Request, shards: Sequence[range], dim: int
) -> dict[str, Any]:
    """Return what the manifest says of finished shards."""
    norms = [_norms(scratch, number, len(rows), dim) for number, rows in enumerate(shards)]
    return {
        "step": request.settings["step"],
        "model_hash": request.inputs["embedder"],
        "dim": dim,
        "num_passages": sum(len(rows) for rows in shards),
        "shard_rows": [len(rows) for rows in shards],
        "max_norm": max(norm for norm, _ in norms),
        "max_rounding": max(rounding for _, rounding in norms),
    }


def _norms(scratch: Path, number: int, num_rows: int, dim: int) -> tuple[float, float]:
    """Return the largest norm of a row of a shard's `exact`, and of `exact - scan`."""
    scan_name, exact_name = shard_names(number)
    everything = torch.arange(num_rows)
    scan = MappedRows.open([scratch / scan_name], [num_rows], dim, torch.bfloat16)[everything]
    exact = MappedRows.open([scratch / exact_name], [num_rows], dim, torch.float32)[everything]
    return largest_norms(scan, exact)


def largest_norms(
    scan: Shaped[Tensor, "rows dim"], exact: Float[Tensor, "rows dim"]
) -> tuple[float, float]:
    """Return the largest norm of a row of `exact`, and of `exact - scan`."""
    return float(exact.norm(dim=-1).max()), float((exact - scan.float()).norm(dim=-1).max())
