"""Files that are whole or as they were, and fingerprints of what is in them.

A JSON file of ours ends with a seal, the checksum of everything else in it: one byte that changed
on the disk is told from a value that somebody meant.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from realm.errors import ArtifactError, DamagedError

MANIFEST = "manifest.json"
REQUEST = "request.json"
SEAL = "seal"
"""Key of a JSON file's checksum."""
CHUNK_BYTES = 1 << 20
MAX_DEPTH = 64
"""Of values in values of a JSON file; ours have 6. Whoever walks through them may then recurse."""


def fingerprint(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's file names and contents.

    A folder's own manifest does not count: the fingerprint stands in it.

    Raises:
        ArtifactError: there is nothing at `path`.
    """
    if not path.exists():
        raise ArtifactError(f"found nothing at {path}, expected a file or a folder")
    digest = hashlib.sha256()
    own = {path / MANIFEST, path / REQUEST}
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file in own:
            continue
        digest.update(os.fsencode(file.relative_to(path)) if file != path else b"")
        with file.open("rb") as stream:
            while block := stream.read(CHUNK_BYTES):
                digest.update(block)
    return digest.hexdigest()


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


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, without its seal; one that has none is taken as it is.

    Raises:
        ArtifactError: there is no such file, or it cannot be read.
        DamagedError: it does not say what was written.
    """
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; mend its permissions") from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, endless numbers
        raise DamagedError(f"{path} is damaged ({error}); make its folder again") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{path} holds a {type(value).__name__}, expected an object")
    told = cast("dict[str, Any]", value)
    if _is_deep(told):
        raise DamagedError(
            f"{path} is damaged (values nested deeper than {MAX_DEPTH}); make its folder again"
        )
    seal = told.pop(SEAL, None)
    if seal is not None and seal != fingerprint_of(told):
        raise DamagedError(
            f"{path} is damaged: its seal is not that of what it says; make its folder again, or "
            f"remove the line {SEAL!r} if you changed the file yourself"
        )
    return told


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
