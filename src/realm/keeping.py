"""What is made of somebody's files, kept until the files, the model or the settings change.

What passages and their index are made from (contents of the files, model, settings) names the
folders in which they are kept:

CACHE/folders/NAME-<16 hex digits of path, model, settings>/
    passages-<16 hex digits of the files>/     published, with places.arrow beside the passages
    index-<the same>/                          published, by as many processes as ask meanwhile
    bm25/                                      where the model's retriever looks at words, too

Once both are there, those of earlier contents are removed.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from realm.cache import cache_folder
from realm.checkpoint.checkpoints import find_checkpoint
from realm.checkpoint.defaults import stage_defaults
from realm.checkpoint.parts import Model
from realm.config import IndexConfig, SplitConfig
from realm.corpus.folder import TextFile, hash_files, list_files, split_files
from realm.corpus.places import Places
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.earlier import EarlierVectors
from realm.index.snapshot import Snapshot
from realm.mini import default_model
from realm.records import Progress, Skipped
from realm.retrieval.bm25 import open_lexical
from realm.storage import (
    MANIFEST,
    fingerprint_of,
    is_being_filled,
    is_locked,
    locked,
    mend,
    read_json,
    remove,
)
from realm.tokenizer import WordpieceTokenizer

PATIENCE_SECONDS = 24 * 3600.0
"""How long to wait for another process that reads the same files; its lock ends with it."""
LEXICAL = "bm25"
SHARD_ROWS = 2_048
"""Passages whose embeddings a kill can cost at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFolder:
    """Files as they are now, and where what is made from them is kept."""

    docs: Path
    files: list[TextFile]
    hashes: dict[str, str]
    model: Path
    """A checkpoint."""
    room: Path
    """For everything kept of this folder under this model."""
    split: SplitConfig
    index: IndexConfig
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def passages_folder(self) -> Path:
        """Where its passages are kept."""
        return self.room / f"passages-{fingerprint_of(self.hashes)[:16]}"

    @property
    def index_folder(self) -> Path:
        """Where their index is kept."""
        return self.room / f"index-{fingerprint_of(self.hashes)[:16]}"

    @property
    def model_fingerprint(self) -> str:
        """Hash of the checkpoint's content."""
        return str(read_json(self.model / MANIFEST)["fingerprint"])


def look_at(docs: Path, *, model: Path | None, cache: Path | None) -> AskedFolder:
    """Return the files of a folder, and where what is made from them is kept.

    Raises:
        CorpusError: there is no text in `docs`.
        ConfigError: no model is named, and none ships.
        ArtifactError: no model there.
    """
    checkpoint = find_checkpoint(model or default_model())
    skipped = Skipped()
    files = list_files(docs, skipped)
    split = cutting_of(checkpoint)
    index = IndexConfig(shard_rows=SHARD_ROWS, passage_wordpieces=split.max_wordpieces)
    where = docs.resolve()
    key = fingerprint_of(
        {
            "docs": str(where),
            "model": read_json(checkpoint / MANIFEST)["fingerprint"],
            "split": split.as_dict(),
            "index": index.as_dict(),
        }
    )
    name = re.sub(r"\W+", "-", where.name).strip("-")[:40]
    return AskedFolder(
        docs=docs,
        files=files,
        hashes=hash_files(files),
        model=checkpoint,
        room=(cache or cache_folder()) / "folders" / f"{name or 'root'}-{key[:16]}",
        split=split,
        index=index,
        skipped=skipped,
    )


def cutting_of(checkpoint: Path) -> SplitConfig:
    """Return how a model wants somebody's own files cut: no title is a reason to leave one out.

    Raises:
        ArtifactError: no model there.
    """
    return SplitConfig.model_validate({"drop_titles": (), **stage_defaults(checkpoint, "split")})


def kept_passages(folder: Path) -> PassageStore | None:
    """Return passages that are there, whole, with their places."""
    try:
        store = PassageStore.open(folder)
        Places.open(folder, num_passages=len(store))
    except ArtifactError:
        return None
    return store


