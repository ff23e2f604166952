"""The snapshot that a finished run answers with: its own, or one of other passages, made once."""

from pathlib import Path

from realm.checkpoint.checkpoints import Model, tower_hash
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot
from realm.records import Progress


def open_snapshot(
    run: Path, model: Model, store: PassageStore, *, progress: Progress | None = None
) -> Snapshot:
    """Return the run's newest snapshot of these passages; other passages are embedded once."""
    tower = model.need_towers().passage
    wanted = tower_hash(tower)
    kept = run / "other-passages" / store.fingerprint[:16]
    own = sorted((run / "index").glob("step-*"), key=lambda folder: -_step(folder))
    for folder in [*own, *([kept] if kept.exists() else [])]:
        snapshot = Snapshot.open(folder)
        fits = snapshot.passages_fingerprint == store.fingerprint
        if fits and snapshot.model_hash == wanted:
            return snapshot
    return build_index(
        tower,
        store,
        kept,
        version=EmbedderVersion(model_hash=wanted),
        config=IndexConfig(),
        rebuild=True,  # kept ones that fit were returned above
        progress=progress,
    )


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
