"""A folder followed by a library, in a thread that looks at its files again and again."""

import threading
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from realm.errors import RealmError
from realm.library.indexing import Indexer
from realm.library.library import Library
from realm.library.watched_folder import Look, WatchedFolder
from realm.records import Changes, Progress
from realm.storage import unreadable

OnChange = Callable[[Changes], None]
OnError = Callable[[RealmError], None]


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
