"""A pickle stream of texts, read by a small stack machine that runs nothing.

A pickle stream is a program that may call anything. This machine knows the opcodes that numpy
writes for an array of texts, takes the few names in them for inert markers, and refuses everything
else. Texts come out as they are read; the memo keeps where a text stands in the file, never the
text.
"""

import mmap
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from realm.errors import ArtifactError, CorpusError

ADVICE = "Get the file again: texts are read, and nothing that a file names is ever run"
RELEASE_BYTES = 1 << 24
"""How much of a file stays mapped into memory after it was read."""

_OPCODES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER NONE NEWTRUE NEWFALSE UNICODE "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT EMPTY_LIST APPEND APPENDS LIST "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS "
    "FROZENSET POP DUP MARK POP_MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE EXT1 "
    "EXT2 EXT4 GLOBAL STACK_GLOBAL REDUCE BUILD INST OBJ NEWOBJ NEWOBJ_EX PROTO STOP FRAME PERSID "
    "BINPERSID"
)
_CODES = (
    b"IJKML\x8a\x8bSTUBC\x8e\x96\x97\x98N\x88\x89V\x8cX\x8dFG]ael)t\x85\x86\x87}dsu\x8f\x90\x91"
    b"02(1ghjpqr\x94\x82\x83\x84c\x93Rbio\x81\x92\x80.\x95PQ"
)
_NAMES = dict(zip(_CODES, _OPCODES.split(), strict=True))
_MEMOIZE, _LONG_BINPUT = b"\x94r"
_TEXTS = {
    **dict.fromkeys(("SHORT_BINBYTES", "SHORT_BINUNICODE", "SHORT_BINSTRING"), 1),
    **dict.fromkeys(("BINBYTES", "BINUNICODE", "BINSTRING"), 4),
    **dict.fromkeys(("BINBYTES8", "BINUNICODE8"), 8),
}
_WIDTHS = [_TEXTS.get(_NAMES.get(code, ""), 0) for code in range(256)]  # of a text's length
_MASKS = [(1 << 8 * width) - 1 for width in _WIDTHS]
_HEAD = struct.Struct("<BQ")  # an opcode and the widest number after one
_NAME_BYTES, _DEPTH, _MEMO_SPARE = 128, 64, 256  # more than numpy needs

_PLAIN, _LATIN1, _INERT = 1, 2, 3  # low bits of a memo key; above them, where the text stands
_Inert = Enum(  # things that are never made
    "_Inert",
    "NOTHING OTHER MARK LIST RECONSTRUCT NDARRAY DTYPE ENCODE BYTES "
    "BARE_ARRAY ARRAY BARE_DTYPE OBJECTS",
)
_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _Inert.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Inert.RECONSTRUCT,
    "numpy ndarray": _Inert.NDARRAY,
    "numpy dtype": _Inert.DTYPE,
    "_codecs encode": _Inert.ENCODE,  # bytes before protocol 3
    "__builtin__ bytes": _Inert.BYTES,  # and empty ones
    "builtins bytes": _Inert.BYTES,
}


@dataclass(frozen=True, slots=True)
class _Text:
    """A text in the file, by its memo key: 4 * the place of its opcode + how to read it."""

    key: int


def read_texts(path: Path, data: mmap.mmap, start: int, count: int, first: int) -> Iterator[str]:
    """Yield the texts of the pickle stream of an array of texts, from record `first` on.

    Args:
        path: the file, for messages.
        data: its map; closed at the end.
        start: where the stream begins.
        count: how many records it must hold.
        first: earlier records are passed over, not decoded.

    Raises:
        ArtifactError: the stream is damaged, or holds more than texts.
        CorpusError: a record is not valid UTF-8.
    """
    return _Stream(path, data, start, count).texts(first)


