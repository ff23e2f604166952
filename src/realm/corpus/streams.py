"""Compressed files as streams of blocks and lines, never whole in memory."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from realm.errors import CorpusError, WithheldError
from realm.storage import unreadable

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
BLOCK_BYTES = 1 << 20
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
        with pa.input_stream(str(path), compression=compression, buffer_size=BLOCK_BYTES) as stream:
            while block := stream.read(BLOCK_BYTES):
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
