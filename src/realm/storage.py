"""Folders that are whole or absent: written aside, fsynced, renamed into place, never changed.

Every stage publishes one folder with a `manifest.json` that says what made it: format version,
kind, settings, fingerprints of the inputs, and a fingerprint of the content that later stages
name as their input.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from realm.errors import ArtifactError

FORMAT_VERSION = 1
"""Raised when an older release could no longer read what we write."""
MANIFEST = "manifest.json"
REQUEST = "request.json"
EXTRA = "extra.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a folder is made from; two equal requests give equal folders."""

    kind: str
    """passages, examples, index, checkpoint, run or report."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name of each input -> its fingerprint."""

    def as_json(self) -> dict[str, Any]:
        """Return the request as it stands in the manifest."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
        }


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
        digest.update(str(file.relative_to(path)).encode() if file != path else b"")
        with file.open("rb") as stream:
            while block := stream.read(CHUNK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def fingerprint_of(value: object) -> str:
    """Return the sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON so that it is whole or absent, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=2, ensure_ascii=False)
            stream.write("\n")
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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); make its folder again") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds a {type(value).__name__}, expected an object")
    return cast("dict[str, Any]", value)


@contextmanager
def publish(folder: Path, request: Request, *, resume: bool = False) -> Generator[Path]:
    """Yield a scratch folder that becomes `folder`, manifest last, in one rename.

    With `resume`, a scratch folder that a killed writer left behind is handed out again, as
    long as it was started from an equal request: the stage continues from its finished shards.
    Without, what a failed writer left is removed. Write `extra.json` into the scratch folder to
    add to the manifest's "content" entry.

    Raises:
        ArtifactError: `folder` exists (published folders are never changed), or a file cannot be
            read or written (a full disk: what was there before stays as it was).
    """
    if folder.exists():
        raise ArtifactError(
            f"{folder} exists and published folders are never changed; "
            "choose another --out, or pass --rebuild to replace it"
        )
    partial = scratch_folder(folder)
    try:
        if not (resume and _continues(partial, request)):
            shutil.rmtree(partial, ignore_errors=True)  # left by a crashed writer
            partial.mkdir(parents=True)
            write_json(partial / REQUEST, request.as_json())
        yield partial
        _finish(partial, folder, request)
    except BaseException as error:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise ArtifactError(
            f"cannot make {folder}: {error.strerror or error} "
            f"({error.filename or partial}); nothing was published. Free space or mend the "
            "permissions and run the same command again"
        ) from error


def remove(folder: Path) -> None:
    """Remove a published folder; a kill half-way never leaves a part that looks finished.

    Raises:
        ArtifactError: it cannot be removed.
    """
    doomed = folder.with_name(f".{folder.name}.removed")
    try:
        if doomed.exists():  # left by a removal that was killed
            shutil.rmtree(doomed)
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise ArtifactError(
            f"cannot remove {folder}: {error.strerror or error}; mend the permissions"
        ) from error


def scratch_folder(folder: Path) -> Path:
    """Return where `folder` is written before it is published."""
    return folder.with_name(f".{folder.name}.partial")


def open_folder(folder: Path, kind: str) -> dict[str, Any]:
    """Return the manifest of a published folder.

    Raises:
        ArtifactError: the folder is missing, unfinished, of another kind or format version.
    """
    if not folder.is_dir():
        raise ArtifactError(f"found no folder {folder}; expected a published {kind} folder there")
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST}; expected a finished {kind} folder. "
            "Run the command that makes it again, it resumes"
        )
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} has format version {manifest.get('format_version')!r}, this release reads "
            f"{FORMAT_VERSION}; make it again with this release"
        )
    if manifest.get("kind") != kind:
        raise ArtifactError(
            f"{folder} holds {manifest.get('kind')!r}, expected {kind!r}; "
            "are two arguments in the wrong order?"
        )
    return manifest


def is_done(folder: Path, request: Request, *, rebuild: bool = False) -> bool:
    """Return whether `folder` was already made from an equal request.

    With `rebuild`, a finished folder of the same kind is removed, whatever it was made from.

    Raises:
        ArtifactError: it was made from other inputs or settings, or is no folder of ours.
    """
    if not folder.exists():
        return False
    if not (folder / MANIFEST).is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            return False
        raise ArtifactError(
            f"{folder} exists and is not a folder that realm finished; choose another --out"
        )
    if rebuild and read_json(folder / MANIFEST).get("kind") == request.kind:
        remove(folder)  # also one that an older release wrote
        return False
    manifest = open_folder(folder, request.kind)
    differing = _differences(manifest, request.as_json())
    if not differing:
        return True
    raise ArtifactError(
        f"{folder} was made from other {differing}; "
        "choose another --out, or pass --rebuild to replace it"
    )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name the settings and inputs that differ, with both values, or return ''."""
    told: list[str] = []
    for part in ("settings", "inputs"):
        old: dict[str, Any] = found.get(part) or {}
        new: dict[str, Any] = json.loads(json.dumps(wanted[part]))
        told += [
            f"{part[:-1]} {name} (found {_short(old.get(name))}, now {_short(new.get(name))})"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    return "; ".join(told)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "..."


def _continues(partial: Path, request: Request) -> bool:
    try:
        return read_json(partial / REQUEST) == json.loads(json.dumps(request.as_json()))
    except ArtifactError:
        return False


def _finish(partial: Path, folder: Path, request: Request) -> None:
    extra_file = partial / EXTRA
    content = read_json(extra_file) if extra_file.is_file() else {}
    extra_file.unlink(missing_ok=True)
    for stale in partial.rglob(".*.partial"):
        stale.unlink()  # written aside by a writer that was killed before this one resumed
    for path in sorted(partial.rglob("*")):
        if path.is_file() or path.is_dir():
            sync(path)
    manifest = {**request.as_json(), "fingerprint": fingerprint(partial), "content": content}
    write_json(partial / MANIFEST, manifest)
    (partial / REQUEST).unlink(missing_ok=True)  # last: until here a killed writer can go on
    sync(partial)
    partial.rename(folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
