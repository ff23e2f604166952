"""A matrix on disk in several files: memory-mapped, read by rows, never joined in memory."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from realm.errors import ArtifactError
from realm.storage import native_name, unreadable


class MappedRows:
    """The rows of several matrices of equal width, numbered through.

    The maps are private: whoever writes into a row changes a copy in memory, never the file.
    """

    def __init__(self, parts: Sequence[Shaped[Tensor, "_ dim"]]) -> None:
        self._parts = list(parts)
        self._starts = [0, *accumulate(len(part) for part in self._parts)]

    @classmethod
    def open(
        cls, paths: Sequence[Path], num_rows: Sequence[int], dim: int, dtype: torch.dtype
    ) -> "MappedRows":
        """Map files that hold nothing but the rows, one after the other.

        Raises:
            ArtifactError: a file is missing or has another size.
            UnreadableError: one cannot be read.
        """
        parts: list[Tensor] = []
        for path, count in zip(paths, num_rows, strict=True):
            expected = count * dim * dtype.itemsize
            found = path.stat().st_size if path.is_file() else None
            if found != expected:
                raise ArtifactError(
                    f"{path} has {'no' if found is None else format(found, ',')} bytes, expected "
                    f"{expected:,}; build the index again"
                )
            name = cast("str", native_name(path))  # torch takes bytes, too
            try:
                flat = torch.from_file(name, shared=False, size=count * dim, dtype=dtype)
            except (OSError, RuntimeError) as error:  # the latter is how torch tells the former
                raise unreadable(path, error) from None
            parts.append(flat.view(count, dim))
        return cls(parts)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, rows: Int[Tensor, "*shape"]) -> Shaped[Tensor, "*shape dim"]:
        """Return a copy of some rows; one axis more than the numbers have."""
        if len(self._parts) == 1:
            return self._parts[0][rows]
        flat = rows.reshape(-1)
        found = torch.empty((len(flat), self.dim), dtype=self.dtype)
        ends = torch.tensor(self._starts[1:])
        part_of = torch.bucketize(flat, ends, right=True)
        for number in part_of.unique().tolist():
            mine = (part_of == number).nonzero()[:, 0]
            found[mine] = self._parts[number][flat[mine] - self._starts[number]]
        return found.view(*rows.shape, self.dim)

    def put(self, rows: Int[Tensor, " rows"], vectors: Shaped[Tensor, "rows dim"]) -> None:
        """Write some rows, in memory only; they are distinct, or have equal vectors.

        Of several vectors of a row torch would keep any, and its threads not the same everywhere.
        """
        ends = torch.tensor(self._starts[1:])
        part_of = torch.bucketize(rows, ends, right=True)
        for number in part_of.unique().tolist():
            mine = (part_of == number).nonzero()[:, 0]
            part = self._parts[number]
            places = (rows[mine] - self._starts[number]).to(part.device)
            part[places] = vectors[mine].to(part.device, part.dtype)

    def to(self, device: torch.device) -> "MappedRows":
        """Return the rows on a device; these themselves where it is that of main memory."""
        if device.type == "cpu":
            return self
        return MappedRows([part.to(device) for part in self._parts])

    def part(self, rows: range) -> "MappedRows":
        """Return consecutive rows, numbered from 0; none of the others is ever read."""
        parts = [
            part[max(0, rows.start - first) : max(0, rows.stop - first)]
            for first, part in zip(self._starts, self._parts, strict=False)
        ]
        return MappedRows([part for part in parts if len(part)] or parts[:1])

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self._parts[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self._parts[0].dtype

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self._parts[0].device

    @property
    def lies_in_pairs(self) -> bool:
        """Whether every row's numbers can be read two at a time."""
        return self.dim % 2 == 0 and all(
            part.stride(1) == 1 and part.stride(0) % 2 == 0 and part.storage_offset() % 2 == 0
            for part in self._parts
        )

    def chunks(self, size: int) -> Iterator[tuple[int, Shaped[Tensor, "rows dim"]]]:
        """Yield (number of the first row, at most `size` rows as they lie on disk)."""
        for first, part in zip(self._starts, self._parts, strict=False):
            for start in range(0, len(part), size):
                yield first + start, part[start : start + size]
