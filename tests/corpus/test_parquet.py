"""Articles from Parquet files."""

import errno
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from realm.corpus.articles import read_articles
from realm.corpus.reading import BAD_UTF8, NO_TEXT, TOO_LONG
from realm.errors import CorpusError, WithheldError
from realm.records import Article, Skipped

TEXTS = ["April is a month.", None, "May is a month."]


def write(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_rows_are_articles(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=[4, 5, 6], title=["April", "", None], text=TEXTS)
    skipped = Skipped()
    assert list(read_articles([path], skipped=skipped)) == [
        Article(id="4", title="April", text="April is a month."),
        Article(id="6", title="", text="May is a month."),
    ]
    assert skipped.examples == {NO_TEXT: ["a.parquet:2"]}


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_every_kind_of_string_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    text = pa.array(TEXTS).cast(kind)
    path = write(tmp_path / "a.parquet", text=text)
    assert [(one.id, one.text) for one in read_articles([path])] == [
        ("a-1", "April is a month."),
        ("a-3", "May is a month."),
    ]


def test_text_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"caf\xe9"]).cast(pa.large_binary())
    text = pa.LargeStringArray.from_buffers(2, *raw.buffers()[1:])
    path = write(tmp_path / "a.parquet", text=text)
    skipped = Skipped()
    assert len(list(read_articles([path], skipped=skipped))) == 1
    assert skipped.examples == {BAD_UTF8: ["a.parquet:2"]}


def test_a_file_that_the_system_withholds_is_none_to_fetch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", text=TEXTS)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("realm.corpus.parquet.ParquetFile", refuse)
    with pytest.raises(WithheldError, match=r"cannot read .*Permission denied; mend its perm"):
        list(read_articles([path]))


@pytest.mark.parametrize("columns", [{"body": ["a"]}, {"text": [1]}])
def test_a_file_without_a_column_of_texts_is_refused(
    tmp_path: Path, columns: dict[str, object]
) -> None:
    path = write(tmp_path / "a.parquet", **columns)
    with pytest.raises(CorpusError, match=r"has the columns .*expected text \(string\)"):
        list(read_articles([path]))


@pytest.mark.parametrize("name", ["id", "title", "text"])
def test_a_column_that_stands_twice_is_refused(tmp_path: Path, name: str) -> None:
    table = pa.table([pa.array(TEXTS)] * 3, names=["text", name, name])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=f"expected {name} once: write it again"):
        list(read_articles([tmp_path / "a.parquet"]))


def test_a_text_that_is_too_long_stops_where_a_malformed_record_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a line of JSON of that length."""
    monkeypatch.setattr("realm.corpus.parquet.TEXT_LIMIT", 16)
    path = write(tmp_path / "a.parquet", text=TEXTS)
    skipped = Skipped()
    assert [one.id for one in read_articles([path], skipped=skipped)] == ["a-3"]
    assert skipped.examples == {TOO_LONG: ["a.parquet:1"], NO_TEXT: ["a.parquet:2"]}
    with pytest.raises(CorpusError, match=r"a.parquet:1: longer than .* found more than 16 bytes"):
        list(read_articles([path], on_error="fail"))


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = write(tmp_path / "a.parquet", text=["April is a month."] * 1_000)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(CorpusError, match=r"a\.parquet is truncated or damaged"):
        list(read_articles([path]))