class _Stream:
    """One pass over a pickle stream: numpy's wrapping, the records, the end of the wrapping."""

    def __init__(self, path: Path, data: mmap.mmap, start: int, count: int) -> None:
        self.path, self.data, self.size, self.count = path, data, len(data), count
        self.at = self.pos = start  # of the opcode in work, of what comes next
        self.name = "PROTO"  # of the opcode in work
        self.stack: list[object] = []
        self.floor = 0  # height of the stack with the list of records on top; 0: it is not open
        self.last = _key(_Inert.NOTHING)  # of what a memo opcode would keep
        self.memo = array("Q")
        self.rows = self.appended = self.released = 0
        self.in_batch = self.done = False

    def texts(self, first: int) -> Iterator[str]:
        """Yield the records from `first` on, between checks of what stands around them."""
        with self.data as data:
            self.open()
            memo, count, safe = self.memo, self.count, self.size - _HEAD.size
            head, widths, masks = _HEAD.unpack_from, _WIDTHS, _MASKS
            pos, row, key = self.pos, 0, self.last
            while True:
                op, length = head(data, pos) if pos <= safe else (0, 0)
                start = pos + 1 + widths[op]
                end = start + (length & masks[op])
                if widths[op] and end <= safe and row < count:  # the short way of nearly all
                    raw = data[start:end] if row >= first else b""
                    key = 4 * pos + _PLAIN
                    pos = end
                    op, index = head(data, end)
                    if op == _MEMOIZE:
                        memo.append(key)
                        pos += 1
                    elif op == _LONG_BINPUT and index & 0xFFFFFFFF == len(memo):
                        memo.append(key)
                        pos += 5
                else:
                    self.pos, self.rows, self.last = pos, row, key
                    raw = self.record()
                    pos, key = self.pos, self.last
                    if raw is None:
                        if not self.floor:
                            break
                        continue
                if row >= first:
                    try:
                        text = raw.decode()
                    except UnicodeError as error:
                        raise not_text(self.path, row, error) from error
                    yield text
                row += 1
            while not self.done:
                self.step()

    def open(self) -> None:
        if self.take(1) != b"\x80" or self.number(1) not in range(2, 6):
            raise self.refused("something else", "protocol 2, 3, 4 or 5")
        while not self.floor:
            self.step()

    def record(self) -> bytes | None:
        """Execute an opcode, with those of a call it begins; return a record if one came of it."""
        self.step()
        while len(self.stack) > self.floor > 0:
            top = self.stack[self.floor]
            if isinstance(top, _Text):
                if self.rows == self.count:
                    raise self.refused("one more record", f"{self.count:,} as in the header")
                self.stack.pop()
                return self.raw(top)
            if top not in (_Inert.ENCODE, _Inert.BYTES):
                raise self.refused(f"{_kind(top)} as record {self.rows:,}", "bytes or str")
            self.step()
        return None

    def step(self) -> None:
        self.at = self.pos
        self.name = "none"
        code = self.number(1)
        self.name = _NAMES.get(code, f"{code:#04x}")
        if self.name not in _STEPS:
            raise self.refused(f"opcode {self.name}", "only those of an array of texts")
        value = _STEPS[self.name](self)
        if value is _Inert.NOTHING:
            return
        if len(self.stack) == _DEPTH:
            raise self.refused(f"{_DEPTH} values on the stack", "an array of texts")
        self.stack.append(value)
        self.last = _key(value)

    def refused(self, found: str, expected: str) -> ArtifactError:
        return ArtifactError(
            f"{self.path}: found {found} at byte {self.at:,} (opcode {self.name}), "
            f"expected {expected}. {ADVICE}"
        )

    def take(self, size: int) -> bytes:
        found = self.data[self.pos : self.pos + size]
        if len(found) < size:
            raise self.refused("the end of the file", f"{size - len(found)} bytes more")
        self.pos += size
        return found

    def number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def text(self, width: int) -> _Text:
        length = self.number(width)
        if length >= self.size - self.pos:  # at least one opcode follows
            raise self.refused(f"a text of {length:,} bytes", "one that ends within the file")
        self.pos += length
        return _Text(4 * self.at + _PLAIN)

    def raw(self, text: _Text, longest: int | None = None) -> bytes:
        """Read a text, or its beginning, where it stands."""
        where, how = divmod(text.key, 4)
        start = where + 1 + _WIDTHS[self.data[where]]  # no width: the call that makes empty bytes
        length = int.from_bytes(self.data[where + 1 : start], "little")
        found = self.data[start : start + (length if longest is None else min(length, longest))]
        try:
            return found if how == _PLAIN else found.decode().encode("latin-1")
        except UnicodeError as error:
            raise not_text(self.path, self.rows, error) from error

    def pop(self, size: int) -> tuple[object, ...]:
        keep = len(self.stack) - size
        values = tuple(self.stack[max(keep, 0) :])
        if keep < self.floor or _Inert.MARK in values:
            raise self.refused("too few values on the stack", f"{size}")
        del self.stack[keep:]
        return values

    def tuple_of(self, size: int) -> tuple[object, ...]:
        values = self.pop(size)
        for value in values:
            if isinstance(value, tuple) and any(isinstance(inner, tuple) for inner in value):
                raise self.refused("tuples in tuples in a tuple", "the state of an array")
        return values

    def tuple_from_mark(self) -> tuple[object, ...]:
        if self.floor:  # the one around the list of records
            self.between_batches()
            if self.rows != self.count:
                raise self.refused(f"{self.rows:,} records", f"{self.count:,} as in the header")
            self.floor = 0
        above = self.stack[::-1].index(_Inert.MARK) if _Inert.MARK in self.stack else _DEPTH
        values = self.tuple_of(above)
        self.stack.pop()
        return values

    def put(self, index: int) -> _Inert:
        if self.last in (_key(_Inert.NOTHING), _key(_Inert.MARK)):
            raise self.refused("nothing to keep", "a value on the stack")
        if index > len(self.memo) + 1 or index > 4 * self.count + _MEMO_SPARE:
            raise self.refused(f"memo index {index:,}", f"{len(self.memo):,}, the next one")
        while len(self.memo) <= index:
            self.memo.append(0)
        self.memo[index] = self.last
        return _Inert.NOTHING

    def get(self, index: int) -> object:
        key = self.memo[index] if index < len(self.memo) else 0
        if not key:
            raise self.refused(f"memo index {index:,}", "one that was filled before")
        return _Inert(key // 4) if key % 4 == _INERT else _Text(key)

    def global_from_lines(self) -> _Inert:
        parts: list[bytes] = []
        for _ in range(2):
            end = self.data.find(b"\n", self.pos, self.pos + _NAME_BYTES)
            if end < 0:
                raise self.refused("no end of a name", f"one within {_NAME_BYTES} bytes")
            parts.append(self.data[self.pos : end])
            self.pos = end + 1
        return self.marker(parts)

    def global_from_stack(self) -> _Inert:
        if self.floor:
            raise self.refused("a global among the records", "bytes or str")
        values = self.pop(2)
        return self.marker(
            [self.raw(value, _NAME_BYTES) for value in values if isinstance(value, _Text)]
        )

    def marker(self, parts: list[bytes]) -> _Inert:
        name = b" ".join(parts).decode("ascii", "backslashreplace")
        if name not in _GLOBALS:
            raise self.refused(f"global {name!r}", f"one of {', '.join(_GLOBALS)}")
        return _GLOBALS[name]

    def reduce(self) -> object:
        function, arguments = self.pop(2)
        match function, arguments:
            case _Inert.RECONSTRUCT, (_Inert.NDARRAY, (0,), _Text()):
                return _Inert.BARE_ARRAY
            case _Inert.DTYPE, (_Text() as name, 0, 1) if self.raw(name, 4) in (b"O8", b"O4"):
                return _Inert.BARE_DTYPE
            case _Inert.ENCODE, (_Text() as text, _Text() as encoding) if (
                text.key % 4 == _PLAIN and self.raw(encoding, 8) == b"latin1"
            ):
                return _Text(text.key - _PLAIN + _LATIN1)
            case _Inert.BYTES, ():
                return _Text(4 * self.at + _PLAIN)
            case _:
                raise self.refused(f"a call of {_kind(function)}", "numpy's, or bytes")

    def build(self) -> _Inert:
        target, state = self.pop(2)
        if isinstance(state, tuple):
            if target is _Inert.BARE_ARRAY and state[-1:] == (_Inert.LIST,):
                return _Inert.ARRAY
            if target is _Inert.BARE_DTYPE and not any(isinstance(v, tuple | Enum) for v in state):
                return _Inert.OBJECTS
        raise self.refused(f"a state of {_kind(target)}", "that of an array of objects")

    def open_list(self) -> _Inert:
        shape = (self.count,)
        if self.stack != [_Inert.BARE_ARRAY, _Inert.MARK, 1, shape, _Inert.OBJECTS, False]:
            raise self.refused("a list", f"one inside an object array of shape {shape}")
        self.floor = len(self.stack) + 1
        return _Inert.LIST

    def between_batches(self) -> None:
        if self.in_batch or self.rows != self.appended or len(self.stack) != self.floor:
            raise self.refused(f"record {self.rows:,} left over", "all records in the list")

    def mark(self) -> _Inert:
        if not self.floor:
            return _Inert.MARK
        self.between_batches()
        self.in_batch = True
        self.last = _key(_Inert.MARK)
        return _Inert.NOTHING

    def append(self) -> _Inert:
        single = self.name == "APPEND"
        fits = self.rows == self.appended + 1 if single else self.in_batch
        if not self.floor or not fits or single is self.in_batch or len(self.stack) > self.floor:
            raise self.refused("nothing to append", "records")
        self.in_batch, self.appended, self.last = False, self.rows, _key(_Inert.LIST)
        if self.pos - self.released > RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            done = self.pos // mmap.PAGESIZE * mmap.PAGESIZE
            self.data.madvise(mmap.MADV_DONTNEED, self.released, done - self.released)
            self.released = done
        return _Inert.NOTHING

    def frame(self) -> _Inert:
        length = self.number(8)
        if length > self.size - self.pos:
            raise self.refused(f"a frame of {length:,} bytes", "one that ends within the file")
        return _Inert.NOTHING

    def stop(self) -> _Inert:
        if self.stack != [_Inert.ARRAY] or self.pos != self.size:
            raise self.refused(f"the end, and {self.size - self.pos:,} bytes more", "an array")
        self.done = True
        return _Inert.NOTHING


_STEPS: dict[str, Callable[[_Stream], object]] = {
    **{name: partial(_Stream.text, width=width) for name, width in _TEXTS.items()},
    **{f"TUPLE{size}": partial(_Stream.tuple_of, size=size) for size in (1, 2, 3)},
    "EMPTY_TUPLE": partial(_Stream.tuple_of, size=0),
    "TUPLE": _Stream.tuple_from_mark,
    "BININT": partial(_Stream.number, width=4, signed=True),
    "BININT1": partial(_Stream.number, width=1),
    "BININT2": partial(_Stream.number, width=2),
    "LONG1": lambda stream: stream.number(stream.number(1), signed=True),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "MEMOIZE": lambda stream: stream.put(len(stream.memo)),
    "BINPUT": lambda stream: stream.put(stream.number(1)),
    "LONG_BINPUT": lambda stream: stream.put(stream.number(4)),
    "BINGET": lambda stream: stream.get(stream.number(1)),
    "LONG_BINGET": lambda stream: stream.get(stream.number(4)),
    "GLOBAL": _Stream.global_from_lines,
    "STACK_GLOBAL": _Stream.global_from_stack,
    "REDUCE": _Stream.reduce,
    "BUILD": _Stream.build,
    "EMPTY_LIST": _Stream.open_list,
    "MARK": _Stream.mark,
    "APPEND": _Stream.append,
    "APPENDS": _Stream.append,
    "FRAME": _Stream.frame,
    "STOP": _Stream.stop,
}


def _key(value: object) -> int:
    if isinstance(value, _Text):
        return value.key
    return 4 * (value if isinstance(value, _Inert) else _Inert.OTHER).value + _INERT


def _kind(value: object) -> str:
    return value.name if isinstance(value, _Inert) else type(value).__name__.strip("_").lower()


def not_text(path: Path, row: int, error: UnicodeError) -> CorpusError:
    """Return the error for a record that is no text."""
    return CorpusError(
        f"{path}: record {row:,} (the first is 0) is not UTF-8 text: {error}; mend the file"
    )
