"""A new folder in the place of an old one, which is kept until the new one is whole.

.NAME.partial     a published folder while it is written
.NAME.replaced    the old folder: for the moment in which a published folder takes its place, and
                  for as long as the training run that replaces it is not finished
.NAME.removed     what is being removed

A kill can leave the last two behind; `mend` says what becomes of them.
"""

import shutil
from pathlib import Path

from realm.errors import ArtifactError
from realm.storage.files import MANIFEST, REQUEST, hidden, sync
from realm.storage.locking import locked


def scratch_folder(folder: Path) -> Path:
    """Return where `folder` is written before it is published."""
    return hidden(folder, "partial")


def replaced_folder(folder: Path) -> Path:
    """Return where the old folder is kept until the new one is whole."""
    return hidden(folder, "replaced")


def remove(folder: Path) -> None:
    """Remove a published folder; a kill half-way never leaves a part that looks finished.

    Raises:
        ArtifactError: it cannot be removed.
    """
    if not folder.exists():
        raise ArtifactError(f"cannot remove {folder}: there is nothing")
    _remove(folder, hidden(folder, "removed"), str(folder))


def set_aside(folder: Path) -> None:
    """Move a folder out of the way of the one that is to replace it.

    Raises:
        ArtifactError: it cannot be moved; it stays where it is.
    """
    _move(folder, replaced_folder(folder))


def exchange(new: Path, folder: Path) -> None:
    """Put a whole folder in the place of `folder`, and remove that.

    Raises:
        ArtifactError: the old one cannot be moved, or not be removed.
    """
    set_aside(folder)
    _move(new, folder)
    mend(folder)


def mend(folder: Path) -> bool:
    """Bring the replacement of a folder to its end, or undo it, whatever moment it stopped at.

    The new folder is in place and finished: the old one is removed. No folder is in place: the
    new one comes there if it is whole, else the old one comes back. An unfinished training run
    is in place: the old one stays aside. Without an old one there is nothing to do.

    Returns:
        Whether the new folder is in place, finished, and the old one has just been removed.

    Raises:
        ArtifactError: somebody is writing the folder, or it cannot be moved or removed.
    """
    old, doomed = replaced_folder(folder), hidden(folder, "removed")
    if not (old.exists() or doomed.exists()):
        return False
    with locked(folder):
        if not folder.exists():
            _remove(doomed, doomed, str(doomed))  # left by a removal that was killed
            if old.exists():
                new = scratch_folder(folder)
                is_whole = (new / MANIFEST).is_file() and not (new / REQUEST).exists()
                _move(new if is_whole else old, folder)
        if not (folder / MANIFEST).is_file() or not (old.exists() or doomed.exists()):
            return False
        _remove(old, doomed, f"{old}, which {folder} has replaced")
        return True


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
        sync(target.parent)
    except OSError as error:
        raise ArtifactError(
            f"cannot move {source} to {target}: {error.strerror or error}; mend the permissions "
            "and run the same command again"
        ) from error


def _remove(folder: Path, doomed: Path, told: str) -> None:
    """Remove a folder under another name, and what a killed removal left under that name."""
    try:
        if doomed.exists():
            shutil.rmtree(doomed)
        if folder.exists():
            folder.rename(doomed)
            shutil.rmtree(doomed)
    except OSError as error:
        raise ArtifactError(
            f"cannot remove {told}: {error.strerror or error}; mend the permissions"
        ) from error
