"""Shards of passages on disk: one Arrow IPC file each, written aside, read by memory map."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from realm.config import SplitConfig
from realm.corpus.passages import CutPassage
from realm.errors import ArtifactError
from realm.readable import counted
from realm.records import Skipped
from realm.storage import MANIFEST, check_files, native_name, not_read, open_folder

TOKENIZER = "tokenizer.json"
SKIPPED = "skipped.jsonl"
REMEDY = "run `realm split` again with --rebuild"
COUNTS = b"realm"
"""Key of the shard's counts in the schema's metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """What went into a shard; stands in the shard itself, so that a resumed run knows it."""

    num_articles: int
    """Articles that gave at least one passage."""
    num_passages: int
    num_wordpieces: int
    """Wordpieces of the passages' texts, titles aside."""
    skipped: Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the manifest says about a passages folder."""

    fingerprint: str
    config: SplitConfig
    num_shards: int
    num_passages: int
    num_articles: int
    num_wordpieces: int
    skipped_counts: dict[str, int]


def shard_path(folder: Path, number: int) -> Path:
    """Return where shard `number` of a passages folder is."""
    return folder / f"passages-{number:05d}.arrow"


def schema(vocab_size: int) -> pa.Schema:
    """Return the columns of a shard; wordpieces take 16 bits where the vocabulary allows it."""
    pieces = pa.list_(pa.uint16() if vocab_size < 1 << 16 else pa.uint32())
    return pa.schema(
        [
            ("id", pa.string()),
            ("article_id", pa.string()),
            ("number", pa.int32()),
            ("title", pa.string()),
            ("text", pa.large_string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("sentence_starts", pa.list_(pa.int32())),
            ("sentence_ends", pa.list_(pa.int32())),
            ("wordpieces", pieces),
            ("title_wordpieces", pieces),
            ("sha256", pa.binary(32)),
        ]
    )


def to_batch(passages: Sequence[CutPassage], columns: pa.Schema) -> pa.RecordBatch:
    """Return passages as columns."""
    records = [cut.passage for cut in passages]
    table: dict[str, Any] = {
        "id": [record.id for record in records],
        "article_id": [record.article_id for record in records],
        "number": [record.row for record in records],
        "title": [record.title for record in records],
        "text": [record.text for record in records],
        "start": [record.start for record in records],
        "end": [record.end for record in records],
        "sentence_starts": _lists([[s for s, _ in r.sentences] for r in records], np.int32),
        "sentence_ends": _lists([[e for _, e in r.sentences] for r in records], np.int32),
        "sha256": [bytes.fromhex(record.sha256) for record in records],
    }
    dtype = columns.field("wordpieces").type.value_type.to_pandas_dtype()
    table["wordpieces"] = _lists([cut.wordpieces for cut in passages], dtype)
    table["title_wordpieces"] = _lists([cut.title_wordpieces for cut in passages], dtype)
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, type=columns.field(name).type)
        for name, value in ((name, table[name]) for name in columns.names)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def write_shard(
    path: Path, batches: Iterable[pa.RecordBatch], columns: pa.Schema, counts: ShardCounts
) -> None:
    """Write one shard, whole or absent, as a single record batch."""
    told = {
        "num_articles": counts.num_articles,
        "num_passages": counts.num_passages,
        "num_wordpieces": counts.num_wordpieces,
        "skipped": {"counts": counts.skipped.counts, "examples": counts.skipped.examples},
    }
    columns = columns.with_metadata({COUNTS: json.dumps(told, sort_keys=True).encode()})
    table = pa.Table.from_batches(list(batches), columns.remove_metadata()).combine_chunks()
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        with pa.ipc.new_file(stream, columns) as writer:
            writer.write_table(table.replace_schema_metadata(columns.metadata))
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def open_shard(path: Path) -> tuple[pa.RecordBatch, ShardCounts]:
    """Return a shard's columns, memory-mapped, and its counts.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(native_name(path)))
        columns = reader.schema
        told = json.loads((columns.metadata or {})[COUNTS])
        skipped = Skipped(**told.pop("skipped"))
        counts = ShardCounts(**told, skipped=skipped)
        dtype = columns.field("wordpieces").type.value_type
        expected = schema((1 << 16) - (dtype == pa.uint16()))
        if not columns.equals(expected) or reader.num_record_batches > 1:
            raise ArtifactError(f"{path} has other columns than this release writes; split again")
        batch = reader.get_batch(0) if reader.num_record_batches else _empty(expected)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise not_read(path, error, remedy=REMEDY) from None
    if batch.num_rows != counts.num_passages:
        raise ArtifactError(
            f"{path} holds {counted(batch.num_rows, 'passage')}, expected {counts.num_passages:,}; "
            "run `realm split` again with --rebuild"
        )
    return batch, counts


def check_passages(folder: Path) -> None:
    """Compare the files of a passages folder with their checksums.

    Raises:
        ArtifactError: the folder is missing, unfinished, damaged, of another kind or format.
    """
    check_files(folder, open_folder(folder, "passages"), remedy=REMEDY)


def read_manifest(folder: Path) -> Manifest:
    """Return what the manifest of a passages folder says.

    Raises:
        ArtifactError: the folder is missing, unfinished, damaged, of another kind or format.
    """
    manifest = open_folder(folder, "passages")
    try:
        content = manifest["content"]
        return Manifest(
            fingerprint=str(manifest["fingerprint"]),
            config=SplitConfig.model_validate(manifest["settings"]),
            num_shards=int(content["num_shards"]),
            num_passages=int(content["num_passages"]),
            num_articles=int(content["num_articles"]),
            num_wordpieces=int(content["num_wordpieces"]),
            skipped_counts={str(why): int(number) for why, number in content["skipped"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder / MANIFEST} is damaged ({type(error).__name__}: {error}); "
            "run `realm split` again with --rebuild"
        ) from None


def _lists(values: Sequence[Sequence[int]], dtype: Any) -> pa.Array:  # noqa: ANN401 (a numpy type)
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.fromiter(chain.from_iterable(values), dtype, count=int(offsets[-1]))
    return cast("pa.Array", pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)))


def _empty(columns: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], type=f.type) for f in columns], schema=columns)
