"""A segment: some documents, their passages, vectors and words, published once, never changed.

segment-00000007/
    documents.arrow         id, title, format, text, hashes, time, number of passages
    passages-00000.arrow    their passages, as in a passage store
    lines.i64               the line of its document that each passage begins in
    scan-00000.bf16, exact-00000.f32    their vectors, as in a snapshot
    words.arrow             which words stand in which passages
    manifest.json           checksum, norms; written last
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from realm.corpus.shards import ShardCounts, open_shard, shard_path
from realm.corpus.shards import write_shard as write_passages
from realm.corpus.views import Shard, Strings
from realm.errors import DamagedError
from realm.index.mapped import MappedRows
from realm.index.snapshot import shard_names
from realm.index.writing import largest_norms, write_matrix, write_shard
from realm.library.postings import Postings
from realm.records import Document, DocumentInfo, Skipped
from realm.storage import (
    EXTRA,
    Request,
    check_files,
    native_name,
    not_read,
    open_folder,
    publish,
    write_json,
)

DOCUMENTS = "documents.arrow"
LINES = "lines.i64"
_REMEDY = "make the library again from its documents (`realm docs add`)"
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("format", pa.string()),
        ("text", pa.large_string()),
        ("sha256", pa.string()),
        ("key", pa.binary(32)),
        ("added_at", pa.string()),
        ("num_characters", pa.int64()),
        ("num_passages", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentContent:
    """What a segment is written from; passages stand in the order of their documents."""

    documents: pa.RecordBatch
    passages: pa.RecordBatch
    lines: Int64[np.ndarray, " passages"]
    exact: Float[Tensor, "passages dim"]
    postings: Postings


class Segment:
    """An opened segment, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        """Open what `write_segment` published.

        Raises:
            ArtifactError: missing, unfinished or damaged.
        """
        manifest = open_folder(folder, "segment")
        check_files(folder, manifest, remedy=_REMEDY)
        try:
            content = manifest["content"]
            dim, self.num_passages = int(content["dim"]), int(content["num_passages"])
            self.max_norm = float(content["max_norm"])
            self.max_rounding = float(content["max_rounding"])
            batch = pa.ipc.open_file(pa.memory_map(native_name(folder / DOCUMENTS))).get_batch(0)
        except OSError as error:
            raise not_read(folder / DOCUMENTS, error, remedy=_REMEDY) from None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(f"{folder} is damaged ({error!r}); {_REMEDY}") from None
        self.folder = folder
        self.documents = batch
        passages, _ = open_shard(shard_path(folder, 0))
        self.shard = Shard(passages)
        self.postings = Postings.open(folder, num_passages=self.num_passages)
        names = shard_names(0)
        self.scan = _mapped(folder / names[0], self.num_passages, dim, torch.bfloat16)
        self.exact = _mapped(folder / names[1], self.num_passages, dim, torch.float32)
        lines = _mapped(folder / LINES, self.num_passages, 1, torch.int64)
        self.lines: Int64[np.ndarray, " passages"] = lines[:, 0].numpy()
        self.counts: Int64[np.ndarray, " documents"] = batch.column("num_passages").to_numpy()
        self.first_rows: Int64[np.ndarray, " documents"] = np.cumsum(self.counts) - self.counts
        self.ids: list[str] = batch.column("id").to_pylist()
        self.keys: list[bytes] = batch.column("key").to_pylist()
        """Of each document, the hash of all that it is to readers."""
        self._texts = Strings(batch.column("text"))

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def num_documents(self) -> int:
        """How many documents it was written with, those removed since included."""
        return self.documents.num_rows

    @cached_property
    def infos(self) -> list[DocumentInfo]:
        """What a listing tells of each document."""
        told = self.documents.drop_columns(["text", "key"]).to_pylist()
        return [DocumentInfo(**row) for row in told]

    def document(self, number: int) -> Document:
        """Return a document with its whole text."""
        info = self.infos[number]
        return Document(
            id=info.id, title=info.title, format=info.format, text=self._texts.get(number)
        )

    @cached_property
    def row_of_hash(self) -> dict[bytes, int]:
        """The row of each passage by its hash of title and text."""
        return {bytes(value): row for row, value in enumerate(self.shard.hashes)}

    def rows_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " rows"]:
        """Return the rows of some documents, document after document."""
        ranges = [
            np.arange(self.first_rows[number], self.first_rows[number] + self.counts[number])
            for number in numbers
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *ranges])


