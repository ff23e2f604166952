"""An edition: what a library holds between two changes, immutable.

Rows stand in the order of document ids, whatever was added when: editions of the same documents
are equal but for the rounding of their vectors.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped

from realm.config import SplitConfig
from realm.corpus.reading import Place
from realm.corpus.store import Passages
from realm.corpus.views import Shard
from realm.errors import UnknownDocumentError
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot
from realm.library.head import Head
from realm.library.postings import LibraryWords
from realm.library.segment import Segment
from realm.records import Document, DocumentInfo, Passage
from realm.storage import fingerprint_of
from realm.tokenizer import WordpieceTokenizer


class Edition:
    """Documents, passages, vectors and words of some segments, without what was removed."""

    def __init__(self, folder: Path, head: Head, segments: Sequence[Segment]) -> None:
        """Look at segments as one.

        Args:
            folder: the library.
            head: names the segments, and which of their documents were removed.
            segments: in the head's order.
        """
        self.folder = folder
        self.head = head
        self.segments = list(segments)
        self.there = [self._there(number) for number in range(len(self.segments))]
        """Of each segment, which documents have not been removed."""
        ids: list[str] = []
        owners, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for place, segment in enumerate(self.segments):
            kept = np.flatnonzero(self.there[place])
            ids += [segment.ids[number] for number in kept.tolist()]
            owners.append(np.full(len(kept), place, np.int64))
            numbers.append(kept)
        order = sorted(range(len(ids)), key=ids.__getitem__)
        self._owners: Int64[np.ndarray, " documents"] = np.concatenate(owners)[order]
        self._numbers: Int64[np.ndarray, " documents"] = np.concatenate(numbers)[order]
        self.held: dict[str, int] = {ids[place]: n for n, place in enumerate(order)}
        """The position of each document by its id, in their order."""
        counts = self._gathered([segment.counts for segment in self.segments])
        firsts = self._gathered([segment.first_rows for segment in self.segments])
        starts = np.cumsum(counts) - counts
        self.num_passages = int(counts.sum())
        self.segment_of: Int64[np.ndarray, " passages"] = np.repeat(self._owners, counts)
        """The segment that holds each row."""
        self.at: Int64[np.ndarray, " passages"] = np.arange(self.num_passages) + np.repeat(
            firsts - starts, counts
        )
        """Each row's own row there."""

    def _gathered(
        self, columns: Sequence[Shaped[np.ndarray, " _"]]
    ) -> Int64[np.ndarray, " documents"]:
        """Return a column of the segments' documents for the documents in their order."""
        offsets = np.cumsum([0, *map(len, columns)])
        joined = np.concatenate([np.zeros(0, np.int64), *columns])
        return joined[offsets[self._owners] + self._numbers]

    def where(self, document_id: str) -> tuple[int, int]:
        """Return the segment of a document, and its number there.

        Raises:
            UnknownDocumentError: there is none of this id.
        """
        position = self.held.get(document_id)
        if position is None:
            raise self.unknown(document_id)
        return int(self._owners[position]), int(self._numbers[position])

    def _there(self, number: int) -> Bool[np.ndarray, " documents"]:
        there = np.ones(self.segments[number].num_documents, dtype=bool)
        there[list(self.head.segments[number].removed)] = False
        return there

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.held)

    def infos(self) -> list[DocumentInfo]:
        """Return what a listing tells, by id."""
        places = zip(self._owners.tolist(), self._numbers.tolist(), strict=True)
        return [self.segments[segment].infos[number] for segment, number in places]

    def info(self, document_id: str) -> DocumentInfo | None:
        """Return what a listing tells of one document, None where there is none."""
        if document_id not in self.held:
            return None
        segment, number = self.where(document_id)
        return self.segments[segment].infos[number]

    def document(self, document_id: str) -> Document:
        """Return a document with its whole text.

        Raises:
            UnknownDocumentError: there is none of this id.
        """
        segment, number = self.where(document_id)
        return self.segments[segment].document(number)

    def unknown(self, document_id: str) -> UnknownDocumentError:
        """Return what to raise for an id that no document has."""
        example = next(iter(self.held), None)
        expected = f"expected one such as {example!r}" if example else "it holds no document yet"
        return UnknownDocumentError(f"found no document {document_id[:80]!r}; {expected}")

    def place(self, passage: Passage, start: int) -> Place:
        """Return the document and the line, from 1, of a character of a passage's article."""
        segment = self.segments[int(self.segment_of[passage.row])]
        at = int(self.at[passage.row])
        number = int(np.searchsorted(segment.first_rows + segment.counts, at, side="right"))
        info = segment.infos[number]
        within = 0
        if info.format != "jsonl":
            within = passage.text.count("\n", 0, start - passage.start)
        return Place(info.id, int(segment.lines[at]) + within)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all documents and of how they were cut: equal whatever was added when."""
        digest = hashlib.sha256(fingerprint_of(self.head.made_with).encode())
        for segment, number in zip(self._owners.tolist(), self._numbers.tolist(), strict=True):
            digest.update(self.segments[segment].keys[number])
        return digest.hexdigest()

    @cached_property
    def words(self) -> LibraryWords:
        """BM25 over the passages."""
        rows = [self._row_of(number) for number in range(len(self.segments))]
        postings = [segment.postings for segment in self.segments]
        return LibraryWords(postings, rows, self.num_passages)

    def _row_of(self, number: int) -> Int64[np.ndarray, " rows"]:
        """Return the row of each of a segment's own rows, -1 for those removed."""
        rows = np.full(self.segments[number].num_passages, -1, dtype=np.int64)
        mine = np.flatnonzero(self.segment_of == number)
        rows[self.at[mine]] = mine
        return rows

    @cached_property
    def snapshot(self) -> Snapshot:
        """The passages' vectors, in memory, in the order of rows."""
        dim = int(self.head.made_with["dim"])
        scan = torch.empty((self.num_passages, dim), dtype=torch.bfloat16)
        exact = torch.empty((self.num_passages, dim))
        for number, segment in enumerate(self.segments):
            mine = torch.from_numpy(np.flatnonzero(self.segment_of == number))
            own = torch.from_numpy(self.at)[mine]
            scan[mine], exact[mine] = segment.scan[own], segment.exact[own]
        return Snapshot(
            folder=self.folder,
            step=0,
            model_hash=str(self.head.made_with["embedder"]),
            passages_fingerprint=self.fingerprint,
            scan=MappedRows([scan]),
            exact=MappedRows([exact]),
            max_norm=max((s.max_norm for s in self.segments), default=0.0),
            max_rounding=max((s.max_rounding for s in self.segments), default=0.0),
        )

    def passages(self, tokenizer: WordpieceTokenizer) -> "LibraryPassages":
        """Return the passages by their rows."""
        return LibraryPassages(self, tokenizer)


class LibraryPassages(Passages):
    """The passages of an edition."""

    def __init__(self, edition: Edition, tokenizer: WordpieceTokenizer) -> None:
        self.folder = edition.folder
        self.fingerprint = edition.fingerprint
        self.config = SplitConfig.model_validate(edition.head.made_with["split"])
        self._edition = edition
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return self._edition.num_passages

    @property
    def tokenizer(self) -> WordpieceTokenizer:
        """The model's own, which they were cut with."""
        return self._tokenizer

    def find(self, row: SupportsIndex) -> tuple[Shard, int]:
        """Return the shard of a row, and its place there."""
        at = index(row)
        if not 0 <= at < len(self):
            raise IndexError(f"row {at} is outside the {len(self):,} passages of {self.folder}")
        segment = self._edition.segments[int(self._edition.segment_of[at])]
        return segment.shard, int(self._edition.at[at])
