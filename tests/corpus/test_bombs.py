"""Small files that would fill memory or disk: refused by name, in a process with little memory."""

import bz2
import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

import realm
from realm.corpus.reading import TOO_LONG

MIB = 1 << 20
LIMIT_MIB = 8
"""Instead of 64: the bombs here are as much smaller."""
ALLOWED_MIB = 90
"""That a process may take to read one: some copies of a text, a reader's buffers."""


READ = """
import resource, sys
from pathlib import Path
from realm.corpus import articles, dump, parquet, streams
from realm.errors import RealmError
from realm.records import Skipped

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path, limit, skipped = Path(sys.argv[1]), int(sys.argv[2]), Skipped()
for module in (articles, dump, parquet):
    module.TEXT_LIMIT = limit
for module in (streams, parquet):
    module.UNCOUNTED_BYTES = limit
if path.is_dir():
    from realm.checkpoint.stored import StoredWeights
before = peak_mib()
try:
    if path.is_dir():
        StoredWeights.open(path)
    else:
        sum(1 for _ in articles.read_articles([path], skipped=skipped))
    print(skipped.counts)
except RealmError as error:
    print(error)
print(peak_mib() - before)
"""


def read_in_child(path: Path) -> tuple[str, float]:
    """Return what a process of its own says of a file, and the MiB that it took for it."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path, str(LIMIT_MIB * MIB)],
        env={**os.environ, "PYTHONPATH": str(Path(realm.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    told, _, mib = done.stdout.strip().rpartition("\n")
    return told, float(mib)


def zeros(path: Path, size: int) -> None:
    """Write so many zero bytes."""
    block = bytes(MIB)
    opened: dict[str, Callable[..., Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".zst": zstandard.open,
    }
    with opened[path.suffix](path, "wb") as stream:
        for _ in range(size // MIB):
            stream.write(block)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_file_that_grows_without_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.jsonl{suffix}"
    zeros(path, 120 * MIB)
    assert path.stat().st_size < MIB // 4
    told, mib = read_in_child(path)
    assert f"bomb.jsonl{suffix} expands to more than 500 times its size" in told
    assert mib < ALLOWED_MIB


def test_one_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b'{"text": "')
        for number in range(150 * 16):
            stream.write((b"%08d" % number) * (MIB // 128))
    told, mib = read_in_child(path)
    assert f"left out: 1 {TOO_LONG}" in told
    assert mib < ALLOWED_MIB


def growing(kind: str) -> Iterator[bytes]:
    """Yield 40 MiB of XML that begins as a dump does."""
    yield b"<mediawiki><page>" if kind != "depth" else b"<mediawiki>"
    if kind == "attribute":
        yield b'<a b="'
    elif kind == "comment":
        yield b"<!-- "
    for number in range(160):
        if kind == "depth":
            yield b"<a>" * (MIB // 12)
        elif kind == "fields":
            yield b"".join(b"<a%d/>" % (1_000 * number + n) for n in range(1_000))
        else:
            yield b"x" * (MIB // 4)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("depth", "found elements in 101 others, expected a Wikipedia"),
        ("attribute", "found a tag of more than 16 MiB, expected a Wikipedia"),
        ("comment", "found a tag of more than 16 MiB, expected a Wikipedia"),
        ("fields", "the XML is truncated"),
    ],
)
def test_xml_that_keeps_growing(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "bomb.xml.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for piece in growing(kind):
            stream.write(piece)
    told, mib = read_in_child(path)
    assert message in told
    assert mib < ALLOWED_MIB


@pytest.mark.parametrize(
    "declared",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1:1/a.dtd"> %a;',
    ],
    ids=["inside", "a file", "the network"],
)
def test_no_entity_is_ever_looked_at(tmp_path: Path, declared: str) -> None:
    path = tmp_path / "bomb.xml"
    page = "<page><title>T</title><id>1</id><revision><text>&a;</text></revision></page>"
    path.write_text(f"<!DOCTYPE m [{declared}]><mediawiki>{page}</mediawiki>")
    told, _ = read_in_child(path)
    assert "found a DOCTYPE, expected none" in told
    assert "root:" not in told


def test_a_parquet_value_that_stands_in_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    values = pa.array(["x" * (7 * MIB)])
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), values)
    parquet.write_table(
        pa.table({"text": rows}),
        path,
        compression=None,
        dictionary_pagesize_limit=1 << 30,
    )
    told, mib = read_in_child(path)
    assert told == "{}"
    assert mib < ALLOWED_MIB  # as rows that stand whole beside each other: 1,400


def test_a_parquet_file_that_expands_beyond_reason(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    texts = pa.array(["x" * (4 * MIB)] * 12)
    parquet.write_table(pa.table({"text": texts}), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < MIB // 16
    told, mib = read_in_child(path)
    assert "bomb.parquet expands to more than 500 times its size" in told
    assert mib < ALLOWED_MIB


def test_a_parquet_value_longer_than_any_text(tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    texts = pa.array(["x" * (9 * MIB), "a text"])
    parquet.write_table(pa.table({"text": texts}), path, compression=None, use_dictionary=False)
    told, _ = read_in_child(path)
    assert told == str({TOO_LONG: 1})


def test_weights_that_expand(tmp_path: Path) -> None:
    """Torch writes the parts of its files as they are; compressed ones are no file of torch."""
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        with archive.open("archive/data/0", "w", force_zip64=True) as part:
            for _ in range(150):
                part.write(bytes(MIB))
    told, mib = read_in_child(tmp_path)
    assert "is compressed, expected none that is" in told
    assert mib < ALLOWED_MIB


@pytest.mark.parametrize("name", ["a.zip", "a.xz", "a.tar.gz", "a.7z"])
def test_archives_are_no_corpus(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    told, _ = read_in_child(path)
    assert name in told
    assert "expected" in told
