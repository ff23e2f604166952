"""Files in a folder -> documents in a library, once or whenever the files change.

Beside a library's head, `folder-<16 hex digits>.json` notes which documents came from a folder:
those go when their files go, others stay. It is written before the library changes, so that no
document is ever left behind. A name belongs to the folder that noted it first.
"""

import os
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from realm.corpus.documents import can_be_held, read_document
from realm.corpus.folder import TextFile, find_files
from realm.corpus.reading import TAKEN, Place
from realm.errors import (
    ArtifactError,
    DamagedError,
    RealmError,
    UnreadableError,
    WithheldError,
)
from realm.library.indexing import Indexer
from realm.library.library import Library, Waiting
from realm.records import Changes, Document, Progress, Skipped
from realm.storage import fingerprint_of, read_json, unreadable, write_json

Look = tuple[int, int, int]
"""Of a file: number, time of its last change in nanoseconds, bytes."""
OnChange = Callable[[Changes], None]
OnError = Callable[[RealmError], None]


class WatchedFolder:
    """A folder whose files are documents of a library."""

    def __init__(self, library: Library, indexer: Indexer, folder: Path) -> None:
        self.library = library
        self.indexer = indexer
        self.folder = folder
        self._resolved = folder.resolve()
        self._note = library.folder / f"folder-{fingerprint_of(str(self._resolved))[:16]}.json"
        self._read: dict[str, Look] = {}
        """How each file looked when it was last read."""
        self._is_behind = False
        """The last `sync` did not come to its end."""

    def sync(
        self,
        *,
        only: dict[str, Look] | None = None,
        keep: Set[str] = frozenset(),
        progress: Progress | None = None,
    ) -> Changes:
        """Make the library's documents of this folder what its files are.

        Args:
            only: read only these files, as they were seen; None: all.
            keep: documents that stay though their files are not there.
            progress: see `Library.add`.

        Raises:
            CorpusError: there is no such folder.
            WithheldError: it cannot be listed.
            ArtifactError: the library cannot be written.
        """
        self._is_behind = True
        skipped = Skipped()
        not_listed: list[str] = []

        def waiting() -> None:
            if progress:
                progress(0, 0)

        ours = _noted(self._note)[1]
        found = find_files(self.folder, skipped, not_listed=not_listed)
        taken = self._claim({file.name for file in found}, ours, waiting)
        for name in sorted(taken):
            skipped.add(TAKEN, str(Place(name, 1)))
        files = [file for file in found if file.name not in taken]
        names = {file.name for file in files} | keep
        hidden = tuple(f"{name}/" for name in not_listed)
        names |= {name for name in ours | self._read.keys() if f"{name}/".startswith(hidden)}
        for name in self._read.keys() - names:
            del self._read[name]
        unusable: set[str] = set()
        documents = self._documents(files, only, skipped, unusable)
        try:
            changes = self.library.add(documents, self.indexer, progress=progress)
            # Who saw a file go meanwhile has forgotten it, and it has come into the library.
            self._claim({file.name for file in files}, _noted(self._note)[1], waiting)
            gone = ours - names
            if gone:  # what came back while others were embedded may be in the library again
                gone -= {file.name for file in find_files(self.folder, Skipped())}
            held = self.library.current().held
            doomed = (gone - self._claimed(gone)) | unusable
            removed = self._remove(sorted(name for name in doomed if name in held), waiting)
        except BaseException:
            self._read.clear()  # what was read may not have come into the library
            raise
        self._forget(gone, waiting)
        self._is_behind = False
        skipped.join(changes.skipped)
        return Changes(
            added=changes.added,
            replaced=changes.replaced,
            unchanged=changes.unchanged,
            removed=removed,
            num_embedded=changes.num_embedded,
            skipped=skipped,
        )

    def look(self) -> dict[str, Look]:
        """Return how each file looks.

        Raises:
            CorpusError: there is no such folder.
        """
        looks: dict[str, Look] = {}
        for file in find_files(self.folder, Skipped()):
            with suppress(OSError):  # gone since
                looks[file.name] = _look(file)
        return looks

    @property
    def names_read(self) -> Set[str]:
        """The files that were there when they were last read."""
        return self._read.keys()

    def has_changed(self) -> bool:
        """Return whether a file has changed, or gone, since it was read.

        Raises:
            CorpusError: there is no such folder.
        """
        looks = self.look()
        return any(looks.get(name) != look for name, look in self._read.items())

    def is_as_read(self, looks: dict[str, Look]) -> bool:
        """Return whether nothing has changed since `sync`."""
        return not self._is_behind and looks == self._read

    def _documents(
        self,
        files: list[TextFile],
        only: dict[str, Look] | None,
        skipped: Skipped,
        unusable: set[str],
    ) -> Iterator[Document]:
        """Yield the files that are new or changed.

        Those that change while they are read, and those that the system withholds, wait: they are
        tried again at the next look, and what the library has of them stays.
        """
        for file in files:
            try:
                before = _look(file)
                if self._read.get(file.name) == before:
                    continue
                if only is not None and only.get(file.name) != before:
                    continue  # it is being written
                document = read_document(file, skipped)
                if _look(file) != before:
                    continue
            except (OSError, WithheldError):
                continue  # also gone since it was listed
            self._read[file.name] = before
            if document is not None and can_be_held(document, skipped):
                yield document
            else:
                unusable.add(file.name)

    def _remove(self, names: list[str], waiting: Waiting) -> tuple[str, ...]:
        return self.library.remove(names, waiting=waiting).removed if names else ()

    def _claim(self, names: set[str], ours: set[str], waiting: Waiting) -> set[str]:
        """Note which documents are to come from here; return the names that others have."""
        taken = self._claimed(names - ours)
        if names - ours - taken:
            with self.library.alone(waiting):  # nobody else claims them meanwhile
                taken = self._claimed(names - ours)
                self._remember(_noted(self._note)[1] | (names - taken))
        return taken

    def _claimed(self, names: set[str]) -> set[str]:
        """Return the names of documents that come from another folder's files.

        A folder that is away has those that the library has of it.
        """
        claimed: set[str] = set()
        if names:
            held = self.library.current().held
            for note in self.library.folder.glob("folder-*.json"):
                folder, theirs = _noted(note) if note != self._note else (Path(), set[str]())
                both = names & theirs
                claimed |= {n for n in both if n in held or os.path.lexists(folder / n)}
        return claimed

    def _forget(self, names: set[str], waiting: Waiting) -> None:
        """Note that no document comes from these files any more."""
        if names:
            with self.library.alone(waiting):
                self._remember(_noted(self._note)[1] - names)

    def _remember(self, names: set[str]) -> None:
        told = {"folder": str(self._resolved), "documents": sorted(names)}
        try:
            write_json(self._note, told)
        except OSError as error:
            raise ArtifactError(
                f"cannot write {self._note}: {error.strerror or error}; free space or mend the "
                "permissions"
            ) from error


