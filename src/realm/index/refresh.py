"""Keep a run's snapshot fresh while its embedder learns (section 3.3).

`sync` rebuilds the index between two steps, deterministically; `off` keeps the first one for
ever. The snapshot only selects candidates; whoever trains scores them afresh.
"""

from pathlib import Path

from realm.checkpoint.checkpoints import list_checkpoints, tower_hash
from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, StaleIndexError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot, remove_old_snapshots, snapshot_folder
from realm.model.embedder import Embedder
from realm.records import Progress
from realm.storage import read_json, remove


class Refresher:
    """Owns the snapshot that a training run searches."""

    def __init__(
        self,
        run: Path,
        store: PassageStore,
        *,
        config: RefreshConfig,
        index: IndexConfig,
        progress: Progress | None = None,
    ) -> None:
        self.run = run
        self.store = store
        self.config = config
        self.index = index
        self.progress = progress
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in use.

        Raises:
            ArtifactError: `advance` or `reopen` was never called.
        """
        if self._snapshot is None:
            raise ArtifactError("no snapshot is open yet; expected one after the first step")
        return self._snapshot

    def reopen(self, step: int) -> None:
        """Use the snapshot of this step again: what a resumed run was searching."""
        snapshot = Snapshot.open(snapshot_folder(self.run, step), verify=True)
        snapshot.check_passages(self.store.fingerprint)
        self._snapshot = snapshot

    def advance(self, tower: Embedder, step: int) -> bool:
        """Refresh if it is time; return whether a new snapshot was swapped in.

        Raises:
            StaleIndexError: the snapshot is older than the run allows.
        """
        if self._snapshot is None or self._is_due(step):
            self._snapshot = self._build(tower, step)
            self._remove_old()
            return True
        if self.config.mode != "off" and self.staleness(step) > self.config.max_staleness_steps:
            raise StaleIndexError(
                index_step=self.snapshot.step,
                train_step=step,
                limit_steps=self.config.max_staleness_steps,
            )
        return False

    def staleness(self, step: int) -> int:
        """Return training step minus index step."""
        return step - self.snapshot.step

    def _is_due(self, step: int) -> bool:
        is_time = step % self.config.every_steps == 0 and step > self.snapshot.step
        return self.config.mode == "sync" and is_time

    def _build(self, tower: Embedder, step: int) -> Snapshot:
        folder = snapshot_folder(self.run, step)
        version = EmbedderVersion(model_hash=tower_hash(tower), step=step)
        if folder.exists() and not self._is_usable(folder, version):
            remove(folder)
        return build_index(
            tower,
            self.store,
            folder,
            version=version,
            config=self.index,
            progress=self.progress,
        )

    def _is_usable(self, folder: Path, version: EmbedderVersion) -> bool:
        """Return whether a snapshot that a killed run left behind is what would be built."""
        try:
            found = Snapshot.open(folder, verify=True)
            found.check_passages(self.store.fingerprint)
        except ArtifactError:
            return False
        return found.model_hash == version.model_hash

    def _remove_old(self) -> None:
        """Keep the snapshot in use and those that checkpoints would resume with."""
        needed = {self.snapshot.step}
        for checkpoint in list_checkpoints(self.run):
            values = read_json(checkpoint / "training.json")
            needed.add(int(values.get("snapshot_step", -1)))
        remove_old_snapshots(self.run, keep=needed)
