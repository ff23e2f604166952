"""Which documents of a library come from a folder: those go when their files go, others stay.

Beside a library's head, `folder-<16 hex digits>.json` notes it for each folder. A name belongs to
the folder that noted it first. It is noted before the library changes, so that no document is
ever left behind.
"""

import os
from collections.abc import Set
from pathlib import Path

from realm.errors import ArtifactError, DamagedError, UnreadableError
from realm.library.library import Library, Waiting
from realm.storage import fingerprint_of, read_json, write_json


class FolderNote:
    """What a library notes of one folder; any number of processes may write it."""

    def __init__(self, library: Library, folder: Path) -> None:
        self.library = library
        self.folder = folder.resolve()
        self.file = library.folder / f"folder-{fingerprint_of(str(self.folder))[:16]}.json"

    def read(self) -> set[str]:
        """Return the documents that are noted to come from here.

        Raises:
            ArtifactError: the note cannot be read.
        """
        return _noted(self.file)[1]

    def claim(self, names: Set[str], ours: Set[str], waiting: Waiting) -> set[str]:
        """Note that documents are to come from here; return the names that other folders have.

        Args:
            names: of this folder's files.
            ours: those that are noted already.
            waiting: called while another writer is waited for.

        Raises:
            ArtifactError: the note cannot be read or written.
        """
        new = names - ours
        taken = self.claimed(new)
        if new - taken:
            with self.library.alone(waiting):  # nobody else claims them meanwhile
                taken = self.claimed(new)
                self._write(self.read() | (names - taken))
        return taken

    def claimed(self, names: Set[str]) -> set[str]:
        """Return the names of documents that come from another folder's files.

        A folder that is away has those that the library has of it.

        Raises:
            ArtifactError: a note cannot be read.
        """
        claimed: set[str] = set()
        if names:
            held = self.library.current().held
            for file in self.library.folder.glob("folder-*.json"):
                folder, theirs = _noted(file) if file != self.file else (Path(), set[str]())
                both = names & theirs
                claimed |= {n for n in both if n in held or os.path.lexists(folder / n)}
        return claimed

    def forget(self, names: Set[str], waiting: Waiting) -> None:
        """Note that no document comes from these files any more.

        Raises:
            ArtifactError: the note cannot be read or written.
        """
        if names:
            with self.library.alone(waiting):
                self._write(self.read() - names)

    def _write(self, names: Set[str]) -> None:
        try:
            write_json(self.file, {"folder": str(self.folder), "documents": sorted(names)})
        except OSError as error:
            raise ArtifactError(
                f"cannot write {self.file}: {error.strerror or error}; free space or mend the "
                "permissions"
            ) from error


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
