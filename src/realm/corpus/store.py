"""PassageStore: a published passages folder, memory-mapped, row -> Passage."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Shaped

from realm.config import SplitConfig
from realm.corpus.passages import NUM_SEPARATORS
from realm.corpus.shards import TOKENIZER, open_shard, read_manifest, shard_path
from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.records import Passage
from realm.tokenizer import WordpieceTokenizer


class PassageStore:
    """The passages of a folder that `realm split` published; `store[row]` is a Passage.

    Nothing is loaded on opening: rows are read from memory maps, in some ten microseconds each.
    """

    folder: Path
    fingerprint: str
    """Hash of the folder's content: what an index or examples folder names as its input."""
    config: SplitConfig
    """The settings that the articles were split with."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        self.folder = folder
        self.fingerprint = manifest.fingerprint
        self.config = manifest.config
        paths = [shard_path(folder, number) for number in range(manifest.num_shards)]
        batches = [open_shard(path)[0] for path in paths]
        self._shards = [_Shard(batch) for batch in batches]
        self._starts = [0]
        for batch in batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        if len(self) != manifest.num_passages:
            raise ArtifactError(
                f"{folder} holds {len(self):,} passages, its manifest says "
                f"{manifest.num_passages:,}; run `realm split` again with --rebuild"
            )

    @classmethod
    def open(cls, folder: Path) -> "PassageStore":
        """Return the store in `folder`.

        Raises:
            ArtifactError: the folder is missing, unfinished, damaged, of another kind or format.
        """
        return cls(folder)

    def __reduce__(self) -> tuple[Callable[[Path], "PassageStore"], tuple[Path]]:
        return PassageStore.open, (self.folder,)  # a worker process maps the files itself

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: SupportsIndex) -> Passage:
        shard, at = self._find(row)
        starts, ends = shard.sentence_starts.get(at), shard.sentence_ends.get(at)
        return Passage(
            row=index(row),
            id=shard.ids.get(at),
            article_id=shard.article_ids.get(at),
            title=shard.titles.get(at),
            text=shard.texts.get(at),
            start=int(shard.starts[at]),
            end=int(shard.ends[at]),
            sentences=tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
        )

    def __iter__(self) -> Iterator[Passage]:
        return (self[row] for row in range(len(self)))

    @property
    def tokenizer(self) -> WordpieceTokenizer:
        """The tokenizer that the passages were measured with."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> WordpieceTokenizer:
        try:
            return WordpieceTokenizer.load(self.folder / TOKENIZER)
        except ConfigError as error:
            raise ArtifactError(f"{error}; run `realm split` again with --rebuild") from None

    def wordpieces(self, row: SupportsIndex) -> Int64[np.ndarray, " pieces"]:
        """Return the wordpieces of a passage's text, without [CLS] and [SEP]."""
        shard, at = self._find(row)
        return shard.wordpieces.get(at).astype(np.int64)

    def title_wordpieces(self, row: SupportsIndex) -> Int64[np.ndarray, " pieces"]:
        """Return the wordpieces of a passage's title, cut to a quarter of the longest passage."""
        shard, at = self._find(row)
        return shard.title_wordpieces.get(at).astype(np.int64)

    def lengths(self, rows: Sequence[int] | None = None) -> Int64[np.ndarray, " rows"]:
        """Return 3 + title + body wordpieces of all rows, or some: [CLS] title [SEP] body [SEP]."""
        chosen = self._lengths if rows is None else self._lengths[np.asarray(rows, dtype=np.int64)]
        return chosen.astype(np.int64)

    @cached_property
    def _lengths(self) -> Shaped[np.ndarray, " rows"]:
        """Of all rows, in 32 bits: 4 bytes a passage, asked for at every step by re-ranking."""
        sizes = [shard.wordpieces.sizes + shard.title_wordpieces.sizes for shard in self._shards]
        return (np.concatenate(sizes) + NUM_SEPARATORS).astype(np.int32)

    def text(self, row: SupportsIndex) -> str:
        """Return the text of one passage."""
        shard, at = self._find(row)
        return shard.texts.get(at)

    def texts(self, rows: Iterable[SupportsIndex]) -> list[str]:
        """Return the texts of some passages."""
        return [self.text(row) for row in rows]

    def text_column(self) -> pa.ChunkedArray:
        """Return the texts of all passages as they stand in the memory maps."""
        return pa.chunked_array(
            [shard.batch.column("text") for shard in self._shards], type=pa.large_string()
        )

    def sha256(self, row: SupportsIndex) -> str:
        """Return `Passage.sha256` of a row without reading its text."""
        shard, at = self._find(row)
        return bytes(shard.hashes[at]).hex()

    def article_id(self, row: SupportsIndex) -> str:
        """Return the id of the article that a passage comes from."""
        shard, at = self._find(row)
        return shard.article_ids.get(at)

    def title(self, row: SupportsIndex) -> str:
        """Return the title of the article that a passage comes from."""
        shard, at = self._find(row)
        return shard.titles.get(at)

    def num_sentences(self, row: SupportsIndex) -> int:
        """Return how many sentences a passage has."""
        shard, at = self._find(row)
        return len(shard.sentence_starts.get(at))

    def article_rows(self, row: SupportsIndex) -> range:
        """Return the rows of all passages of the same article, this one included."""
        shard, at = self._find(row)
        first = at - int(shard.numbers[at])
        following = int(np.searchsorted(shard.first_rows, at, side="right"))
        end = (
            int(shard.first_rows[following])
            if following < len(shard.first_rows)
            else shard.batch.num_rows
        )
        offset = index(row) - at
        return range(offset + first, offset + end)

    def row_of(self, passage_id: str) -> int:
        """Return the row of the passage with this id.

        Raises:
            CorpusError: there is none.
        """
        row = self._rows.get(passage_id)
        if row is None:
            raise CorpusError(
                f"{self.folder} has no passage {passage_id!r}; expected an id such as "
                f"{self[0].id!r}: <article id>#<number>"
            )
        return row

    def rows_of_article(self, article_id: str) -> Sequence[int]:
        """Return the rows of an article's passages; none where there is no such article."""
        return self._article_rows.get(article_id, ())

    @cached_property
    def _article_rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row in range(len(self)):
            rows.setdefault(self.article_id(row), []).append(row)
        return rows

    @cached_property
    def _rows(self) -> dict[str, int]:
        ids = (shard.ids.get(at) for shard in self._shards for at in range(shard.batch.num_rows))
        return {passage_id: row for row, passage_id in enumerate(ids)}

    def _find(self, row: SupportsIndex) -> tuple["_Shard", int]:
        at = index(row)
        if not 0 <= at < len(self):
            raise IndexError(f"row {at} is outside the {len(self):,} passages of {self.folder}")
        number = bisect_right(self._starts, at) - 1
        return self._shards[number], at - self._starts[number]


