"""realm.load: a model and documents, ready to be asked."""

import logging
import re
import shutil
import tempfile
import weakref
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from realm.answering import Answerer
from realm.cache import cache_folder
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import SOURCES
from realm.corpus.folder import list_files
from realm.device import AUTO, choose_device
from realm.errors import (
    ArtifactError,
    ConfigError,
    DamagedError,
    LockedError,
    OtherFormatError,
    UnreadableError,
)
from realm.explaining import Explainer
from realm.fine_tuned import FineTuned
from realm.library.face import ExplainerOver, Realm
from realm.library.head import HEAD
from realm.library.indexing import Indexer
from realm.library.library import PATIENCE_SECONDS, Library
from realm.library.watched_folder import WatchedFolder
from realm.mini import NAME, default_model
from realm.records import Progress, Skipped
from realm.retrieval.batch import Lengths
from realm.storage import MANIFEST, REQUEST, fingerprint_of, locked, read_json

_log = logging.getLogger(__name__)
MAX_READINGS = 5
"""Of a folder with a file that changes all the time, as a log does."""


def load(
    model: str | Path = NAME,
    *,
    docs: str | Path | None = None,
    library: str | Path | None = None,
    passages: str | Path | None = None,
    encoder: str | Path | None = None,
    device: str = AUTO,
    progress: Progress | None = None,
) -> Realm:
    """Open a model with documents to answer from.

    Args:
        model: "realm-mini", which ships; or a fine-tuned run, a checkpoint, a packed model.
        docs: a folder with .txt, .md and .jsonl files, read into a library in the user's cache,
            where only what has changed since is read and embedded again.
        library: a folder that keeps documents; made where there is none. Without `docs` and
            `library` a run answers from its own passages, and a model that has none from a
            temporary library, empty at first.
        passages: a folder from `realm split` to answer from, instead of documents; it does not
            change.
        encoder: a run of `realm pretrain` whose encoder fills blanks for `explain`.
        device: where the models run: auto, cpu, cuda, cuda:NUMBER.
        progress: called with (passages embedded, passages).

    Returns:
        What answers; close it, or use it in a `with` block.

    Raises:
        ConfigError: several of docs, library and passages; a model without a reader; a library of
            another model; an encoder with another vocabulary.
        CorpusError: there is no text in `docs`.
        ArtifactError: something is missing, damaged or cannot be written.
    """
    if sum(map(bool, (docs, library, passages))) > 1:
        raise ConfigError(
            "found several of docs, library and passages, expected one of them: a library keeps "
            "documents, docs are files that are read (a library can watch them: Realm.watch), "
            "passages what `realm split` made"
        )
    run = default_model() if str(model) == NAME else Path(model)
    tuned = _open_model(run, device)
    explainer = _explainer(tuned, encoder, device)
    has_own = not docs and not library and (tuned.run / SOURCES).is_file()
    if passages or has_own:
        answerer = Answerer.of(
            tuned,
            passages=Path(passages) if passages else None,
            kept_in=cache_folder() / NAME if str(model) == NAME else None,
            progress=progress,
        )
        return Realm(tuned, answerer=answerer, explainer=explainer)
    indexer = Indexer(tuned)
    closing = ExitStack()
    try:
        if docs:
            opened, skipped = _read_folder(Path(docs), indexer, progress)
        else:
            skipped = None
            opened = Library.create(_folder_of(library, closing), indexer)
        realm = Realm(
            tuned, library=opened, explainer=explainer, skipped=skipped, finally_do=closing
        )
    except BaseException:
        closing.close()
        raise
    weakref.finalize(realm, closing.close)  # where nobody closes it
    return realm


def _folder_of(library: str | Path | None, closing: ExitStack) -> Path:
    """Return a library's folder; without one, a temporary folder."""
    if library:
        return Path(library)
    folder = Path(tempfile.mkdtemp(prefix="realm-"))
    closing.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def kept_library(docs: Path, indexer: Indexer) -> Path:
    """Return where the library of a folder's files is kept for a model, in the user's cache."""
    where = docs.resolve()
    key = fingerprint_of({"docs": str(where), "made_with": indexer.made_with})[:16]
    name = re.sub(r"\W+", "-", where.name).strip("-")[:40]
    return cache_folder() / "libraries" / f"{name or 'root'}-{key}"


