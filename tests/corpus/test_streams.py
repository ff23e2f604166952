"""Blocks and lines of compressed files."""

import bz2
import errno
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from realm.corpus import streams
from realm.corpus.streams import read_blocks, read_lines
from realm.errors import CorpusError, WithheldError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}
DATA = b"".join(b"line %d of some text\n" % number for number in range(200_000))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_are_read_whole_and_in_blocks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](DATA))
    blocks = list(read_blocks(path))
    assert b"".join(blocks) == DATA
    assert max(map(len, blocks)) <= 1 << 20


@pytest.mark.parametrize("suffix", COMPRESS)
def test_files_of_several_members_are_read_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b"first\n") + COMPRESS[suffix](b"second\n"))
    assert b"".join(read_blocks(path)) == b"first\nsecond\n"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_an_empty_member_between_others_is_passed_over(tmp_path: Path, suffix: str) -> None:
    """So `cat` joins compressed parts of which some hold nothing."""
    path = tmp_path / f"a.jsonl{suffix}"
    parts = [b"", b"first\n", b"", b"", b"second\n", b""]
    path.write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    assert b"".join(read_blocks(path)) == b"first\nsecond\n"


def test_what_stands_behind_a_compressed_stream_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.bz2"
    whole = bz2.compress(b"first\n")
    for rest in (b"\0" * 20, b"B", whole[:-1]):
        path.write_bytes(whole + rest)
        with pytest.raises(CorpusError, match="bz2 is truncated or damaged"):
            list(read_blocks(path))


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("missing", [1, 3, 500])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str, missing: int) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](DATA)[:-missing])
    with pytest.raises(CorpusError, match=f"a.jsonl{suffix} is truncated"):
        list(read_blocks(path))


@pytest.mark.parametrize("suffix", ["", *COMPRESS])
def test_a_file_that_the_system_withholds_is_none_to_fetch_again(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b"some text")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pyarrow.input_stream", refuse)
    with pytest.raises(WithheldError, match="Input/output error; mend its permissions") as raised:
        list(read_blocks(path))
    assert "etch it again" not in str(raised.value)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_an_empty_or_foreign_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    for content in (b"", b"this was never compressed"):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=f"a.jsonl{suffix} is"):
            list(read_blocks(path))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_made_to_fill_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Blank lines shrink a thousand times and more; text never does."""
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b"\n" * (12 << 20)))
    assert sum(map(len, read_blocks(path))) == 12 << 20  # too small to harm
    monkeypatch.setattr(streams, "UNCOUNTED_BYTES", 1 << 20)
    with pytest.raises(CorpusError, match=f"a.jsonl{suffix} expands to more than 500 times"):
        list(read_blocks(path))
    path.with_suffix("").write_bytes(b"\n" * (12 << 20))
    assert sum(map(len, read_blocks(path.with_suffix("")))) == 12 << 20


@given(st.lists(st.binary(max_size=12)), st.integers(0, 10))
def test_lines_do_not_depend_on_blocks(blocks: list[bytes], limit: int) -> None:
    data = b"".join(blocks)
    assume(not data.startswith(b"\xef\xbb\xbf"))  # a mark is dropped, see the next test
    lines = data.split(b"\n")[: None if data.rpartition(b"\n")[2] else -1]
    expected = [
        (number, line.removesuffix(b"\r") if len(line) <= limit else None)
        for number, line in enumerate(lines, start=1)
    ]
    assert list(read_lines(blocks, limit)) == expected


def test_the_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert list(read_lines([b"\xef\xbb", b"\xbfa\nb"], 100)) == [(1, b"a"), (2, b"b")]


def test_an_endless_line_is_not_kept_in_memory() -> None:
    blocks = (b"x" * 1_000_000 for _ in range(1_000))  # 1 GB if it were kept
    assert list(read_lines(blocks, 1_000)) == [(1, None)]
