"""Vectors of passages that an earlier snapshot of the same embedder already has."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot


class EarlierVectors:
    """Finds the vectors of passages that are still what they were, wherever they stand now."""

    def __init__(self, store: PassageStore, before: PassageStore, snapshot: Snapshot) -> None:
        """Compare two stores by title and text.

        Args:
            store: the passages to embed.
            before: earlier passages, cut with the same tokenizer and settings.
            snapshot: of `before`, under the embedder that is to embed `store`.
        """
        self._exact = snapshot.exact
        rows = {before.sha256(row): row for row in range(len(before))}
        self._row_before = [rows.get(store.sha256(row)) for row in range(len(store))]

    def __call__(self, rows: Sequence[int]) -> tuple[list[int], Float[Tensor, "known dim"]]:
        """Return (places in `rows` of passages that are known, their vectors in 32 bits)."""
        found = [(place, self._row_before[row]) for place, row in enumerate(rows)]
        known = [(place, row) for place, row in found if row is not None]
        places = [place for place, _ in known]
        return places, self._exact[torch.tensor([row for _, row in known], dtype=torch.long)]