class _ClosedError(Exception):
    """Somebody has closed a watcher in the midst of a change."""


class FolderWatcher:
    """Looks at a folder again and again, in a thread of its own.

    A file is read once it has looked the same twice, so that nobody's half-written file is, and
    counts as gone once it was not there twice, so that saving a file does not remove it. What
    cannot be done now (a full disk, a folder that is away) is told and tried again.
    """

    def __init__(
        self,
        library: Library,
        indexer: Indexer,
        folder: Path,
        *,
        every_seconds: float = 1.0,
        on_change: OnChange | None = None,
        on_error: OnError | None = None,
        keeping: object = None,
    ) -> None:
        """Prepare to watch.

        Args:
            library: takes the documents.
            indexer: of the model that it was made with.
            folder: with .txt, .md and .jsonl files at any depth.
            every_seconds: how often to look.
            on_change: called with each change, in the watcher's thread.
            on_error: called with what could not be done, once in a row of the same.
            keeping: is not collected while the folder is followed.
        """
        self.folder = WatchedFolder(library, indexer, folder)
        self.every_seconds = every_seconds
        self.error: RealmError | None = None
        """What could not be done at the last look; None: all is well."""
        self._on_change, self._on_error = on_change, on_error
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(keeping,), name="realm-watch", daemon=True
        )
        self._seen: dict[str, Look] = {}
        self._missing: Set[str] = frozenset()

    def __enter__(self) -> "FolderWatcher":
        if not self._thread.is_alive():
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, *, progress: Progress | None = None) -> Changes:
        """Read the folder once, then go on watching it.

        Raises:
            CorpusError: there is no such folder.
            ArtifactError: the library cannot be written.
        """
        changes = self.folder.sync(progress=progress)
        self._tell(changes)
        self._thread.start()
        return changes

    def wait(self) -> None:
        """Return when somebody else closes this; Ctrl-C is heard meanwhile."""
        while not self._stopped.wait(1.0):
            pass

    def close(self) -> None:
        """Stop before the next passages are embedded; whole documents of what is being read stay.

        The rest is read when somebody follows the folder again. No other writer of the library is
        waited for.
        """
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def look(self, *, progress: Progress | None = None) -> Changes | None:
        """Look once; return what has changed in the library, None where nothing has to.

        Args:
            progress: see `Library.add`.

        Raises:
            CorpusError: there is no such folder.
            ArtifactError: the library cannot be written.
        """
        looks = self.folder.look()
        before, self._seen = self._seen, looks
        missing = self.folder.names_read - looks.keys()
        before_last, self._missing = self._missing, missing
        if self.folder.is_as_read(looks):
            return None
        settled = {name: look for name, look in looks.items() if before.get(name) == look}
        return self.folder.sync(only=settled, keep=missing - before_last, progress=progress)

    def _run(self, _keeping: object) -> None:
        while not self._stopped.wait(self.every_seconds):
            try:
                changes = self.look(progress=self._go_on)
                if changes is not None:
                    self._tell(changes)
                self.error = None
            except _ClosedError:
                return
            # Of every kind, as a panic in tokenizers: a thread that ends follows nothing more.
            except BaseException as caught:  # noqa: BLE001
                error = self._as_ours(caught)
                is_new = str(error) != str(self.error)
                self.error = error
                if self._on_error and is_new:
                    with suppress(Exception):  # a fault of the caller's
                        self._on_error(error)

    def _go_on(self, done: int, total: int) -> None:
        """Hear how far a change is, between its groups of passages; and that it waits to be made.

        Raises:
            _ClosedError: it is to end here.
        """
        del done, total
        if self._stopped.is_set():
            raise _ClosedError

    def _as_ours(self, error: BaseException) -> RealmError:
        if isinstance(error, RealmError):
            return error
        if isinstance(error, OSError):
            return unreadable(Path(str(error.filename or self.folder.folder)), error)
        return RealmError(f"cannot follow {self.folder.folder}: {type(error).__name__}: {error}")

    def _tell(self, changes: Changes) -> None:
        if changes and self._on_change:
            self._on_change(changes)


def _noted(note: Path) -> tuple[Path, set[str]]:
    """Return a folder, and the documents that a note says came from it; none without a note.

    Raises:
        ArtifactError: the note cannot be read: nobody could tell which documents are to go.
    """
    try:
        told = read_json(note)
        return Path(str(told["folder"])), set(map(str, told["documents"]))
    except (DamagedError, UnreadableError):
        raise
    except (ArtifactError, KeyError, TypeError):
        return Path(), set()


def _look(file: TextFile) -> Look:
    found = file.path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
