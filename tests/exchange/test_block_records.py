"""Block records are read as texts and never run, whatever the file says; and written back."""

import io
import os
import pickle
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from realm.errors import ArtifactError, CorpusError, RealmError
from realm.exchange import block_records, text_stream
from realm.exchange.block_records import BlockRecords, write_block_records

PROTOCOLS = [2, 3, 4, 5]
TEXTS = ["one", "", "b", "O8", "|", "zwei", "Zürich", "東京", "x" * 300, "é" * 40_000]
SHORT = ["one", "", "b", "Zürich", "two"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all the examples of a property."""
    return tmp_path_factory.mktemp("examples")


def objects(values: Sequence[object]) -> "np.ndarray[Any, Any]":
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def header(count: int, **changes: object) -> bytes:
    file = io.BytesIO()
    known = {"descr": "|O", "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(file, known | changes)
    return file.getvalue()


def dumped(values: Sequence[object], protocol: int) -> bytes:
    """Return an npy file as numpy would write it with another protocol."""
    return header(len(values)) + pickle.dumps(objects(values), protocol=protocol)


def read(folder: Path, content: bytes, start: int = 0) -> list[str]:
    path = folder / "block_records.npy"
    path.write_bytes(content)
    return list(BlockRecords.open(path).texts(start))


def encoded(texts: Iterable[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def framed(payload: bytes, count: int = 3) -> bytes:
    """Return a file of bytes whose middle record is replaced by `payload`."""
    whole = dumped([b"one", b"CHANGED", b"two"], 3)
    assert whole.count(b"C\x07CHANGED") == 1
    whole = whole.replace(b"C\x07CHANGED", payload)
    return header(count) + whole[len(header(3)) :]


def unicode_of(text: str) -> bytes:
    raw = text.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


@pytest.mark.parametrize("kind", [encoded, list])
def test_what_numpy_saves_is_read(kind: Callable[[list[str]], list[Any]], tmp_path: Path) -> None:
    path = tmp_path / "block_records.npy"
    np.save(path, objects(kind(TEXTS)), allow_pickle=True)
    records = BlockRecords.open(path)
    assert len(records) == len(TEXTS)
    assert list(records) == TEXTS
    assert list(records) == TEXTS, "a second pass"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [encoded, list])
@pytest.mark.parametrize("count", [0, 1, 2, 10, 1000, 1001, 2001])
def test_every_protocol_and_batch_size_is_read(
    count: int, kind: Callable[[list[str]], list[Any]], protocol: int, tmp_path: Path
) -> None:
    texts = (TEXTS if count <= 10 else [f"{number} é" for number in range(count)])[:count]
    content = dumped(kind(texts), protocol)
    assert read(tmp_path, content) == texts
    assert read(tmp_path, content, start=count // 3) == texts[count // 3 :]
    assert read(tmp_path, content, start=count + 1) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_that_stands_twice_is_read_twice(protocol: int, tmp_path: Path) -> None:
    values = [b"once", "twice", "Zürich".encode(), b"", b"b", "", "O8", "latin1"]
    rows = [number * 7 % len(values) for number in range(2500)]
    found = read(tmp_path, dumped([values[row] for row in rows], protocol))
    texts = [value if isinstance(value, str) else value.decode() for value in values]
    assert found == [texts[row] for row in rows]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memo_numbers_of_every_size_are_followed(protocol: int, tmp_path: Path) -> None:
    texts = [str(number) for number in range(66_000 if protocol == 3 else 3000)]
    values = encoded(texts)
    values += [values[0], values[299], values[-1]]
    texts += [texts[0], texts[299], texts[-1]]
    assert read(tmp_path, dumped(values, protocol)) == texts


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_homes_of_numpys_array_are_known(module: bytes, protocol: int, tmp_path: Path) -> None:
    content = dumped(encoded(SHORT), protocol)
    names = [b"numpy.core.multiarray", b"numpy._core.multiarray"]
    written = next(name for name in names if name in content)
    if protocol < 4:
        content = content.replace(written, module)
    else:
        shrunk = len(written) - len(module)
        frame = len(header(5)) + 3
        length = int.from_bytes(content[frame : frame + 8], "little") - shrunk
        content = content[:frame] + length.to_bytes(8, "little") + content[frame + 8 :]
        content = content.replace(bytes([len(written)]) + written, bytes([len(module)]) + module)
    assert [value.decode() for value in loaded(content)] == SHORT
    assert read(tmp_path, content) == SHORT


def loaded(content: bytes) -> list[Any]:
    return np.load(io.BytesIO(content), allow_pickle=True).tolist()


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    content = dumped([b"one", "é".encode(), b""], 3)
    body = content[len(header(3)) :].replace(b"\x80\x03", b"\x80\x02")
    old = body.replace(b"C\x03one", b"U\x03one").replace(b"C\x02", b"T\x02\x00\x00\x00")
    assert read(tmp_path, header(3) + old) == ["one", "é", ""]


@pytest.mark.parametrize("version", [1, 2])
def test_records_one_by_one_and_wide_lengths_are_read(version: int, tmp_path: Path) -> None:
    wide = b"\x8e" + (3).to_bytes(8, "little") + b"two"
    words = b"\x8d" + (3).to_bytes(8, "little") + "dré".encode()[:3]
    body = dumped([b"REST"], 3)[len(header(1)) :].replace(b"K\x01\x85", b"K\x03\x85", 1)
    at = body.index(b"C\x04REST")
    end = body.index(b"a", at)
    body = body[:at] + b"C\x03onea" + wide + b"\x94a(" + words + b"e" + body[end + 1 :]
    head = io.BytesIO()
    write = npy.write_array_header_1_0 if version == 1 else npy.write_array_header_2_0
    write(head, {"descr": "|O", "fortran_order": False, "shape": (3,)})
    with pytest.raises(CorpusError, match="record 2 "):
        read(tmp_path, head.getvalue() + body)
    body = body.replace("dré".encode()[:3], b"tre")
    assert read(tmp_path, head.getvalue() + body) == ["one", "two", "tre"]


@pytest.mark.parametrize("dtype", ["S", "U", ">U", "S40"])
def test_arrays_of_fixed_width_are_read(dtype: str, tmp_path: Path) -> None:
    texts = [*SHORT, "東京"]
    values = encoded(texts) if dtype[0] == "S" else texts
    path = tmp_path / "block_records.npy"
    np.save(path, np.array(values, dtype=dtype))
    records = BlockRecords.open(path)
    assert (len(records), list(records), list(records.texts(4))) == (6, texts, texts[4:])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"expected 6 records of \d+ bytes"):
        BlockRecords.open(path)
    np.save(path, np.array([], dtype=dtype))
    assert list(BlockRecords.open(path)) == []


def test_fixed_width_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "block_records.npy"
    np.save(path, np.array([b"one", b"\xff"]))
    with pytest.raises(CorpusError, match="record 1 "):
        list(BlockRecords.open(path))
    path.write_bytes(header(1, descr="<U1") + b"\xff\xff\xff\x7f")
    with pytest.raises(CorpusError, match="record 0 "):
        list(BlockRecords.open(path))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bad", [b"\xffabc", "surrogate \ud800"])
def test_a_record_that_is_not_utf8_is_named(
    bad: bytes | str, protocol: int, tmp_path: Path
) -> None:
    content = dumped([b"one", b"two", bad, b"four"], protocol)
    with pytest.raises(CorpusError, match=r"block_records\.npy: record 2 .* not UTF-8"):
        read(tmp_path, content)
    assert read(tmp_path, content, start=3) == ["four"], "not decoded when passed over"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "does not begin like an npy file"),
        (b"PK\x03\x04" + b"0" * 100, "does not begin like an npy file"),
        (header(3)[:20], "does not begin like an npy file"),
        (b"\x93NUMPY\x03\x00" + header(3)[8:], "version 1 or 2"),
        (header(3, shape=(3, 1)) + b"0" * 99, r"shape \(3, 1\), expected objects"),
        (header(3, shape=()) + b"0" * 99, r"shape \(\), expected objects"),
        (header(3, shape=(-1,)) + b"0" * 99, r"shape \(-1,\), expected objects"),
        (header(3, fortran_order=True) + b"0" * 99, "holds fortran-ordered object"),
        (header(3, descr="<f4") + b"0" * 12, "holds float32"),
        (header(3, descr=[("a", "|O")]) + b"0" * 99, "expected objects"),
        (header(10**15) + b"0" * 99, "expected 1,000,000,000,000,000 records of a byte or more"),
        (header(10**15, descr="|S0"), "expected 1,000,000,000,000,000 records of 0 bytes"),
        (header(3), "has 0 bytes after its header"),
    ],
)
def test_another_file_is_refused_by_its_header(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "block_records.npy"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=told):
        BlockRecords.open(path)


def test_a_file_that_is_absent_or_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "block_records.npy"
    with pytest.raises(ArtifactError, match="found no file"):
        BlockRecords.open(path)
    path.write_bytes(dumped(encoded(SHORT), 4))
    records = BlockRecords.open(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match="as when it was opened"):
        list(records)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot read"):
        list(records)


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_among_the_records_is_not_made(protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    content = dumped([b"one", Payload(trap), b"two"], protocol)
    with pytest.raises(ArtifactError, match=r"posix|a global among the records"):
        read(tmp_path, content)
    assert not trap.exists()
    loaded(content)
    assert trap.exists(), "the trap works"


CALLS = {
    "GLOBAL": b"cos\nmkdir\n%b\x85R",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x05mkdir\x93%b\x85R",
    "NEWOBJ": b"cos\nmkdir\n%b\x85\x81",
    "INST": b"(%bios\nmkdir\n",
    "OBJ": b"(cos\nmkdir\n%bo",
    "eval": b"cbuiltins\neval\n%b\x85R",
    "import": b"crealm_trap\nanything\n",
}


@pytest.mark.parametrize("where", ["record", "front", "dtype", "end"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_wherever_it_stands(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "realm_trap.py").write_text(f"import os; os.mkdir({str(trap)!r})")
    argument = f"__import__('os').mkdir({str(trap)!r})" if name == "eval" else str(trap)
    call = CALLS[name].replace(b"%b", unicode_of(argument))
    content = framed(call)
    if where == "front":
        content = header(1) + b"\x80\x04" + call + b"."
    elif where == "dtype":
        content = framed(b"C\x00").replace(b"K?t", call + b"t")
    elif where == "end":
        content = framed(b"C\x00")[:-1] + call + b"."
    with pytest.raises(ArtifactError, match=r"block_records\.npy: found .* at byte [\d,]+ \(opco"):
        read(tmp_path, content)
    assert not trap.exists()
    assert "realm_trap" not in sys.modules


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"Pname\n", "PERSID"),
        (b"C\x01aQ", "BINPERSID"),
        (b"\x82\x01", "EXT1"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (b"}", "EMPTY_DICT"),
        (b"]", "a list at .*, expected one inside an object array"),
        (b"\x8f", "EMPTY_SET"),
        (b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a", "BYTEARRAY8"),
        (b"K\x07", "int as record 1 at .*, expected bytes or str"),
        (b"\x8a\x01\x07", "int as record 1"),
        (b"G\x00\x00\x00\x00\x00\x00\x00\x00", "BINFLOAT"),
        (b"N", "nonetype as record 1"),
        (b"\x88", "bool as record 1"),
        (b")", "tuple as record 1"),
        (b"h\x01", "NDARRAY as record 1"),
        (b"cnumpy\ndtype\n", "DTYPE as record 1"),
        (b"h\xff", "memo index 255 .*, expected one that was filled"),
        (b"j\xff\xff\xff\xff", "memo index 4,294,967,295"),
        (b"C\x01ar\xff\xff\xff\xff", "memo index 4,294,967,295"),
        (b"C\x01aq\xff", "memo index 255"),
        (b"(C\x01a", r"record 1 left over at .* \(opcode MARK\)"),
        (b"C\x01aa", r"nothing to append at .* \(opcode APPEND\)"),
        (b"C\x01aee", r"nothing to append at .* \(opcode APPENDS\)"),
        (b"C\x01a\x85", "too few values"),
        (b"C\x01aC\x01b", "one more record at .*, expected 3 as in the header"),
        (b"", "2 records at .*, expected 3 as in the header"),
        (b"C\x01at", "record 2 left over"),
        (b"C\x01a.", "the end, and"),
        (b"\xff", "opcode 0xff"),
        (b"\x80\x03", "opcode PROTO"),
        (b"C\xffa", "a text of 255 bytes at .*, expected one that ends within the file"),
        (b"B\xff\xff\xff\xffa", "a text of 4,294,967,295 bytes"),
        (b"T\xff\xff\xff\xffa", "a text of 4,294,967,295 bytes"),
        (b"\x8e" + b"\xff" * 8, "a text of 18,446,744,073,709,551,615 bytes"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f", "a text of 9,223,372,036,854,775,807 bytes"),
        (b"\x95" + b"\xff" * 8, "a frame of 18,446,744,073,709,551,615 bytes"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R", "call of ENCODE"),
        (b"c_codecs\nencode\n" + b"K\x01" * 99, "64 values on the stack"),
        (b"c_codecs\nencode\nK\x01\x85\x85\x85", "tuples in tuples in a tuple"),
        (b"c_codecs\nencode\nC\x01ab", "state of ENCODE"),
        (b"cbuiltins\nbytes\nK\x09\x85R", "call of BYTES"),
        (b"c" + b"a" * 9999, "no end of a name"),
    ],
)
def test_what_is_no_text_is_refused_by_name(payload: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=told):
        read(tmp_path, framed(payload))


def test_the_array_must_be_the_one_of_the_header_and_end_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected one inside an object array of shape \(2,\)"):
        read(tmp_path, framed(b"C\x00", count=2))
    with pytest.raises(ArtifactError, match="and 4 bytes more"):
        read(tmp_path, framed(b"C\x00") + b"more")
    other = framed(b"C\x00").replace(b"O8", b"i8")
    with pytest.raises(ArtifactError, match="a call of DTYPE"):
        read(tmp_path, other)
    with pytest.raises(ArtifactError, match="protocol 2, 3, 4 or 5"):
        read(tmp_path, header(1) + pickle.dumps(objects([b"one"]), protocol=0))
    with pytest.raises(ArtifactError, match="nothing to keep"):
        read(tmp_path, framed(b"C\x00").replace(b"(K\x01K\x03", b"(\x94K\x01K\x03"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_that_ends_early_is_refused_wherever_it_ends(protocol: int, tmp_path: Path) -> None:
    content = dumped([*encoded(SHORT), "é"], protocol)
    for size in range(len(content)):
        with pytest.raises(ArtifactError, match=r"block_records\.npy"):
            read(tmp_path, content[:size])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("flip", [0x01, 0x10, 0xFF])
def test_a_changed_byte_gives_our_error_or_what_python_reads(
    flip: int, protocol: int, tmp_path: Path
) -> None:
    values = [*encoded(SHORT), "é", b"again"]
    content = dumped([*values, values[0], values[-1]], protocol)
    records_start = content.rindex(b"]")
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= flip
        try:
            found = read(tmp_path, bytes(changed))
        except RealmError:
            continue
        assert len(found) == 9
        if at > records_start:  # only inert names can stand there: Python may read it too
            expected = loaded(bytes(changed))
            assert encoded(found) == [
                value.encode() if isinstance(value, str) else value for value in expected
            ]


UNICODE = st.characters(codec="utf-8")
OPCODES = [bytes([code]) for code in range(256)]
PIECES = st.one_of(
    st.sampled_from(OPCODES),
    st.sampled_from(b"\x94 C\x01a X\x01\x00\x00\x00b h\x00 h\x07 q\x08 ( e a t b R .".split(b" ")),
    st.binary(max_size=6),
)


@settings(max_examples=200)
@given(
    noise=st.lists(PIECES, max_size=40).map(b"".join),
    count=st.integers(0, 5),
    protocol=st.sampled_from([None, *PROTOCOLS]),
    data=st.data(),
)
def test_random_bytes_give_our_error_or_texts(
    noise: bytes, count: int, protocol: int | None, data: st.DataObject, folder: Path
) -> None:
    content = header(count) + noise
    if protocol is not None:  # honest up to somewhere, and perhaps after it
        whole = dumped([b"x"] * count, protocol)
        at = data.draw(st.integers(len(header(count)), len(whole)))
        content = whole[:at] + noise + whole[at + data.draw(st.sampled_from([0, len(noise)])) :]
    with suppress(RealmError):
        assert len(read(folder, content)) == count


@settings(max_examples=100)
@given(noise=st.binary(max_size=120), size=st.integers(0, 120))
def test_random_headers_are_refused(noise: bytes, size: int, folder: Path) -> None:
    content = b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + noise
    with pytest.raises(ArtifactError, match="does not begin like an npy file"):
        read(folder, content)


@pytest.mark.parametrize("protocol", [3, 4])
def test_memory_stays_flat(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stream, "RELEASE_BYTES", 1 << 16)
    path = tmp_path / "block_records.npy"
    values = [b"%d " % number + b"x" * 700 for number in range(50_000)]
    values[-1] = values[1]  # far back in what was let go
    path.write_bytes(dumped(values, protocol))
    records = BlockRecords.open(path)
    tracemalloc.start()
    try:
        last = ""
        for text in records:
            last = text
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last.startswith("1 x")
    assert peak < 2 << 20 < path.stat().st_size / 16


@settings(max_examples=60)
@given(texts=st.lists(st.text(UNICODE, max_size=40) | st.just("é" * 200), max_size=30))
def test_what_is_written_is_read_here_and_by_numpy(texts: list[str], folder: Path) -> None:
    path = folder / "block_records.npy"
    write_block_records(path, iter(texts), len(texts))
    assert list(BlockRecords.open(path)) == texts
    array = np.load(path, allow_pickle=True)
    assert (array.dtype, array.shape) == (np.dtype(object), (len(texts),))
    assert array.tolist() == encoded(texts)


def test_long_texts_and_many_are_written(tmp_path: Path) -> None:
    path = tmp_path / "block_records.npy"
    texts = ["x" * size for size in (0, 255, 256, 65_535, 65_536, 70_000)]
    texts += [str(number) for number in range(2 * block_records.BATCH - len(texts))]
    write_block_records(path, texts, len(texts))
    assert list(BlockRecords.open(path)) == texts
    assert np.load(path, allow_pickle=True).tolist() == encoded(texts)
    assert [file.name for file in tmp_path.iterdir()] == ["block_records.npy"]


@pytest.mark.parametrize(
    ("texts", "count", "told"),
    [
        (["one", "two"], 3, "found 2 texts, expected 3"),
        (["one", "two", "three"], 1, "found more than 1 texts, expected 1"),
        (["one", "\ud800"], 2, "record 1 "),
    ],
)
def test_a_failed_write_leaves_what_was_there(
    texts: list[str], count: int, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "block_records.npy"
    path.write_bytes(b"before")
    with pytest.raises(CorpusError, match=told):
        write_block_records(path, texts, count)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ArtifactError, match="cannot write"):
        write_block_records(tmp_path / "absent" / "file.npy", ["one"], 1)


def test_the_source_has_no_unpickler() -> None:
    for module in (block_records, text_stream):
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert "import pickle" not in source
        assert "np.load" not in source