def _open_model(run: Path, device: str) -> FineTuned:
    """Return the model at a path; documents in its place are told where they go.

    Raises:
        ArtifactError: there is no model.
    """
    try:
        return FineTuned.load(run, device=device, autocast="auto")
    except ArtifactError as error:
        if not run.exists() or any((run / name).exists() for name in (MANIFEST, REQUEST)):
            raise
        kind = "library" if (run / HEAD).exists() else "docs"
        raise ArtifactError(f'{error}. Documents of yours: realm.load({kind}="{run}")') from None


def _read_folder(
    docs: Path, indexer: Indexer, progress: Progress | None
) -> tuple[Library, Skipped]:
    """Return the library of a folder's files, brought up to date, and what was left out of them."""
    list_files(docs, Skipped())
    folder = kept_library(docs, indexer)
    library = _kept(folder, indexer)
    try:
        skipped = _bring_up(WatchedFolder(library, indexer, docs), progress)
    except DamagedError:  # it can be made again
        shutil.rmtree(folder, ignore_errors=True)
        library = Library.create(folder, indexer)
        skipped = _bring_up(WatchedFolder(library, indexer, docs), progress)
    return library, skipped


def _bring_up(folder: WatchedFolder, progress: Progress | None) -> Skipped:
    """Make a library what a folder's files are; return what was left out of them.

    A file that changed while it was embedded is read again: a program that watches the folder has
    its newer text, and would not look at it again where the older one came over that.
    """
    changes = folder.sync(progress=progress)
    skipped = changes.skipped
    for _ in range(MAX_READINGS - 1):
        if not changes or not folder.has_changed():
            break
        changes = folder.sync(progress=progress)
    return skipped


def _kept(folder: Path, indexer: Indexer) -> Library:
    """Return the library of a folder in the cache, made again where a part of it is gone.

    Where it has its head, nothing is written here: no full disk takes a kept library for damaged.
    """
    try:
        return Library.create(folder, indexer)
    except (LockedError, UnreadableError):
        raise
    except OtherFormatError:
        return _made_over(folder, indexer)
    except ArtifactError:
        shutil.rmtree(folder, ignore_errors=True)
        return Library.create(folder, indexer)


def _made_over(folder: Path, indexer: Indexer) -> Library:
    """Return a new library in the place of one that another release wrote.

    The other one is set aside: it may hold documents that came from no file.
    """
    with locked(folder, wait_seconds=PATIENCE_SECONDS):
        try:
            return Library.create(folder, indexer)  # another process has just done it
        except OtherFormatError as error:
            others = (folder.with_name(f"{folder.name}.old-{number}") for number in count(1))
            aside = next(other for other in others if not other.exists())
            folder.rename(aside)
            _log.warning(
                "%s. Its folder's files are read again; what was added otherwise is in %s",
                error,
                aside,
            )
        return Library.create(folder, indexer)


def _explainer(tuned: FineTuned, encoder: str | Path | None, device: str) -> ExplainerOver | None:
    """Return what fills blanks: the encoder named, the model's own, or nothing."""
    if encoder is None:
        if tuned.model.encoder is None:
            return None
        model, settings = tuned.model, _settings(tuned.checkpoint)
    else:
        checkpoint = find_checkpoint(Path(encoder))
        model, settings = load_model(checkpoint).to(choose_device(device)), _settings(checkpoint)
        model.need_encoder()
        model.need_towers()
        if model.tokenizer.fingerprint != tuned.model.tokenizer.fingerprint:
            raise ConfigError(
                f"the encoder of {encoder} has another vocabulary than {tuned.name}; expected one "
                "pre-trained with the same tokenizer"
            )
    lengths = None
    if "query_wordpieces" in settings:
        lengths = Lengths(
            query=int(settings["query_wordpieces"]),
            passage=int(settings["passage_wordpieces"]),
            joint=int(settings["joint_wordpieces"]),
        )
    return lambda answerer: _explain_with(model, answerer, lengths)


def _explain_with(model: Model, answerer: Answerer, lengths: Lengths | None) -> Explainer:
    """Return what fills blanks from the passages that an answerer finds."""

    def propose(sentence: str, k: int) -> list[int]:
        ((rows, _),) = answerer.retriever.retrieve([sentence.replace("[MASK]", " ")], k)
        return rows

    return Explainer(model, answerer.store, answerer.snapshot, lengths=lengths, propose=propose)


def _settings(checkpoint: Path) -> dict[str, Any]:
    return dict(read_json(checkpoint / MANIFEST)["settings"])
