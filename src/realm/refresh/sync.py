"""Refresh between two steps: deterministic, for tests and tiny runs; or never (section 3.3).

The snapshot only selects candidates; whoever trains scores them afresh.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.device import CPU
from realm.errors import ArtifactError, StaleIndexError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.live import LiveIndex
from realm.index.opening import known_from
from realm.index.snapshot import Snapshot, remove_old_snapshots, snapshot_folder
from realm.model.embedder import Embedder
from realm.ranks import ALONE, Ranks
from realm.records import Progress
from realm.refresh.drift import Drift
from realm.refresh.housekeeping import remove_unusable, steps_to_resume_with


class SyncRefresher:
    """Owns the index that a training run searches, and builds it itself; ranks share the work."""

    def __init__(
        self,
        run: Path,
        store: PassageStore,
        *,
        config: RefreshConfig,
        index: IndexConfig,
        start: Snapshot | None = None,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
        device: torch.device = CPU,
    ) -> None:
        self.run = run
        self.store = store
        self.config = config
        self.index_config = index
        self.start = start
        self.progress = progress
        self.ranks = ranks
        self.device = device
        self.drift = Drift()
        self._index: LiveIndex | None = None

    @property
    def index(self) -> LiveIndex:
        """The index in use.

        Raises:
            ArtifactError: `advance` or `restore` was never called.
        """
        if self._index is None:
            raise ArtifactError("no snapshot is open yet; expected one after the first step")
        return self._index

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in use.

        Raises:
            ArtifactError: see `index`.
        """
        return self.index.snapshot

    def advance(self, tower: Embedder, step: int) -> bool:
        """Refresh if it is time; return whether a new snapshot was swapped in.

        Raises:
            StaleIndexError: the snapshot is older than the run allows.
        """
        if self._index is None or self._is_due(step):
            self._index = LiveIndex(self._build(tower, step), self.device)
            self.drift.restart()
            self.ranks.from_first(self._remove_old)
            return True
        if self.config.mode != "off" and self.staleness(step) > self.config.max_staleness_steps:
            raise StaleIndexError(
                index_step=self.snapshot.step,
                train_step=step,
                limit_steps=self.config.max_staleness_steps,
            )
        return False

    def staleness(self, step: int) -> int:
        """Return training step minus step of the index's oldest row."""
        return step - self.index.oldest_step()

    def count(self, rows: Int[Tensor, " seen"], drift: Float[Tensor, " seen"]) -> None:
        """Nothing follows from the demand: the whole index is built at once."""

    def measures(self, step: int) -> dict[str, float]:
        """Return the state of the index before a step."""
        return {
            "index/refreshed": float(self.snapshot.step == step),
            "index/staleness_steps": float(self.staleness(step)),
        }

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the snapshot, and rows that were written into it."""
        values: dict[str, Any] = {"snapshot_step": self.snapshot.step, "drift": self.drift.state()}
        rows, vectors, steps = self.index.replaced()
        if len(rows):
            values |= {"index.rows": rows, "index.vectors": vectors, "index.steps": steps}
        return values

    def restore(self, values: Mapping[str, Any], step: int) -> None:  # noqa: ARG002
        """Search what the run was searching when it was saved.

        Raises:
            ArtifactError: the snapshot is gone, damaged or of other passages.
        """
        self.reopen(int(values["snapshot_step"]))
        if "drift" in values:
            self.drift.restore(values["drift"])
        if "index.rows" in values:
            self.index.write(values["index.rows"], values["index.vectors"], values["index.steps"])

    def reopen(self, step: int) -> None:
        """Use the snapshot of this step again.

        Raises:
            ArtifactError: it is gone, damaged or of other passages.
        """
        snapshot = Snapshot.open(snapshot_folder(self.run, step), verify=True)
        snapshot.check_passages(self.store.fingerprint)
        self._index = LiveIndex(snapshot, self.device)

    def close(self) -> None:
        """Nothing runs beside the trainer."""

    def _is_due(self, step: int) -> bool:
        if self.config.mode != "sync" or step <= self.snapshot.step:
            return False
        if self.config.drift_bound is not None:
            # Also in time for the bound on staleness, however little the embedder drifts.
            too_old = self.staleness(step) >= self.config.max_staleness_steps
            return too_old or self.drift.fall > self.config.drift_bound
        return step % self.config.every_steps == 0

    def _build(self, tower: Embedder, step: int) -> Snapshot:
        return build_together(
            self.run,
            tower,
            self.store,
            step,
            config=self.index_config,
            start=self.start,
            progress=self.progress,
            ranks=self.ranks,
        )

    def _remove_old(self) -> None:
        """Keep the snapshot in use and those that checkpoints would resume with."""
        remove_old_snapshots(self.run, keep={self.snapshot.step, *steps_to_resume_with(self.run)})


def build_together(
    run: Path,
    tower: Embedder,
    store: PassageStore,
    step: int,
    *,
    config: IndexConfig,
    start: Snapshot | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Snapshot:
    """Return a run's snapshot of one step, whose shards the ranks share.

    Args:
        run: the run's folder; what a killed run left in the snapshot's place goes, unless it is it.
        tower: Embed_doc.
        store: the passages.
        step: of the tower's parameters.
        config: how passages are embedded.
        start: a snapshot whose vectors are taken over where it is of the same embedder.
        progress: called as passages are embedded.
        ranks: who call this together.
    """
    folder = snapshot_folder(run, step)
    version = EmbedderVersion(model_hash=tower_hash(tower), step=step)
    ranks.from_first(partial(remove_unusable, folder, version, store.fingerprint))
    return build_index(
        tower,
        store,
        folder,
        version=version,
        config=config,
        share=(ranks.rank, ranks.world),
        known=known_from(start, version, store, config),
        progress=progress,
    )
