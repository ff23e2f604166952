"""The files of a folder as documents of a library, made equal once (`sync`)."""

from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path

from realm.corpus.documents import can_be_held, read_document
from realm.corpus.folder import TextFile, find_files
from realm.corpus.reading import TAKEN, Place
from realm.errors import UnknownDocumentError, WithheldError
from realm.library.folder_note import FolderNote
from realm.library.indexing import Indexer
from realm.library.library import Library, Waiting
from realm.records import Changes, Document, Progress, Skipped

Look = tuple[int, int, int]
"""Of a file: number, time of its last change in nanoseconds, bytes."""


class WatchedFolder:
    """A folder whose files are documents of a library."""

    def __init__(self, library: Library, indexer: Indexer, folder: Path) -> None:
        self.library = library
        self.indexer = indexer
        self.folder = folder
        self._note = FolderNote(library, folder)
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

        ours = self._note.read()
        found = find_files(self.folder, skipped, not_listed=not_listed)
        names = {file.name for file in found}
        # Documents that were added otherwise, until a file takes their place
        others = (names - ours) & self.library.current().held.keys()
        taken = self._note.claim(names - others, ours, waiting) | self._note.claimed(others)
        for name in sorted(taken):
            skipped.add(TAKEN, str(Place(name, 1)))
        files = [file for file in found if file.name not in taken]
        names = {file.name for file in files} | keep
        hidden = tuple(f"{name}/" for name in not_listed)
        names |= {name for name in ours | self._read.keys() if f"{name}/".startswith(hidden)}
        for name in self._read.keys() - names:
            del self._read[name]
        brought: set[str] = set()
        unusable: set[str] = set()
        documents = self._documents(files, only, skipped, brought, unusable)
        try:
            changes = self.library.add(documents, self.indexer, progress=progress)
            # Who saw a file go meanwhile has forgotten it, and it has come into the library.
            read = {file.name for file in files} - (others - brought)
            self._note.claim(read, self._note.read(), waiting)
            gone = ours - names
            if gone:  # what came back while others were embedded may be in the library again
                gone -= {file.name for file in find_files(self.folder, Skipped())}
            doomed = (gone - self._note.claimed(gone)) | (unusable - others)
            removed = self._remove(doomed, waiting)
        except BaseException:
            self._read.clear()  # what was read may not have come into the library
            raise
        self._note.forget(gone, waiting)
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
        brought: set[str],
        unusable: set[str],
    ) -> Iterator[Document]:
        """Yield the files that are new or changed; note which are, and which are no documents.

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
                brought.add(file.name)
                yield document
            else:
                unusable.add(file.name)

    def _remove(self, names: Set[str], waiting: Waiting) -> tuple[str, ...]:
        """Remove those of these documents that are there still."""
        while there := sorted(names & self.library.current().held.keys()):
            with suppress(UnknownDocumentError):  # another program has just removed one
                return self.library.remove(there, waiting=waiting).removed
        return ()


def _look(file: TextFile) -> Look:
    found = file.path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
