"""Rows in several files are read as one matrix, and never written."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realm.errors import ArtifactError
from realm.index.mapped import MappedRows


def write(
    folder: Path, counts: list[int], dim: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[list[Path], Tensor]:
    """Write random matrices; return their files and what they hold together."""
    parts = [torch.randn(count, dim).to(dtype) for count in counts]
    paths = [folder / f"part-{number}" for number in range(len(counts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part.view(torch.uint8).numpy().tobytes())
    return paths, torch.cat(parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", [[5], [4, 4, 2], [1, 7, 1, 1]])
def test_rows_are_those_of_the_files_one_after_the_other(
    counts: list[int], dtype: torch.dtype, tmp_path: Path
) -> None:
    paths, expected = write(tmp_path, counts, dtype=dtype)
    rows = MappedRows.open(paths, counts, 3, dtype)
    assert (len(rows), rows.dim, rows.dtype) == (sum(counts), 3, dtype)
    assert torch.equal(rows[torch.arange(len(rows))], expected)
    chosen = torch.randint(len(rows), (2, 3, 4))
    assert torch.equal(rows[chosen], expected[chosen])
    assert rows[torch.zeros((0, 2), dtype=torch.long)].shape == (0, 2, 3)


def test_a_folder_may_have_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    (folder / "rows").write_bytes(torch.arange(6.0).numpy().tobytes())
    rows = MappedRows.open([folder / "rows"], [3], 2, torch.float32)
    assert rows[torch.tensor([2])].tolist() == [[4.0, 5.0]]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12))
def test_chunks_cover_every_row_once_and_never_exceed_their_size(
    counts: list[int], size: int
) -> None:
    parts = [torch.randn(count, 2) for count in counts]
    everything = torch.cat(parts)
    chunks = list(MappedRows(parts).chunks(size))
    assert torch.equal(torch.cat([chunk for _, chunk in chunks]), everything)
    for first, chunk in chunks:
        assert 1 <= len(chunk) <= size
        assert torch.equal(chunk, everything[first : first + len(chunk)])


def test_chunks_are_views_of_the_maps_not_copies(tmp_path: Path) -> None:
    paths, _ = write(tmp_path, [4, 4])
    rows = MappedRows.open(paths, [4, 4], 3, torch.float32)
    first, again = (next(rows.chunks(2))[1] for _ in range(2))
    assert first.data_ptr() == again.data_ptr()


@pytest.mark.parametrize("counts", [[6], [3, 3]])
def test_writing_into_a_row_never_reaches_the_file(counts: list[int], tmp_path: Path) -> None:
    paths, expected = write(tmp_path, counts)
    rows = MappedRows.open(paths, counts, 3, torch.float32)
    for _, chunk in rows.chunks(2):
        chunk.zero_()
    rows[torch.tensor([0])].fill_(7.0)
    del rows
    again = MappedRows.open(paths, counts, 3, torch.float32)
    assert torch.equal(again[torch.arange(6)], expected)


@pytest.mark.parametrize("change", [b"", b"12345", None])
def test_a_file_of_another_size_is_refused(change: bytes | None, tmp_path: Path) -> None:
    paths, _ = write(tmp_path, [4, 4])
    paths[1].unlink()
    if change is not None:
        paths[1].write_bytes(change)
    told = "has no bytes" if change is None else f"has {len(change)} bytes"
    with pytest.raises(ArtifactError, match=f"part-1 {told}, expected 48"):
        MappedRows.open(paths, [4, 4], 3, torch.float32)
