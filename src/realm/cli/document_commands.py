"""realm docs: add, remove, list, watch, reindex the documents of a library."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import options
from realm.errors import ConfigError, CorpusError, UnknownDocumentError, WithheldError
from realm.readable import counted
from realm.records import Changes, Document, Skipped

if TYPE_CHECKING:
    from realm.corpus.folder import TextFile
    from realm.library.indexing import Indexer

PANEL = "Answers"
LibraryFolder = Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library's folder.")]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        callback=options.or_realm_mini,
        help="Fine-tuned run, or a packed one, that the library is for; without: realm-mini.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb with its own verbs."""
    docs = typer.Typer(
        help="Keep documents in a library: a folder that answers from them as they change.",
    )
    for name, verb in (
        ("add", add),
        ("remove", remove),
        ("list", list_),
        ("watch", watch),
        ("reindex", reindex),
    ):
        docs.command(name)(verb)
    app.add_typer(docs, name="docs", rich_help_panel=PANEL)


def add(
    library: LibraryFolder,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help=".txt, .md and .jsonl files, or folders with some at any depth. A document's id "
            "is its file's name, in a folder its path there.",
        ),
    ],
    model: Model = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Add documents to a library, or replace those of the same ids; made where there is none.

    Only what the library does not know yet is embedded. What is told to be added is on disk.

    Example: realm docs add notes.library notes/ diary.md
    """
    from realm.cli import display
    from realm.library.library import Library

    skipped = Skipped()
    found = _find(files, skipped)
    indexer = _indexer(model, device)
    opened = Library.create(library, indexer)
    with display.progress("embedding", "passages", quiet=quiet) as advance:
        changes = opened.add(_read(found, skipped), indexer, progress=advance)
    skipped.join(changes.skipped)
    _show(changes, skipped, as_json=as_json)
    if not quiet and not as_json:
        display.show_next(f'realm ask "..." --library {shlex.quote(str(library))}')


def remove(
    library: LibraryFolder,
    ids: Annotated[
        list[str], typer.Argument(metavar="ID", help="Ids, as realm docs list tells them.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Remove documents from a library: all of them, or none if an id is unknown.

    No answer that begins afterwards comes from them, in whichever process.

    Example: realm docs remove notes.library diary.md
    """
    from realm.library.library import Library

    try:
        changes = Library(library).remove(ids)
    except UnknownDocumentError as error:
        command = f"realm docs list {shlex.quote(str(library))}"
        raise UnknownDocumentError(f"{error} (all of them: {command})") from None
    _show(changes, Skipped(), as_json=as_json)


def list_(library: LibraryFolder, as_json: options.AsJson = False) -> None:
    """List the documents of a library.

    Example: realm docs list notes.library --json
    """
    from realm.cli import display
    from realm.library.library import Library

    edition = Library(library).current()
    infos = edition.infos()
    if as_json:
        told = {"documents": [asdict(info) for info in infos], "num_passages": edition.num_passages}
        options.print_json(told)
        return
    rows = [
        (info.id, info.title, f"{info.num_characters:,}", f"{info.num_passages:,}", info.added_at)
        for info in infos
    ]
    if rows:
        columns = ("id", "title", "characters", "passages", "added")
        display.out.print(display.table("", columns, rows))
    num_passages = counted(edition.num_passages, "passage")
    display.err.print(f"{counted(len(infos), 'document')}, {num_passages}")


def watch(
    library: LibraryFolder,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With .txt, .md and .jsonl files.")
    ],
    model: Model = None,
    every: Annotated[float, typer.Option("--every", min=0.05, help="Seconds between looks.")] = 1.0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Keep documents of a library as the files in a folder are, until Ctrl-C.

    Files that come, change or go are documents that come, change or go; documents that were added
    otherwise stay. A file is read once it has not changed between two looks.

    Example: realm docs watch notes.library notes/
    """
    from realm.cli import display
    from realm.library.library import Library
    from realm.library.watching import FolderWatcher

    indexer = _indexer(model, device)
    watcher = FolderWatcher(
        Library.create(library, indexer),
        indexer,
        folder,
        every_seconds=every,
        on_change=lambda changes: _show(changes, changes.skipped, as_json=False),
        on_error=lambda error: display.err.print(f"not now: {error}", markup=False),
    )
    with display.progress("embedding", "passages", quiet=quiet) as advance:
        changes = watcher.start(progress=advance)
    if not changes:  # otherwise it is shown with them
        display.show_skipped(changes.skipped)
    if not quiet:
        display.err.print(f"following {folder} (stop: Ctrl-C)", style="dim", markup=False)
    try:
        watcher.wait()
    finally:
        watcher.close()


def reindex(
    library: LibraryFolder,
    model: Model = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Cut and embed all documents of a library again, for another model.

    The library answers as before until all is done.

    Example: realm docs reindex notes.library --model runs/qa
    """
    from realm.cli import display
    from realm.library.library import Library

    opened = Library(library)
    with display.progress("embedding", "passages", quiet=quiet) as advance:
        changes = opened.reindex(_indexer(model, device), progress=advance)
    _show(changes, changes.skipped, as_json=as_json)


def _indexer(model: Path | None, device: str) -> "Indexer":
    from realm.fine_tuned import FineTuned
    from realm.library.indexing import Indexer
    from realm.mini import default_model

    return Indexer(FineTuned.load(model or default_model(), device=device))


def _find(paths: list[Path], skipped: Skipped) -> "list[TextFile]":
    """Return the files named, and those in folders named, each under an id of its own."""
    from realm.corpus.folder import list_files

    found = [file for path in paths for file in list_files(path, skipped)]
    name, count = Counter(file.name for file in found).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            f"found {count} files that would be the document {name!r}; expected different ids: "
            "name the folder that holds them all, so that their ids are their paths in it"
        )
    return found


def _read(files: "list[TextFile]", skipped: Skipped) -> Iterator[Document]:
    from realm.corpus.documents import can_be_held, read_document

    read_any = False
    for file in files:
        try:
            document = read_document(file, skipped)
        except WithheldError:
            continue
        if document is not None and can_be_held(document, skipped):
            read_any = True
            yield document
    if not read_any:
        told = ", ".join(f"{count:,} {reason}" for reason, count in skipped.counts.items())
        raise CorpusError(f"found no file that can be read ({told}); expected text in UTF-8")


def _show(changes: Changes, skipped: Skipped, *, as_json: bool) -> None:
    from realm.cli import display

    if as_json:
        told = changes.as_dict() | {"skipped": dict(skipped.counts)}
        options.print_json(told)
        return
    display.show_skipped(skipped)
    parts = [
        f"{len(ids):,} {name}"
        for name, ids in (
            ("added", changes.added),
            ("replaced", changes.replaced),
            ("unchanged", changes.unchanged),
            ("removed", changes.removed),
        )
        if ids
    ]
    passages = counted(changes.num_embedded, "passage")
    embedded = f" ({passages} embedded)" if changes.num_embedded else ""
    display.out.print(f"{', '.join(parts) or 'nothing to do'}{embedded}")
