"""Which words stand in which passages of a segment; BM25 over several segments.

BM25's statistics change with every document, so that nothing is kept of them: a score is computed
from counts when it is asked for, in the order and precision of bm25s, whose scores these are.

words.arrow has a row for each word, in their order: the passages that hold it, and how often.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64, Shaped
from numpy.typing import NDArray

from realm.corpus.views import Lists
from realm.retrieval.bm25 import K1, B, best_rows, words
from realm.storage import native_name, not_read

WORDS = "words.arrow"
COLUMNS = pa.schema(
    [("word", pa.string()), ("rows", pa.list_(pa.int32())), ("counts", pa.list_(pa.int32()))]
)
_REMEDY = "make the library again from its documents (`realm docs add`)"


class Postings:
    """The words of a segment's passages."""

    def __init__(
        self,
        vocabulary: pa.Array,
        offsets: Int64[np.ndarray, " words_and_one"],
        rows: Int32[np.ndarray, " postings"],
        counts: Int32[np.ndarray, " postings"],
        *,
        num_passages: int,
    ) -> None:
        self.vocabulary = vocabulary
        self.offsets, self.rows, self.counts = offsets, rows, counts
        self.num_passages = num_passages

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Postings":
        """Count the words of passages, each given as its title and text in one."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row, text in enumerate(texts):
            for word, count in Counter(words(text)).items():
                found.setdefault(word, []).append((row, count))
        ordered = sorted(found)
        flat = np.array([pair for word in ordered for pair in found[word]], dtype=np.int32)
        flat = flat.reshape(-1, 2)
        return cls(
            pa.array(ordered, type=pa.string()),
            _offsets([len(found[word]) for word in ordered]),
            np.ascontiguousarray(flat[:, 0]),
            np.ascontiguousarray(flat[:, 1]),
            num_passages=len(texts),
        )

    @classmethod
    def joined(
        cls,
        parts: Sequence["Postings"],
        new_rows: Sequence[Int64[np.ndarray, " _"]],
        *,
        num_passages: int,
    ) -> "Postings":
        """Return the postings of several segments as those of one.

        Args:
            parts: of each segment.
            new_rows: of each, the row that each of its rows becomes; -1: it is left out.
            num_passages: rows of the whole.
        """
        lists = [part.vocabulary.to_pylist() for part in parts]
        vocabulary = sorted({word for some in lists for word in some})
        number_of = {word: number for number, word in enumerate(vocabulary)}
        word_of: list[Any] = []
        rows: list[Any] = []
        counts: list[Any] = []
        for part, own, new in zip(parts, lists, new_rows, strict=True):
            number = np.array([number_of[word] for word in own], dtype=np.int64)
            row = new[part.rows]
            kept = row >= 0
            word_of.append(np.repeat(number, np.diff(part.offsets))[kept])
            rows.append(row[kept])
            counts.append(part.counts[kept])
        word, row, count = (np.concatenate(some) for some in (word_of, rows, counts))
        order = np.lexsort((row, word))
        sizes = np.bincount(word, minlength=len(vocabulary))
        held = sizes > 0
        return cls(
            pa.array(
                [w for w, is_held in zip(vocabulary, held, strict=True) if is_held], pa.string()
            ),
            _offsets(sizes[held]),
            row[order].astype(np.int32),
            count[order].astype(np.int32),
            num_passages=num_passages,
        )

    def write(self, folder: Path) -> None:
        """Write them beside a segment's passages."""
        offsets = pa.array(self.offsets.astype(np.int32))
        columns = [
            self.vocabulary,
            pa.ListArray.from_arrays(offsets, pa.array(self.rows)),
            pa.ListArray.from_arrays(offsets, pa.array(self.counts)),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=COLUMNS)
        path = native_name(folder / WORDS)
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, COLUMNS) as to:
            to.write_batch(batch)

    @classmethod
    def open(cls, folder: Path, *, num_passages: int) -> "Postings":
        """Map what `write` wrote.

        Raises:
            ArtifactError: missing or damaged.
        """
        path = folder / WORDS
        try:
            batch = pa.ipc.open_file(pa.memory_map(native_name(path))).get_batch(0)
            if not batch.schema.equals(COLUMNS):
                raise ValueError("other columns")  # noqa: TRY301
        except (OSError, ValueError) as error:
            raise not_read(path, error, remedy=_REMEDY) from None
        rows, counts = Lists(batch.column("rows")), Lists(batch.column("counts"))
        return cls(
            batch.column("word"),
            rows.offsets.astype(np.int64),
            rows.values,
            counts.values,
            num_passages=num_passages,
        )

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " passages"]:
        """How many words each passage has."""
        counted = np.bincount(self.rows, weights=self.counts, minlength=self.num_passages)
        return counted.astype(np.int64)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.vocabulary.to_pylist())}

    def of_word(
        self, word: str
    ) -> tuple[Shaped[np.ndarray, " values"], Shaped[np.ndarray, " values"]] | None:
        """Return (rows, counts) of a word, None where no passage holds it."""
        number = self._number.get(word)
        if number is None:
            return None
        here = slice(self.offsets[number], self.offsets[number + 1])
        return self.rows[here], self.counts[here]


class LibraryWords:
    """BM25 over the passages of some segments that are still there."""

    def __init__(
        self, parts: Sequence[Postings], new_rows: Sequence[Int64[np.ndarray, " _"]], num_rows: int
    ) -> None:
        """Look at segments through the rows that their passages have in the whole.

        Args:
            parts: of each segment.
            new_rows: of each, the row that each of its rows is in the whole; -1: removed.
            num_rows: of the whole.
        """
        self._parts = list(zip(parts, new_rows, strict=True))
        self._num_rows = num_rows
        self._lengths = np.zeros(num_rows, dtype=np.int64)
        for part, new in self._parts:
            kept = new >= 0
            self._lengths[new[kept]] = part.lengths[kept]
        self._mean_length = self._lengths.mean() if num_rows else np.float64(0)

    def scores(self, question: str) -> NDArray[np.float32]:
        """Return the score of every row; 0 where it shares no word with the question."""
        scores = np.zeros(self._num_rows, dtype=np.float32)
        for word in words(question):
            found = [(new, part.of_word(word)) for part, new in self._parts]
            rows, counts = self._alive([(new, held) for new, held in found if held is not None])
            if rows.size:
                scores[rows] += self._score(rows, counts)
        return scores

    def best(self, scores: NDArray[np.float32], k: int) -> tuple[list[int], list[float]]:
        """Return (rows, scores) of the k best that share a word, best first."""
        return best_rows(scores, k)

    @staticmethod
    def _alive(found: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        rows = [new[held[0]] for new, held in found]
        counts = [held[1] for _, held in found]
        if not rows:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
        row, count = np.concatenate(rows), np.concatenate(counts)
        kept = row >= 0
        return row[kept], count[kept]

    def _score(self, rows: NDArray[np.int64], counts: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return Lucene's BM25 of one word for the rows that hold it."""
        frequency = counts.astype(np.float32)
        idf = np.float32(math.log(1 + (self._num_rows - rows.size + 0.5) / (rows.size + 0.5)))
        norm = K1 * ((1 - B) + B * self._lengths[rows] / self._mean_length)
        return (idf * (frequency / (norm + frequency))).astype(np.float32)


def _offsets(sizes: Sequence[int] | Shaped[np.ndarray, " values"]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