def document_rows(documents: Sequence[Document], infos: Sequence[DocumentInfo]) -> pa.RecordBatch:
    """Return documents as the rows of a segment."""
    rows = [
        {**asdict(info), "text": document.text, "key": _key(info)}
        for document, info in zip(documents, infos, strict=True)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=COLUMNS)


def write_segment(folder: Path, content: SegmentContent) -> Segment:
    """Publish a segment, and open it.

    Raises:
        ArtifactError: it cannot be written; nothing was published.
    """
    num_passages, dim = content.exact.shape
    with publish(folder, Request(kind="segment")) as scratch:
        with (
            pa.OSFile(native_name(scratch / DOCUMENTS), "wb") as sink,
            pa.ipc.new_file(sink, COLUMNS) as to,
        ):
            to.write_batch(content.documents)
        counts = ShardCounts(
            num_articles=content.documents.num_rows,
            num_passages=num_passages,
            num_wordpieces=0,
            skipped=Skipped(),
        )
        write_passages(shard_path(scratch, 0), [content.passages], content.passages.schema, counts)
        content.postings.write(scratch)
        max_norm = max_rounding = 0.0
        if num_passages:
            write_shard(scratch, 0, content.exact)
            write_matrix(scratch / LINES, torch.from_numpy(content.lines))
            max_norm, max_rounding = largest_norms(content.exact.to(torch.bfloat16), content.exact)
        told = {
            "num_documents": content.documents.num_rows,
            "num_passages": num_passages,
            "dim": dim,
            "max_norm": max_norm,
            "max_rounding": max_rounding,
        }
        write_json(scratch / EXTRA, told)
    return Segment(folder)


def join_segments(parts: Sequence[tuple[Segment, Bool[np.ndarray, " _"]]]) -> SegmentContent:
    """Return the documents of several segments that are still there as the content of one.

    Args:
        parts: segments, each with whether its documents are there.
    """
    kept = [np.flatnonzero(there).tolist() for _, there in parts]
    segments = [segment for segment, _ in parts]
    rows = [segment.rows_of(some) for segment, some in zip(segments, kept, strict=True)]
    new_rows: list[Shaped[np.ndarray, " values"]] = []
    num_rows = 0
    for segment, old in zip(segments, rows, strict=True):
        new = np.full(segment.num_passages, -1, dtype=np.int64)
        new[old] = np.arange(num_rows, num_rows + len(old))
        num_rows += len(old)
        new_rows.append(new)
    return SegmentContent(
        documents=_stacked([s.documents for s in segments], kept),
        passages=_stacked([s.shard.batch for s in segments], rows),
        lines=np.concatenate([s.lines[old] for s, old in zip(segments, rows, strict=True)]),
        exact=torch.cat(
            [s.exact[torch.from_numpy(o)] for s, o in zip(segments, rows, strict=True)]
        ),
        postings=Postings.joined(
            [segment.postings for segment in segments], new_rows, num_passages=num_rows
        ),
    )


def _key(info: DocumentInfo) -> bytes:
    told = (info.id, info.title, info.format, info.sha256)
    return hashlib.sha256("\n".join(told).encode()).digest()


def _stacked(batches: Sequence[pa.RecordBatch], rows: Sequence[Any]) -> pa.RecordBatch:
    taken = [
        batch.take(pa.array(some, type=pa.int64())).replace_schema_metadata(None)
        for batch, some in zip(batches, rows, strict=True)
    ]
    columns = batches[0].schema.remove_metadata()
    table = pa.Table.from_batches(taken, columns).combine_chunks()
    return (table.to_batches() or [pa.RecordBatch.from_pylist([], schema=columns)])[0]


def _mapped(path: Path, rows: int, dim: int, dtype: torch.dtype) -> Shaped[Tensor, "rows dim"]:
    if not rows:
        return torch.empty((0, dim), dtype=dtype)
    ((_, mapped),) = MappedRows.open([path], [rows], dim, dtype).chunks(rows)
    return mapped
