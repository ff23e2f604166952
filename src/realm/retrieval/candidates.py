"""From a query to the candidates that the encoder reads (sections 3.3 and 3.4)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from realm.corpus.store import Passages
from realm.index.searchable import Searchable
from realm.ranks import ALONE, Ranks
from realm.records import MaskedExample

NULL_ROW = -1
"""Stands for the null passage, which has no row in the passage store."""
MISSING_ROW = -2
"""Stands for a candidate that could not be found; it gets no probability."""


def choose_candidates(
    found: Int[Tensor, " found"], is_own: Sequence[bool], num_candidates: int
) -> list[int]:
    """Return rows: the null passage, then the best that are not the example's own.

    Section 3.4, "Null document" and "Prohibiting trivial retrievals". `num_candidates` counts the
    null passage; where too few are found, MISSING_ROW fills up.

    Args:
        found: rows, best first.
        is_own: for each of them, whether it holds the sentence that was masked.
        num_candidates: rows to return.
    """
    kept = [row for row, own in zip(found.tolist(), is_own, strict=True) if not own]
    kept = [NULL_ROW, *kept[: num_candidates - 1]]
    return kept + [MISSING_ROW] * (num_candidates - len(kept))


def ngrams(
    pieces: Integer[np.ndarray, " pieces"], vocab_size: int, size: int = 3
) -> Integer[np.ndarray, " ngrams"]:
    """Return the distinct runs of `size` wordpieces, each as one number."""
    return np.unique(_numbers(np.asarray(pieces, dtype=np.int64), vocab_size, size))


def _numbers(
    ids: Integer[np.ndarray, " pieces"], vocab_size: int, size: int
) -> Integer[np.ndarray, " ngrams"]:
    """Return every run of `size` wordpieces as one number, in their order."""
    count = max(0, len(ids) - size + 1)
    numbers = np.zeros(count, dtype=np.int64)
    for shift in range(size):
        numbers = numbers * vocab_size + ids[shift : shift + count]
    return numbers


def overlaps(
    sentence: Integer[np.ndarray, " sentence"],
    passages: Sequence[Integer[np.ndarray, " _"]],
    vocab_size: int,
) -> Float[np.ndarray, " _"]:
    """Return, for each passage, the share of the sentence's trigrams that it holds, 0 to 1.

    A sentence of one or two wordpieces counts as a whole.
    """
    size = min(3, len(sentence))
    if not size or not passages:
        return np.zeros(len(passages))
    wanted = ngrams(sentence, vocab_size, size)
    pieces = np.concatenate(passages).astype(np.int64)
    owners = np.repeat(np.arange(len(passages)), [len(passage) for passage in passages])
    count = max(0, len(pieces) - size + 1)
    numbers = _numbers(pieces, vocab_size, size)
    places = np.searchsorted(wanted, numbers).clip(max=len(wanted) - 1)
    is_held = (wanted[places] == numbers) & (owners[:count] == owners[size - 1 :])
    found = np.unique(owners[:count][is_held] * len(wanted) + places[is_held])
    return np.bincount(found // len(wanted), minlength=len(passages)) / len(wanted)


class CandidateFinder:
    """Finds the candidates of masked examples in a passage store.

    An example's own passage is recognised by identity (same title and text, whichever store it
    came from) and by overlap: it holds most of the sentence's trigrams. The released code compares
    hashes only, so that its filter never fires once X and Z are cut differently.
    """

    def __init__(
        self,
        store: Passages,
        *,
        num_candidates: int,
        overlap_limit: float,
        exclude_own: bool = True,
        ranks: Ranks = ALONE,
    ) -> None:
        self.store = store
        self.num_candidates = num_candidates
        self.overlap_limit = overlap_limit
        self.exclude_own = exclude_own
        self.ranks = ranks

    def find(
        self,
        index: Searchable,
        queries: Float[Tensor, "batch dim"],
        examples: Sequence[MaskedExample],
    ) -> tuple[list[list[int]], Float[Tensor, "batch candidates"]]:
        """Return (rows of each example's candidates, their scores in the index).

        The index only selects: scores that train are computed afresh from the passages.
        Scores of the null passage and of missing candidates are nan. Where an example's best are
        its own, it is searched deeper; all ranks then search, as an index that they share needs.
        """
        depth = min(len(index), self.num_candidates + 7)
        rows, stale = self._search(index, queries, examples, depth)
        lacking = [number for number, chosen in enumerate(rows) if MISSING_ROW in chosen]
        deeper = min(len(index), 8 * self.num_candidates + 64)
        if depth < len(index) and self.ranks.any(bool(lacking)):
            again = self._search(index, queries[lacking], [examples[n] for n in lacking], deeper)
            for number, chosen, scores in zip(lacking, *again, strict=True):
                rows[number], stale[number] = chosen, scores
        return rows, stale

    def are_own(self, example: MaskedExample, rows: Sequence[int]) -> list[bool]:
        """Return, for each passage, whether the example came from it, or it holds its sentence."""
        if not self.exclude_own:
            return [False] * len(rows)
        shares = overlaps(
            np.asarray(example.original_ids, dtype=np.int64),
            [self.store.wordpieces(row) for row in rows],
            self.store.tokenizer.vocab_size,
        )
        return [
            bool(share >= self.overlap_limit) or self.store.sha256(row) == example.origin_sha256
            for share, row in zip(shares, rows, strict=True)
        ]

    def _search(
        self,
        index: Searchable,
        queries: Float[Tensor, "batch dim"],
        examples: Sequence[MaskedExample],
        depth: int,
    ) -> tuple[list[list[int]], Float[Tensor, "batch candidates"]]:
        """Return what `find` does, from the `depth` best passages of each query."""
        scores, found = index.search(queries, depth)
        rows: list[list[int]] = []
        stale: list[list[float]] = []
        for example, best, of_best in zip(examples, found, scores.tolist(), strict=True):
            own = self.are_own(example, best.tolist())
            chosen = choose_candidates(best, own, self.num_candidates)
            known = dict(zip(best.tolist(), of_best, strict=True))
            rows.append(chosen)
            stale.append([known.get(row, math.nan) for row in chosen])
        return rows, torch.tensor(stale).view(len(examples), self.num_candidates)
