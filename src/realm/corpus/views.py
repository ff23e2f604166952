"""The columns of a shard as numpy views that are quick to read a row from."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Shaped


class Lists:
    """A list column as numpy views of its offsets and values."""

    def __init__(self, column: pa.Array) -> None:
        self.values = column.values.to_numpy(zero_copy_only=True)  # type: ignore[attr-defined]
        self.offsets = column.offsets.to_numpy(zero_copy_only=True)  # type: ignore[attr-defined]

    def get(self, at: int) -> Shaped[np.ndarray, " values"]:
        """Return the list of one row."""
        return self.values[self.offsets[at] : self.offsets[at + 1]]

    @property
    def sizes(self) -> Int64[np.ndarray, " rows"]:
        """Return how long each row's list is."""
        return np.diff(self.offsets).astype(np.int64)


class Strings:
    """A string column as views of its offsets and bytes."""

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        dtype = np.int64 if column.type == pa.large_string() else np.int32
        self._offsets = np.frombuffer(offsets or b"\0" * 8, dtype=dtype)
        self._data = memoryview(data or b"")

    def get(self, at: int) -> str:
        """Return the string of one row."""
        return str(self._data[self._offsets[at] : self._offsets[at + 1]], "utf-8")


class Shard:
    """The columns of one shard, as views that are quick to read a row from."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.ids = Strings(batch.column("id"))
        self.article_ids = Strings(batch.column("article_id"))
        self.titles = Strings(batch.column("title"))
        self.texts = Strings(batch.column("text"))
        self.numbers = batch.column("number").to_numpy(zero_copy_only=True)
        self.starts = batch.column("start").to_numpy(zero_copy_only=True)
        self.ends = batch.column("end").to_numpy(zero_copy_only=True)
        self.sentence_starts = Lists(batch.column("sentence_starts"))
        self.sentence_ends = Lists(batch.column("sentence_ends"))
        self.wordpieces = Lists(batch.column("wordpieces"))
        self.title_wordpieces = Lists(batch.column("title_wordpieces"))
        hashes = batch.column("sha256").buffers()[1]
        self.hashes = np.frombuffer(hashes or b"", dtype=np.uint8).reshape(-1, 32)

    @cached_property
    def first_rows(self) -> Shaped[np.ndarray, " values"]:
        """Where each article starts."""
        return np.flatnonzero(self.numbers == 0)
