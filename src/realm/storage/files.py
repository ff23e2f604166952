"""Files that are whole or as they were, and fingerprints of what is in them."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from realm.errors import ArtifactError

MANIFEST = "manifest.json"
REQUEST = "request.json"
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


def write_json(path: Path, value: object) -> None:
    """Write JSON so that it is whole or absent, also after a power cut."""
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
    """Return the JSON object in `path`.

    Raises:
        ArtifactError: there is no such file, or it cannot be read, or it is damaged.
    """
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; mend its permissions") from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, endless numbers
        raise ArtifactError(f"{path} is damaged ({error}); make its folder again") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds a {type(value).__name__}, expected an object")
    if _is_deep(cast("dict[str, object]", value)):
        raise ArtifactError(
            f"{path} is damaged (values nested deeper than {MAX_DEPTH}); make its folder again"
        )
    return cast("dict[str, Any]", value)


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
