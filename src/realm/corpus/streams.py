"""Compressed files as streams of blocks and lines, never whole in memory."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from bz2 import BZ2Decompressor
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from realm.errors import CorpusError, WithheldError
from realm.storage import native_name, unreadable

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
BLOCK_BYTES = 1 << 20
BZ2_BYTES = 1 << 13
"""Read at once of a bz2 file: what is left behind the end of a stream is copied."""
MAX_EXPANSION = 500
"""Text grows 3 to 20 times when it is decompressed; what grows more is made to fill a disk."""
UNCOUNTED_BYTES = 64 << 20
"""So much may come out of a file of any size: a short text over and over is no attack."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the decompressed content of a file, a bounded block at a time.

    Raises:
        CorpusError: the file is truncated or damaged, or expands beyond reason.
        WithheldError: it is missing, or the system does not hand it out.
    """
    compression = COMPRESSIONS.get(path.suffix.lower())
    try:
        left = path.stat().st_size * MAX_EXPANSION + UNCOUNTED_BYTES
        # bz2 by Python: pyarrow's stops with a bare error at an empty stream that others follow
        arrows = compression if compression != "bz2" else None
        with pa.input_stream(
            arrow_source(path), compression=arrows, buffer_size=BLOCK_BYTES
        ) as stream:
            for block in _blocks(stream) if compression == arrows else _bz2_blocks(stream):
                left -= len(block)
                if compression and left < 0:
                    raise CorpusError(
                        f"{path} expands to more than {MAX_EXPANSION} times its size; expected "
                        "compressed text, which does not. If it is one, decompress it yourself "
                        "and pass the result"
                    )
                yield block
        if compression and not path.stat().st_size:
            raise CorpusError(f"{path} is empty, expected a {compression} file; fetch it again")
    except OSError as error:
        if error.errno:  # a decompressor's has no number
            raise WithheldError(str(unreadable(path, error))) from None
        raise CorpusError(
            f"{path} is truncated or damaged ({error}); expected a whole {compression} file. "
            "Fetch it again: nothing of it is used half-read"
        ) from None


def arrow_source(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return what Arrow reads a file from: its name, or the open file where that is no text."""
    name = native_name(path)
    return name if isinstance(name, str) else pa.OSFile(name)


def _blocks(file: Any) -> Iterator[bytes]:  # noqa: ANN401 - pyarrow has no types
    while block := file.read(BLOCK_BYTES):
        yield block


def _bz2_blocks(file: Any) -> Iterator[bytes]:  # noqa: ANN401 - pyarrow has no types
    """Yield what one or more bz2 streams hold, empty ones among them.

    Raises:
        OSError: the last one is truncated, or something else stands behind them; without a number.
    """
    stream, content, is_within = BZ2Decompressor(), b"", False
    while True:
        if stream.eof:
            stream, content, is_within = BZ2Decompressor(), stream.unused_data, False
        if stream.needs_input and not content and not (content := file.read(BZ2_BYTES)):
            break
        if block := stream.decompress(content, BLOCK_BYTES):
            yield block
        content, is_within = b"", True
    if is_within:
        raise OSError("Truncated compressed stream")


def read_lines(blocks: Iterable[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 1, line without its end); None stands for a line longer than `limit`."""
    number, parts, size = 1, list[bytes](), 0
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for piece in ended:
            size += len(piece)
            yield number, _join(number, [*parts, piece]) if size <= limit else None
            number, parts, size = number + 1, [], 0
        size += len(rest)
        parts = [*parts, rest] if size <= limit else []
    if size:
        yield number, _join(number, parts) if size <= limit else None


def _join(number: int, parts: list[bytes]) -> bytes:
    line = b"".join(parts).removesuffix(b"\r")
    return line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
