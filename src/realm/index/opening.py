"""Find the snapshot that a run answers with: its own, another run's, or a new one."""

import shutil
from pathlib import Path

import torch

from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.sources import run_of
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.device import device_of
from realm.errors import ArtifactError, DamagedError, UnreadableError
from realm.index.builder import EmbedderVersion, KnownVectors, build_index
from realm.index.snapshot import Snapshot, snapshot_folder
from realm.model.embedder import Embedder
from realm.ranks import ALONE, Ranks
from realm.records import Progress
from realm.storage import (
    EXTRA,
    MANIFEST,
    Request,
    children,
    open_folder,
    publish,
    remove,
    write_json,
)

KEPT_SHARD_ROWS = 4_096
"""Rows per shard of an index that stands still: a killed build loses minutes of a CPU at most, and
ranks share the shards."""
KEPT_SHARDS = 256
"""Beyond that many, shards are larger."""
GPU_BATCH_TOKENS = 65_536
"""Wordpieces of other passages in a forward pass on a GPU: to start many small ones takes longer
than to run them."""


def open_snapshot(
    run: Path,
    model: Model,
    store: PassageStore,
    *,
    kept_in: Path | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Return the run's snapshot of these passages; other passages are embedded once and kept.

    Args:
        run: what the model was loaded from.
        model: with its towers.
        store: the passages.
        kept_in: folder for snapshots of other passages, where it is not the run's.
        progress: called while they are embedded.
    """
    tower = model.need_towers().passage
    if (snapshot := find_snapshot(kept_in or run, tower, store)) is not None:
        return snapshot
    return build_index(
        tower,
        store,
        _kept(kept_in or run, store),
        version=EmbedderVersion(model_hash=tower_hash(tower)),
        config=_kept_config(tower, len(store)),
        rebuild=True,  # kept ones that fit were found above
        progress=progress,
    )


def standing_snapshot(
    out: Path,
    start: Path,
    tower: Embedder,
    store: PassageStore,
    config: IndexConfig,
    *,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Snapshot:
    """Return the snapshot that a run trains with: its own, a copy of its start's, or a new one.

    Ranks share the work on a new one.

    Args:
        out: the run.
        start: run or checkpoint that it starts from.
        tower: Embed_doc, which stays as it is.
        store: the passages.
        config: of a new one.
        progress: called while a new one is built.
        ranks: who call this together.
    """
    with ranks.first_goes_first():  # the others find what it adopted
        if (own := find_snapshot(out, tower, store)) is not None:
            return own
        if (found := find_snapshot(run_of(start), tower, store)) is not None:
            return adopt_snapshot(found, out)
    return build_index(
        tower,
        store,
        snapshot_folder(out, 0),
        version=EmbedderVersion(model_hash=tower_hash(tower)),
        config=config.model_copy(update={"shard_rows": _kept_rows(len(store))}),
        share=(ranks.rank, ranks.world),
        progress=progress,
    )


def find_snapshot(run: Path, tower: Embedder, store: PassageStore) -> Snapshot | None:
    """Return a snapshot that a run keeps of these passages under this embedder, or None.

    Those of other passages or of another embedder are not read through: each may have gigabytes.

    Raises:
        DamagedError: the one that the run keeps is damaged, or a manifest.
        UnreadableError: one cannot be read.
    """
    wanted = tower_hash(tower)
    kept = [folder for folder in children(run / "index") if folder.name.startswith("step-")]
    for folder in [*kept, _kept(run, store)]:
        try:
            if _made_of(folder) != (store.fingerprint, wanted):
                continue
            snapshot = Snapshot.open(folder)
        except (DamagedError, UnreadableError):
            raise  # to build it anew takes hours perhaps: whoever runs this decides
        except ArtifactError:
            continue  # absent or unfinished: another one, or a new one, is used
        if snapshot.is_of_one_step:
            return snapshot
    return None


def _made_of(folder: Path) -> tuple[object, object]:
    """Return the fingerprints of a snapshot's passages and of its embedder.

    Raises:
        ArtifactError: absent, unfinished, or its manifest is damaged.
    """
    manifest = open_folder(folder, "index")
    return manifest["inputs"].get("passages"), manifest["content"].get("model_hash")


def known_from(
    snapshot: Snapshot | None, version: EmbedderVersion, store: PassageStore, config: IndexConfig
) -> KnownVectors | None:
    """Return what gives a snapshot's vectors to a build, None if it would make others."""
    if (
        snapshot is None
        or snapshot.model_hash != version.model_hash
        or snapshot.passages_fingerprint != store.fingerprint
        or not snapshot.is_of_one_step
    ):
        return None
    made = open_folder(snapshot.folder, "index")["settings"]
    if any(made.get(n) != getattr(config, n) for n in ("passage_wordpieces", "autocast")):
        return None
    return lambda rows: (list(range(len(rows))), snapshot.exact[torch.tensor(rows)])


def adopt_snapshot(snapshot: Snapshot, run: Path) -> Snapshot:
    """Copy a snapshot into another run, so that the run answers by itself; open the copy.

    Every byte is compared first, however large it is: what the copy's manifest says of it is made
    of the copy, and would call damage whole.

    Raises:
        DamagedError: a file of the snapshot is damaged.
        ArtifactError: the copy cannot be written.
    """
    Snapshot.open(snapshot.folder, verify=True)
    folder = snapshot_folder(run, snapshot.step)
    if folder.exists():
        remove(folder)  # one that fits was found before
    found = open_folder(snapshot.folder, "index")
    request = Request(kind="index", settings=found["settings"], inputs=found["inputs"])
    with publish(folder, request) as scratch:
        for file in snapshot.folder.iterdir():
            if file.name != MANIFEST:
                shutil.copyfile(file, scratch / file.name)
        write_json(scratch / EXTRA, found["content"])
    return Snapshot.open(folder)


def _kept_config(tower: Embedder, num_passages: int) -> IndexConfig:
    """Return how other passages are embedded, where the tower is."""
    config = IndexConfig(shard_rows=_kept_rows(num_passages))
    if device_of(tower).type == "cpu":
        return config
    return config.model_copy(update={"batch_tokens": GPU_BATCH_TOKENS})


def _kept_rows(num_passages: int) -> int:
    return max(KEPT_SHARD_ROWS, num_passages // KEPT_SHARDS)


def _kept(run: Path, store: PassageStore) -> Path:
    return run / "other-passages" / store.fingerprint[:16]
