"""PassageStore: a published passages folder, memory-mapped, row -> Passage."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from abc import ABC, abstractmethod
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
from realm.corpus.shards import TOKENIZER, check_passages, open_shard, read_manifest, shard_path
from realm.corpus.views import Shard
from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.readable import counted
from realm.records import Passage
from realm.tokenizer import WordpieceTokenizer


class Passages(ABC):
    """Passages by their rows; `passages[row]` is a Passage.

    Rows are read from memory maps, in some ten microseconds each.
    """

    folder: Path
    fingerprint: str
    """Hash of all passages: what an index or examples folder names as its input."""
    config: SplitConfig
    """The settings that the articles were split with."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def tokenizer(self) -> WordpieceTokenizer:
        """The tokenizer that the passages were measured with."""

    @abstractmethod
    def find(self, row: SupportsIndex) -> tuple[Shard, int]:
        """Return the shard of a row, and its place there.

        Raises:
            IndexError: there is no such row.
        """

    def __getitem__(self, row: SupportsIndex) -> Passage:
        shard, at = self.find(row)
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

    def wordpieces(self, row: SupportsIndex) -> Int64[np.ndarray, " pieces"]:
        """Return the wordpieces of a passage's text, without [CLS] and [SEP]."""
        shard, at = self.find(row)
        return shard.wordpieces.get(at).astype(np.int64)

    def title_wordpieces(self, row: SupportsIndex) -> Int64[np.ndarray, " pieces"]:
        """Return the wordpieces of a passage's title, cut to a quarter of the longest passage."""
        shard, at = self.find(row)
        return shard.title_wordpieces.get(at).astype(np.int64)

    def text(self, row: SupportsIndex) -> str:
        """Return the text of one passage."""
        shard, at = self.find(row)
        return shard.texts.get(at)

    def texts(self, rows: Iterable[SupportsIndex]) -> list[str]:
        """Return the texts of some passages."""
        return [self.text(row) for row in rows]

    def sha256(self, row: SupportsIndex) -> str:
        """Return `Passage.sha256` of a row without reading its text."""
        shard, at = self.find(row)
        return bytes(shard.hashes[at]).hex()

    def article_id(self, row: SupportsIndex) -> str:
        """Return the id of the article that a passage comes from."""
        shard, at = self.find(row)
        return shard.article_ids.get(at)

    def title(self, row: SupportsIndex) -> str:
        """Return the title of the article that a passage comes from."""
        shard, at = self.find(row)
        return shard.titles.get(at)

    def num_sentences(self, row: SupportsIndex) -> int:
        """Return how many sentences a passage has."""
        shard, at = self.find(row)
        return len(shard.sentence_starts.get(at))


class PassageStore(Passages):
    """The passages of a folder that `realm split` published; `store[row]` is a Passage.

    Nothing is loaded on opening: rows are read from memory maps, in some ten microseconds each.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        self.folder = folder
        self.fingerprint = manifest.fingerprint
        self.config = manifest.config
        paths = [shard_path(folder, number) for number in range(manifest.num_shards)]
        batches = [open_shard(path)[0] for path in paths]
        self._shards = [Shard(batch) for batch in batches]
        self._starts = [0]
        for batch in batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        if len(self) != manifest.num_passages:
            raise ArtifactError(
                f"{folder} holds {counted(len(self), 'passage')}, its manifest says "
                f"{manifest.num_passages:,}; run `realm split` again with --rebuild"
            )

    @classmethod
    def open(cls, folder: Path) -> "PassageStore":
        """Return the store in `folder`.

        Raises:
            ArtifactError: the folder is missing, unfinished, damaged, of another kind or format.
        """
        check_passages(folder)
        return cls(folder)

    def __reduce__(self) -> tuple[Callable[[Path], "PassageStore"], tuple[Path]]:
        return PassageStore, (self.folder,)  # a worker process maps the files itself

    def __len__(self) -> int:
        return self._starts[-1]

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

    def lengths(self, rows: Sequence[int] | None = None) -> Int64[np.ndarray, " rows"]:
        """Return 3 + title + body wordpieces of all rows, or some: [CLS] title [SEP] body [SEP]."""
        chosen = self._lengths if rows is None else self._lengths[np.asarray(rows, dtype=np.int64)]
        return chosen.astype(np.int64)

    @cached_property
    def _lengths(self) -> Shaped[np.ndarray, " rows"]:
        """Of all rows, in 32 bits: 4 bytes a passage, asked for at every step by re-ranking."""
        sizes = [shard.wordpieces.sizes + shard.title_wordpieces.sizes for shard in self._shards]
        return (np.concatenate(sizes) + NUM_SEPARATORS).astype(np.int32)

    def text_column(self) -> pa.ChunkedArray:
        """Return the texts of all passages as they stand in the memory maps."""
        return pa.chunked_array(
            [shard.batch.column("text") for shard in self._shards], type=pa.large_string()
        )

    def article_rows(self, row: SupportsIndex) -> range:
        """Return the rows of all passages of the same article, this one included."""
        shard, at = self.find(row)
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

    def find(self, row: SupportsIndex) -> tuple[Shard, int]:
        """Return the shard of a row, and its place there."""
        at = index(row)
        if not 0 <= at < len(self):
            raise IndexError(f"row {at} is outside the {len(self):,} passages of {self.folder}")
        number = bisect_right(self._starts, at) - 1
        return self._shards[number], at - self._starts[number]