def make_passages(asked: AskedFolder, progress: Progress | None) -> PassageStore:
    """Return the passages of the files as they are now; one process makes them, others wait."""
    folder = asked.passages_folder
    with locked(folder, wait_seconds=PATIENCE_SECONDS):
        if store := kept_passages(folder):  # another process has just made them
            return store
        _remove_damaged(folder)
        report = split_files(
            asked.docs,
            asked.files,
            folder,
            hashes=asked.hashes,
            config=asked.split,
            tokenizer=WordpieceTokenizer.load(asked.model),
            skipped=asked.skipped,
            progress=progress,
        )
    if progress:
        progress(report.num_articles, report.num_articles)
    return PassageStore.open(folder)


def kept_index(
    asked: AskedFolder, model: Model, store: PassageStore, progress: Progress | None
) -> Snapshot:
    """Return the index of the passages; processes that ask meanwhile make it together."""
    folder = asked.index_folder
    with suppress(ArtifactError):
        snapshot = Snapshot.open(folder)
        if snapshot.passages_fingerprint == store.fingerprint:
            return snapshot
    _remove_damaged(folder)
    return build_index(
        model.need_towers().passage,
        store,
        folder,
        version=EmbedderVersion(model_hash=asked.model_fingerprint),
        config=asked.index,
        known=_known_vectors(asked, store),
        progress=progress,
    )


def make_lexical(asked: AskedFolder, store: PassageStore) -> None:
    """Index the passages' words, where the model's retriever looks at them and nobody has yet."""
    settings = read_json(asked.model / MANIFEST)["settings"]
    if settings.get("retriever") != "hybrid":
        return
    if store.fingerprint not in _lexical_indexes(asked).values():
        with locked(asked.room / LEXICAL, wait_seconds=PATIENCE_SECONDS):
            open_lexical(asked.room, store)


def remove_earlier(asked: AskedFolder, store: PassageStore) -> None:
    """Remove what was kept of earlier contents, also half-made, unless somebody is at it."""
    current = {asked.passages_folder.name, asked.index_folder.name, LEXICAL}
    for folder, passages in _lexical_indexes(asked).items():
        if passages != store.fingerprint:
            _remove_damaged(folder)
    for folder in asked.room.iterdir():
        name = folder.name.removeprefix(".").removesuffix(".partial")
        if name in current or not folder.is_dir() or _is_in_use(folder.with_name(name), folder):
            continue
        with suppress(ArtifactError, OSError):  # another process removes it
            if folder.name == name:
                remove(folder)
            else:
                shutil.rmtree(folder)


def _known_vectors(asked: AskedFolder, store: PassageStore) -> EarlierVectors | None:
    """Return the vectors that the same model has made of earlier contents, if they are kept."""
    for folder in asked.room.glob("index-*"):
        passages = folder.with_name(folder.name.replace("index", "passages", 1))
        with suppress(ArtifactError):  # half removed, or not finished: another one, or none
            snapshot, before = Snapshot.open(folder), PassageStore.open(passages)
            if snapshot.passages_fingerprint == before.fingerprint:
                return EarlierVectors(store, before, snapshot)
    return None


def _lexical_indexes(asked: AskedFolder) -> dict[Path, str]:
    """Return which passages each finished index of words is of."""
    found: dict[Path, str] = {}
    for folder in (asked.room / LEXICAL).glob("bm25-*"):
        with suppress(ArtifactError):
            found[folder] = str(read_json(folder / MANIFEST)["inputs"]["passages"])
    return found


def _remove_damaged(folder: Path) -> None:
    """Remove a kept folder that cannot be opened: it can be made again."""
    mend(folder)
    if folder.exists():
        with suppress(ArtifactError):  # another process has removed it
            remove(folder)


def _is_in_use(folder: Path, scratch: Path) -> bool:
    """Return whether a process writes a folder, or a part of it."""
    return is_locked(folder) or is_being_filled(scratch)
