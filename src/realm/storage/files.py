"""Files that are whole or as they were, and fingerprints of what is in them.

A JSON file of ours ends with a seal, the checksum of everything else in it: one byte that changed
on the disk is told from a value that somebody meant.
"""

import hashlib
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from realm.errors import ArtifactError, DamagedError, UnreadableError

MANIFEST = "manifest.json"
REQUEST = "request.json"
EXTRA = "extra.json"
"""In a folder that is being written: what its manifest is to have as "content"."""
SEAL = "seal"
"""Key of a JSON file's checksum."""
LOCK = "lock"
"""Ending of the hidden file that is locked by who writes what stands beside it."""
CHUNK_BYTES = 1 << 20
LONGEST_NAME = 255
"""Bytes of a file's name."""
MAX_DEPTH = 64
"""Of values in values of a JSON file; ours have 6. Whoever walks through them may then recurse."""


def fingerprint(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's file names and contents.

    A folder's own manifest does not count: the fingerprint stands in it. Nor does what the manifest
    is made of, nor a lock: whoever wants to write something may take one at any moment.

    Raises:
        ArtifactError: there is nothing at `path`.
        OSError: a file cannot be read; it has the file's name.
    """
    if not path.exists():
        raise ArtifactError(f"found nothing at {path}, expected a file or a folder")
    digest = hashlib.sha256()
    own = {path / MANIFEST, path / REQUEST, path / EXTRA}
    for file in [path] if path.is_file() else files_below(path):
        if file in own or (file != path and is_lock(file)):
            continue
        digest.update(os.fsencode(file.relative_to(path)) if file != path else b"")
        try:
            with file.open("rb") as stream:
                while block := stream.read(CHUNK_BYTES):
                    digest.update(block)
        except OSError as error:  # one that comes in the midst of a file names none
            error.filename = str(file)
            raise
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return all files in a folder and in those inside, in order.

    Unlike pathlib's own search, it leaves out none that may not be looked into; one that somebody
    removes meanwhile has no files.

    Raises:
        OSError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    walk = os.walk(folder, onerror=fail)
    found = (Path(inner, name) for inner, _, names in walk for name in names)
    return sorted(path for path in found if path.is_file())


def children(folder: Path) -> list[Path]:
    """Return what lies in a folder, in order; nothing where there is none.

    Raises:
        UnreadableError: it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from None


@contextmanager
def passing_over_damage() -> Generator[None]:
    """Go on after a file that is half written, damaged, of another release or just removed.

    Raises:
        UnreadableError: the system does not hand one out; it may be whole.
    """
    try:
        yield
    except UnreadableError:
        raise
    except ArtifactError:
        return


def fingerprint_of(value: object) -> str:
    """Return the sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object and its seal, so that it is whole or absent, also after a power cut."""
    write_plain_json(path, sealed(value))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its seal."""
    told: dict[str, Any] = json.loads(json.dumps(dict(value)))  # as it will be read
    return {**told, SEAL: fingerprint_of(told)}


def write_plain_json(path: Path, value: object) -> None:
    """Write JSON in somebody else's format: without a seal, else as `write_json` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text so that it is whole or absent, also after a power cut.

    Half a surrogate pair, which a name of a file may hold, is written as JSON does it.
    """
    partial = hidden(path, "partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
    sync(path.parent)


def read_json(path: Path, *, remedy: str = "make its folder again") -> dict[str, Any]:
    """Return the JSON object in `path`, without its seal; one that has none is taken as it is.

    Args:
        path: of the file.
        remedy: what to do where it is damaged.

    Raises:
        ArtifactError: there is no such file.
        UnreadableError: it cannot be read.
        DamagedError: it does not say what was written.
    """
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"{path} is missing") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, endless numbers
        raise DamagedError(f"{path} is damaged ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{path} holds a {type(value).__name__}, expected an object")
    told = cast("dict[str, Any]", value)
    if _is_deep(told):
        raise DamagedError(f"{path} is damaged (values nested deeper than {MAX_DEPTH}); {remedy}")
    seal = told.pop(SEAL, None)
    if seal is not None and seal != fingerprint_of(told):
        raise DamagedError(
            f"{path} is damaged: its seal is not that of what it says; make its folder again, or "
            f"remove the line {SEAL!r} if you changed the file yourself"
        )
    return told


def unreadable(path: Path, error: Exception) -> UnreadableError:
    """Return the error of a file that the system does not hand out.

    Args:
        path: of the file.
        error: what the system, or a library, said.
    """
    told = error.strerror if isinstance(error, OSError) and error.strerror else error
    return UnreadableError(f"cannot read {path}: {told}; mend its permissions or its disk")


def native_name(path: Path) -> str | bytes:
    """Return a path as libraries in other languages open it: its bytes where they are no UTF-8."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return name


def not_read(path: Path, error: Exception, *, remedy: str) -> ArtifactError:
    """Return the error of a file that a library could not read: withheld, missing or damaged.

    Args:
        path: of the file.
        error: what the library raised; from the system it has a number.
        remedy: what to do about a damaged one.
    """
    if isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError):
        return unreadable(path, error)
    return DamagedError(f"{path} is missing or damaged ({error}); {remedy}")


def is_plain_name(name: object) -> bool:
    """Return whether a name stands for one file or folder in another, and for nothing else."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and name not in {"", ".", ".."}
        and not {"/", "\\"} & set(name)
        and len(name.encode(errors="replace")) <= LONGEST_NAME
    )


def beside(folder: Path, name: object) -> Path:
    """Return the file of a folder that a name in one of the folder's own files stands for.

    Args:
        folder: the one that the name was read in.
        name: what was read.

    Raises:
        ArtifactError: it is no plain file name, and might lead anywhere.
    """
    if not is_plain_name(name):
        raise ArtifactError(
            f"{folder} names the file {str(name)[:80]!a}, expected the plain name of one that lies "
            "in it; the folder is damaged, or made to lead elsewhere"
        )
    return folder / str(name)


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += cast("dict[str, object]", one).values()
            elif isinstance(one, list):
                inner += cast("list[object]", one)
        if not inner:
            return False
        level = inner
    return True


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hidden(path: Path, ending: str) -> Path:
    """Return `.NAME.ending` beside a file or folder, also for `.`, which has no name."""
    return path.parent / f".{path.name}.{ending}"


def is_lock(path: Path) -> bool:
    """Return whether a file is the lock of what stands beside it, which may go at any moment."""
    return path.name.startswith(".") and path.name.endswith(f".{LOCK}")
