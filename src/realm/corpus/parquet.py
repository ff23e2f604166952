"""Parquet files -> articles, a batch of rows at a time."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from realm.corpus.reading import (
    BAD_UTF8,
    TEXT_LIMIT,
    TOO_LONG,
    Found,
    Place,
    Reading,
    shown,
    to_record,
)
from realm.corpus.streams import MAX_EXPANSION, UNCOUNTED_BYTES, arrow_source
from realm.errors import CorpusError, WithheldError
from realm.storage import unreadable

BATCH_ROWS = 256
COLUMNS = ("id", "title", "text")


def read_parquet(path: Path, stem: str, reading: Reading) -> Iterator[Found]:
    """Yield the rows of a Parquet file; places are rows from 1.

    Raises:
        CorpusError: the file is damaged or has no column of texts.
    """
    try:
        with ParquetFile(arrow_source(path), pre_buffer=False) as file:
            columns = _check_columns(path, file.schema_arrow)
            _check_size(path, file)
            texts = [name for name in columns if _is_text(file.schema_arrow.field(name).type)]
        source = arrow_source(path)
        with ParquetFile(source, pre_buffer=False, read_dictionary=texts) as file:
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                values = {name: _plain(batch.column(name)) for name in columns}
                for at in range(batch.num_rows):
                    number += 1
                    place = Place(path.name, number)
                    if _num_bytes(values["text"][at]) > TEXT_LIMIT:
                        found = f"more than {TEXT_LIMIT:,} bytes"
                        reading.malformed(TOO_LONG, place, found=found, expected="one article")
                        continue
                    row = {name: column[at].as_py() for name, column in values.items()}
                    if article := _to_found(row, place, f"{stem}-{number}", reading):
                        yield article
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno:  # a damaged file's has no number
            raise WithheldError(str(unreadable(path, error))) from None
        raise CorpusError(
            f"{path} is truncated or damaged ({error}); expected a whole Parquet file. "
            "Fetch it again: nothing of it is used half-read"
        ) from None


def _check_columns(path: Path, schema: pa.Schema) -> list[str]:
    told = f"{path} has the columns {', '.join(f'{f.name} ({f.type})' for f in schema)}"
    if twice := next((name for name in COLUMNS if schema.names.count(name) > 1), None):
        raise CorpusError(f"{told}; expected {twice} once: write it again without the other")
    if "text" not in schema.names or not _is_text(schema.field("text").type):
        raise CorpusError(f"{told}; expected text (string), and if possible id and title")
    return [name for name in COLUMNS if name in schema.names]


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in {pa.string(), pa.large_string(), pa.string_view()}


def _check_size(path: Path, file: ParquetFile) -> None:
    """Refuse a file that is made to fill the memory."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    expanded = sum(
        group.column(number).total_uncompressed_size
        for group in groups
        for number in range(group.num_columns)
    )
    if expanded > MAX_EXPANSION * path.stat().st_size + UNCOUNTED_BYTES:
        raise CorpusError(
            f"{path} expands to more than {MAX_EXPANSION} times its size; expected compressed "
            "text, which does not. If it is one, write it again without compression"
        )


def _plain(column: pa.Array) -> pa.Array:
    """Return the values, strings as bytes: Parquet does not check that they are UTF-8.

    A value that stands in many rows is there once: rows are taken from it one by one.
    """
    if not _is_text(column.type):
        return column
    if not pa.types.is_dictionary(column.type):
        return column.cast(_bytes_of(column.type))
    values = column.dictionary.cast(_bytes_of(column.dictionary.type))
    return pa.DictionaryArray.from_arrays(column.indices, values)


def _bytes_of(kind: pa.DataType) -> pa.DataType:
    return pa.binary() if kind == pa.string() else pa.large_binary()


def _num_bytes(value: pa.Scalar) -> int:
    plain = value.value if isinstance(value, pa.DictionaryScalar) else value
    return plain.as_buffer().size if plain is not None and plain.is_valid else 0


def _to_found(row: dict[str, Any], place: Place, default_id: str, reading: Reading) -> Found | None:
    try:
        row = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }
    except UnicodeDecodeError as error:
        reading.malformed(BAD_UTF8, place, found=shown(error.object), expected="UTF-8 text")
        return None
    article = to_record(row, place, default_id, reading)
    return Found(article, place) if article else None
