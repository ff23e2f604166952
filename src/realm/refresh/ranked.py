"""Asynchronous refresh on several ranks: the first one decides, all swap between the same steps."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.device import CPU
from realm.errors import ArtifactError
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.model.embedder import Embedder
from realm.ranks import Ranks
from realm.refresh.asynchronous import AsyncRefresher
from realm.refresh.drift import Drift
from realm.refresh.patches import PATCHES, read_patch


class RankedRefresher:
    """The first rank's refresher, and its mirror on the others.

    Only names of folders cross; each rank maps what it needs, from the shared file system.
    """

    def __init__(
        self,
        first: AsyncRefresher | None,
        store: PassageStore,
        ranks: Ranks,
        device: torch.device = CPU,
    ) -> None:
        """Wrap.

        Args:
            first: the refresher, on the first rank; None on the others.
            store: the passages.
            ranks: who swaps together.
            device: where this rank scans the index.
        """
        self.first = first
        if first:
            first.is_mirrored = True
        self.store = store
        self.ranks = ranks
        self.device = device
        self.drift = first.drift if first else Drift()
        self._index: LiveIndex | None = None

    @property
    def index(self) -> LiveIndex:
        """The index in use.

        Raises:
            ArtifactError: `advance` was never called.
        """
        index = self.first.index if self.first else self._index
        if index is None:
            raise ArtifactError("no snapshot is open yet; expected one after the first step")
        return index

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot in use.

        Raises:
            ArtifactError: see `index`.
        """
        return self.index.snapshot

    def advance(self, tower: Embedder, step: int) -> bool:
        """Let the first rank advance, then swap in what it took; return whether it refreshed.

        Raises:
            StaleIndexError: on the first rank, see there.
            RankError: the first rank stopped.
        """
        told = self.ranks.from_first(partial(self._advance_first, tower, step))
        self._mirror(told["taken"])
        return bool(told["has_refreshed"])

    def staleness(self, step: int) -> int:
        """Return training step minus step of the index's oldest row."""
        return step - self.index.oldest_step()

    def count(self, rows: Int[Tensor, " seen"], drift: Float[Tensor, " seen"]) -> None:
        """Take in which passages were candidates, on any rank."""
        if self.first:
            self.first.count(rows, drift)

    def measures(self, step: int) -> dict[str, float]:
        """Return the state of the index before a step."""
        if self.first:
            return self.first.measures(step)
        return {"index/staleness_steps": float(self.staleness(step))}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs; asked on the first rank."""
        return self.first.state() if self.first else {}

    def restore(self, values: Mapping[str, Any], step: int) -> None:
        """Search what the first rank finds fit."""
        self._mirror(self.ranks.from_first(partial(self._restore_first, values, step)))

    def close(self) -> None:
        """Stop what runs beside the trainer."""
        if self.first:
            self.first.close()

    def _advance_first(self, tower: Embedder, step: int) -> dict[str, Any]:
        if self.first is None:
            return {}
        has_refreshed = self.first.advance(tower, step)
        return {"has_refreshed": has_refreshed, "taken": self.first.taken()}

    def _restore_first(self, values: Mapping[str, Any], step: int) -> list[str]:
        if self.first is None:
            return []
        self.first.restore(values, step)
        return self.first.taken()

    def _mirror(self, taken: list[str]) -> None:
        """Swap in on another rank what the first one did."""
        if self.first:
            return
        for folder in map(Path, taken):
            if folder.parent.name == PATCHES:
                patch = read_patch(folder, self.store.fingerprint)
                self.index.write(patch.rows, patch.vectors, patch.step)
            elif self._index is None:
                self._index = LiveIndex(Snapshot.open(folder), self.device)
            else:
                self._index.swap(Snapshot.open(folder))
