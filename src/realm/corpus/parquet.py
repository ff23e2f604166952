"""Parquet files -> articles, a batch of rows at a time."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from realm.corpus.reading import BAD_UTF8, Found, Place, Reading, shown, to_record
from realm.errors import CorpusError

BATCH_ROWS = 256
COLUMNS = ("id", "title", "text")


def read_parquet(path: Path, stem: str, reading: Reading) -> Iterator[Found]:
    """Yield the rows of a Parquet file; places are rows from 1.

    Raises:
        CorpusError: the file is damaged or has no column of texts.
    """
    try:
        with ParquetFile(path, pre_buffer=False) as file:
            columns = _check_columns(path, file.schema_arrow)
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                values = {name: _values(batch.column(name)) for name in columns}
                for at in range(batch.num_rows):
                    number += 1
                    place = Place(path.name, number)
                    row = {name: column[at] for name, column in values.items()}
                    if found := _to_found(row, place, f"{stem}-{number}", reading):
                        yield found
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path} is truncated or damaged ({error}); expected a whole Parquet file. "
            "Fetch it again: nothing of it is used half-read"
        ) from None


def _check_columns(path: Path, schema: pa.Schema) -> list[str]:
    if "text" not in schema.names or not _is_text(schema.field("text").type):
        raise CorpusError(
            f"{path} has the columns {', '.join(f'{f.name} ({f.type})' for f in schema)}; "
            "expected text (string), and if possible id and title"
        )
    return [name for name in COLUMNS if name in schema.names]


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in {pa.string(), pa.large_string(), pa.string_view()}


def _values(column: pa.Array) -> list[Any]:
    """Return the values; strings as bytes, since Parquet does not check that they are UTF-8."""
    if not _is_text(column.type):
        return column.to_pylist()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()).to_pylist()


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
