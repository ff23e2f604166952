"""Is what a folder holds what its manifest says? Which bytes are compared when.

JSON files carry a seal and are compared whenever they are read. Every other file has a checksum
in its folder's manifest, compared when the folder is opened: of folders up to `CHECKED_BYTES`
always (a second for each 1.5 GB), of larger ones when the caller asks for it, as training does
for the weights and the index that it starts from, and by `realm verify`. A file that was cut is
noticed at any size.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from realm.errors import ArtifactError, DamagedError
from realm.storage.files import fingerprint, is_plain_name, unreadable

CHECKED_BYTES = 1 << 30
"""A folder up to this size is read through when it is opened."""


def check_files(
    folder: Path, manifest: Mapping[str, Any], *, names: Iterable[str] | None = None, remedy: str
) -> None:
    """Compare the files of an opened folder with the checksums in its manifest.

    Args:
        folder: as published.
        manifest: its manifest. One that an older release wrote may hold no checksums.
        names: of the files; None: all, unless they are larger than `CHECKED_BYTES` together.
        remedy: what to do about a damaged one.

    Raises:
        DamagedError: a file is missing or damaged; the message has its name.
        UnreadableError: one cannot be read.
    """
    known = checksums(manifest)
    wanted = list(known if names is None else names)
    for name in wanted:
        if not all(map(is_plain_name, name.split("/"))):
            raise DamagedError(
                f"{folder} names the file {name[:80]!a}, expected one that lies in it; the folder "
                "is damaged, or made to lead elsewhere"
            )
    sizes = [_size(folder, name, remedy) for name in wanted]
    if names is None and sum(sizes) > CHECKED_BYTES:
        return
    for name in wanted:
        if name in known:
            check_file(folder / name, known[name], remedy=remedy)


def check_file(path: Path, checksum: str, *, remedy: str) -> None:
    """Compare a file with its checksum.

    Args:
        path: of the file.
        checksum: its sha256, as `fingerprint` returns it.
        remedy: what to do about a damaged one.

    Raises:
        DamagedError: it is not what was written.
        UnreadableError: it cannot be read.
    """
    try:
        found = fingerprint(path)
    except OSError as error:
        raise unreadable(path, error) from None  # no remedy for damage: the file may be whole
    if found != checksum:
        raise DamagedError(f"{path} is damaged: its checksum is not the manifest's; {remedy}")


def checksums(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksum of each file of a folder, by the file's name."""
    content: Any = manifest.get("content")
    known: Any = manifest.get("files") or (isinstance(content, dict) and content.get("files"))
    return {str(n): str(v) for n, v in known.items()} if isinstance(known, dict) else {}


def _size(folder: Path, name: str, remedy: str) -> int:
    path = folder / name
    try:
        return path.stat().st_size
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise unreadable(path, error) from None
        # Where all of the folder has gone, another process has just removed it: no damage
        if folder.exists():
            raise DamagedError(f"{path} is missing; {remedy}") from None
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}; {remedy}") from None