class _Lists:
    """A list column as numpy views of its offsets and values."""

    def __init__(self, column: pa.Array) -> None:
        self._values = column.values.to_numpy(zero_copy_only=True)  # type: ignore[attr-defined]
        self._offsets = column.offsets.to_numpy(zero_copy_only=True)  # type: ignore[attr-defined]

    def get(self, at: int) -> Shaped[np.ndarray, " values"]:
        return self._values[self._offsets[at] : self._offsets[at + 1]]

    @property
    def sizes(self) -> Int64[np.ndarray, " rows"]:
        return np.diff(self._offsets).astype(np.int64)


class _Strings:
    """A string column as views of its offsets and bytes."""

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        dtype = np.int64 if column.type == pa.large_string() else np.int32
        self._offsets = np.frombuffer(offsets or b"\0" * 8, dtype=dtype)
        self._data = memoryview(data or b"")

    def get(self, at: int) -> str:
        return str(self._data[self._offsets[at] : self._offsets[at + 1]], "utf-8")


class _Shard:
    """The columns of one shard, as views that are quick to read a row from."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.ids = _Strings(batch.column("id"))
        self.article_ids = _Strings(batch.column("article_id"))
        self.titles = _Strings(batch.column("title"))
        self.texts = _Strings(batch.column("text"))
        self.numbers = batch.column("number").to_numpy(zero_copy_only=True)
        self.starts = batch.column("start").to_numpy(zero_copy_only=True)
        self.ends = batch.column("end").to_numpy(zero_copy_only=True)
        self.sentence_starts = _Lists(batch.column("sentence_starts"))
        self.sentence_ends = _Lists(batch.column("sentence_ends"))
        self.wordpieces = _Lists(batch.column("wordpieces"))
        self.title_wordpieces = _Lists(batch.column("title_wordpieces"))
        hashes = batch.column("sha256").buffers()[1]
        self.hashes = np.frombuffer(hashes or b"", dtype=np.uint8).reshape(-1, 32)

    @cached_property
    def first_rows(self) -> Shaped[np.ndarray, " values"]:
        """Where each article starts."""
        return np.flatnonzero(self.numbers == 0)
