"""Block records: the passages of Google's REALM, an object array of texts in an npy file.

numpy writes such an array as a pickle stream, a program that may call anything. Nothing of it is
run: `text_stream.py` reads it.
"""

import mmap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from realm.errors import ArtifactError, CorpusError
from realm.exchange.text_stream import ADVICE, not_text, read_texts

BATCH = 1000
"""Records that a reader of the written array stacks up; what Python's own writer takes."""


@dataclass(frozen=True, slots=True)
class BlockRecords:
    """The texts of a one-dimensional npy file; every iteration is a new pass over the file."""

    path: Path
    count: int
    offset: int
    """Where the header ends."""
    size: int
    width: int | None
    """Bytes of a record; none where records are objects."""
    encoding: str

    @classmethod
    def open(cls, path: Path) -> "BlockRecords":
        """Read the header of an npy file of objects, bytes or str; no text is touched.

        Raises:
            ArtifactError: there is no such file, or it is something else.
        """
        if not path.is_file():
            raise ArtifactError(f"found no file {path}; expected an npy file of texts there")
        shape, fortran, dtype, offset, size = _header(path)
        if fortran or len(shape) != 1 or shape[0] < 0 or dtype.kind not in "OSU":
            raise ArtifactError(
                f"{path} holds {'fortran-ordered ' if fortran else ''}{dtype} of shape {shape}, "
                "expected objects, bytes or str in one dimension; is it the right file?"
            )
        count, rest = int(shape[0]), size - offset
        width = None if dtype.kind == "O" else dtype.itemsize
        if count > rest or (width is not None and count * width != rest):
            each = "a byte or more" if width is None else f"{width:,} bytes"
            raise ArtifactError(
                f"{path} has {rest:,} bytes after its header, expected {count:,} records of "
                f"{each}. {ADVICE}"
            )
        encoding = {"<": "utf-32-le", ">": "utf-32-be"}.get(dtype.str[0], "utf-8")
        return cls(path, count, offset, size, width, encoding)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return self.texts()

    def texts(self, start: int = 0) -> Iterator[str]:
        """Yield the texts from record `start` on; those before are passed over, not decoded.

        What follows a record is checked after it was yielded: only a pass to the end shows that
        the file is whole, so publish nothing before.

        Raises:
            ArtifactError: the file is damaged, holds more than texts, or has changed.
            CorpusError: a record is not valid UTF-8.
        """
        try:
            with self.path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"cannot read {self.path} again ({error}); put it back") from error
        if len(data) != self.size:
            raise ArtifactError(
                f"{self.path} has {len(data):,} bytes, expected {self.size:,} as when it was "
                "opened; leave the file alone while it is read"
            )
        if self.width is None:
            return read_texts(self.path, data, self.offset, self.count, start)
        return self._fixed(data, self.width, start)

    def _fixed(self, data: mmap.mmap, width: int, start: int) -> Iterator[str]:
        with data:
            for row in range(start, self.count):
                at = self.offset + row * width
                try:
                    text = data[at : at + width].decode(self.encoding)
                except UnicodeError as error:
                    raise not_text(self.path, row, error) from error
                yield text.rstrip("\0")


def write_block_records(path: Path, texts: Iterable[str], count: int) -> None:
    """Write texts as an npy file of bytes objects, whole or not at all.

    `numpy.load(path, allow_pickle=True)` of every numpy on Python 3 reads it, as transformers
    does for its REALM.

    Raises:
        ArtifactError: the file cannot be written.
        CorpusError: there are more or fewer texts than `count`, or one is not Unicode.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as file:
            _write(file, path, texts, count)
        aside.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}; free space or mend the permissions"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _write(file: BinaryIO, path: Path, texts: Iterable[str], count: int) -> None:
    header = {"descr": "|O", "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(file, header)
    file.write(
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"(K\x01\x8a\x08" + count.to_bytes(8, "little") + b"\x85"
        b"cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R"
        b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]("
    )
    rows = 0
    for text in islice(texts, count + 1):
        if rows and rows % BATCH == 0:
            file.write(b"e(")
        try:
            raw = text.encode()
        except UnicodeError as error:
            raise not_text(path, rows, error) from error
        width, opcode = (1, b"C") if len(raw) < 1 << 8 else (4, b"B")
        if len(raw) >= 1 << 32:
            width, opcode = 8, b"\x8e"
        file.write(opcode + len(raw).to_bytes(width, "little"))
        file.write(raw)
        rows += 1
    if rows != count:
        found = f"{'more than ' if rows > count else ''}{min(rows, count):,}"
        raise CorpusError(f"{path}: found {found} texts, expected {count:,}; count them first")
    file.write(b"etb.")


def _header(path: Path) -> tuple[tuple[int, ...], bool, "np.dtype[Any]", int, int]:
    """Return shape, order and type of an npy file, where its header ends, where the file ends."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            shape, fortran, dtype = readers[npy.read_magic(file)](file)
            return shape, fortran, dtype, file.tell(), file.seek(0, 2)
    except Exception as error:  # numpy evaluates whatever literal stands there
        raise ArtifactError(
            f"{path} does not begin like an npy file of version 1 or 2 ({error!r:.200}). {ADVICE}"
        ) from error
