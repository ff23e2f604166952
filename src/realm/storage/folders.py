"""A stage's folder: is it done, write it, publish it, open it."""

import json
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from realm.errors import ArtifactError, OtherFormatError
from realm.storage.files import (
    EXTRA,
    MANIFEST,
    REQUEST,
    files_below,
    fingerprint,
    is_lock,
    passing_over_damage,
    read_json,
    sync,
    write_json,
)
from realm.storage.locking import locked
from realm.storage.replacing import exchange, mend, scratch_folder

FORMAT_VERSION = 1
"""Raised when an older release could no longer read what we write."""
CUT = frozenset({"batch_tokens"})
"""Settings of how the work is cut, not of what comes out: another value moves numbers by rounding
only. What was made or begun with one counts as made from the same, and is gone on with."""
_MADE_BY = {"passages": " (of realm split)", "examples": " (of realm mask)"}
"""Kinds of folders that users name, and the verb that makes them."""
PATIENCE_SECONDS = 600.0
"""How long one of several writers waits for another one that has not moved on."""


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


@contextmanager
def writing(folder: Path, partial: Path) -> Generator[None]:
    """Say what a failure of the file system means for the folder.

    Raises:
        ArtifactError: instead of every OSError.
    """
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot make {folder}: {error.strerror or error} "
            f"({error.filename or partial}); nothing was published. Free space or mend the "
            "permissions and run the same command again"
        ) from error


@contextmanager
def publish(
    folder: Path, request: Request, *, resume: bool = False, replace: bool = False
) -> Generator[Path]:
    """Yield a scratch folder that becomes `folder`, manifest last, in one rename.

    With `resume`, a scratch folder that a killed writer left behind is handed out again, as
    long as it was started from an equal request: the stage continues from its finished shards.
    Without, what a failed writer left is removed. With `replace`, a finished folder of the same
    kind may stand there; it stays until the new one is whole, then the two are exchanged. Write
    `extra.json` into the scratch folder to add to the manifest's "content" entry.

    Raises:
        ArtifactError: `folder` exists (published folders are never changed), or somebody else is
            writing it, or a file cannot be read or written (a full disk: what was there before
            stays as it was).
    """
    partial = scratch_folder(folder)
    with locked(folder):
        mend(folder)
        _check_place(folder, request.kind, replace=replace)
        try:
            with writing(folder, partial):
                if not (resume and _continues(partial, request)):
                    shutil.rmtree(partial, ignore_errors=True)  # left by a crashed writer
                    partial.mkdir(parents=True)
                    write_json(partial / REQUEST, request.as_json())
                yield partial
                _finish(partial, request)
                _put_in_place(partial, folder, request.kind, replace=replace)
        except BaseException:
            with suppress(ArtifactError):
                mend(folder)  # interrupted in the exchange
            if not resume:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def start_together(folder: Path, request: Request, *, replace: bool = False) -> Path | None:
    """Return the scratch folder that several processes fill, None if `folder` is made already.

    Whoever has written or found the last part calls `finish_together`. Unlike within `publish`,
    the folder is not kept for this process: parts are (`claimed`).

    Raises:
        ArtifactError: `folder` was made from something else, or somebody else is writing it alone,
            or a file cannot be written.
    """
    partial = scratch_folder(folder)
    with writing(folder, partial), locked(folder, wait_seconds=PATIENCE_SECONDS):
        mend(folder)
        if folder.exists() and not replace and is_done(folder, request):
            return None
        _check_place(folder, request.kind, replace=replace)
        if not _continues(partial, request):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write_json(partial / REQUEST, request.as_json())
    return partial


def finish_together(
    folder: Path,
    request: Request,
    content: Callable[[Path], Mapping[str, Any]],
    *,
    replace: bool = False,
) -> None:
    """Publish what several processes have filled, unless another one of them has already.

    Args:
        folder: see `start_together`.
        request: see there.
        content: called with the scratch folder by the one that publishes; returns the manifest's
            "content" entry.
        replace: see there.

    Raises:
        ArtifactError: see `start_together`.
    """
    partial = scratch_folder(folder)
    with writing(folder, partial), locked(folder, wait_seconds=PATIENCE_SECONDS):
        if not _continues(partial, request):
            return  # another one has finished it
        write_json(partial / EXTRA, content(partial))
        _finish(partial, request)
        _put_in_place(partial, folder, request.kind, replace=replace)


def open_folder(folder: Path, kind: str) -> dict[str, Any]:
    """Return the manifest of a published folder.

    Raises:
        ArtifactError: the folder is missing, unfinished, or of another kind.
        OtherFormatError: another release wrote it.
    """
    if not folder.exists():
        mend(folder)  # somebody was killed while replacing it
    made = f"{kind} folder{_MADE_BY.get(kind, '')}"
    if not folder.is_dir():
        found = f"the file {folder}" if folder.exists() else f"no folder {folder}"
        raise ArtifactError(f"found {found}; expected a published {made} there")
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST}; expected a finished {made}. "
            "Run the command that makes it again, it resumes"
        )
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise OtherFormatError(
            f"{folder} has format version {_short(manifest.get('format_version'))}, this release "
            f"reads {FORMAT_VERSION}; make it again with this release"
        )
    if manifest.get("kind") != kind:
        raise ArtifactError(
            f"{folder} holds {str(manifest.get('kind'))[:40]!r}, expected {kind!r}; "
            "are two arguments in the wrong order?"
        )
    for part in ("settings", "inputs", "content"):
        if not isinstance(manifest.get(part), dict):
            raise ArtifactError(
                f"{folder / MANIFEST} is damaged: found {_short(manifest.get(part))} as {part}, "
                "expected an object; make the folder again"
            )
    if not isinstance(manifest.get("fingerprint"), str):
        raise ArtifactError(
            f"{folder / MANIFEST} is damaged: found no fingerprint; make the folder again"
        )
    return manifest


def is_done(folder: Path, request: Request, *, rebuild: bool = False) -> bool:
    """Return whether `folder` was already made from an equal request.

    With `rebuild`, it is not, even if it was: a finished folder of the same kind, whatever it
    was made from, is to be replaced (`publish(..., replace=True)`). Until then it stays. Only a
    rebuild that was killed after its end, before the old folder was gone, is not done again.

    Raises:
        ArtifactError: it was made from other inputs or settings, or is no folder of ours.
    """
    was_rebuilt = mend(folder)
    if not folder.exists():
        return False
    if not (folder / MANIFEST).is_file():
        _remove_empty(folder)
        return False
    manifest = read_json(folder / MANIFEST)
    is_of_kind = manifest.get("kind") == request.kind
    if rebuild and is_of_kind and (not was_rebuilt or differences(manifest, request.as_json())):
        return False  # also one that an older release wrote
    if not is_of_kind:
        found = str(manifest.get("kind"))[:40]
        raise ArtifactError(
            f"{folder} holds {found!r}, expected {request.kind!r} or nothing; choose another --out"
        )
    open_folder(folder, request.kind)
    differing = differences(manifest, request.as_json())
    if not differing:
        return True
    raise ArtifactError(
        f"{folder} was made from other {differing}; "
        "choose another --out, or pass --rebuild to replace it"
    )


def _remove_empty(folder: Path) -> None:
    """Remove an empty folder, which is as good as none; refuse whatever else has no manifest."""
    try:
        is_empty = folder.is_dir() and not any(folder.iterdir())
        if is_empty:
            folder.rmdir()
    except OSError as error:  # a link to one, the place where a disk is mounted
        raise ArtifactError(
            f"{folder} cannot give way to a finished folder ({error.strerror or error}), expected "
            f"a place where nothing stands; remove it or choose another --out, such as {folder}/new"
        ) from None
    if not is_empty:
        raise ArtifactError(
            f"{folder} exists and is not a folder that realm finished; choose another --out"
        )


def _put_in_place(partial: Path, folder: Path, kind: str, *, replace: bool) -> None:
    _check_place(folder, kind, replace=replace)
    if folder.exists():
        exchange(partial, folder)
    else:
        partial.rename(folder)
        sync(folder.parent)


def _check_place(folder: Path, kind: str, *, replace: bool) -> None:
    """Refuse a place that is taken, unless by what is to be replaced."""
    if not folder.exists():
        return
    manifest = folder / MANIFEST
    if replace and manifest.is_file() and read_json(manifest).get("kind") == kind:
        return
    raise ArtifactError(
        f"{folder} exists and published folders are never changed; "
        "choose another --out, or pass --rebuild to replace it"
    )


def compared(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a request, as it stands in its file, decides what comes out."""
    settings = request.get("settings")
    if not isinstance(settings, dict):
        return dict(request)
    named = cast("dict[str, Any]", settings)
    return {**request, "settings": {n: v for n, v in named.items() if n not in CUT}}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name the settings and inputs that differ, with both values, or return ''."""
    told: list[str] = []
    for part in ("settings", "inputs"):
        old: dict[str, Any] = compared(found).get(part) or {}
        new: dict[str, Any] = json.loads(json.dumps(compared(wanted)[part]))
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
    with passing_over_damage():
        wanted = json.loads(json.dumps(request.as_json()))
        return compared(read_json(partial / REQUEST)) == compared(wanted)
    return False


def _finish(partial: Path, request: Request) -> None:
    extra_file = partial / EXTRA
    content = read_json(extra_file) if extra_file.is_file() else {}
    for ending in ("partial", "lock"):
        for stale in partial.rglob(f".*.{ending}"):
            stale.unlink(missing_ok=True)  # left by a writer that was killed
    for path in sorted(partial.rglob("*")):
        if not is_lock(path) and (path.is_file() or path.is_dir()):
            sync(path)
    manifest = {
        **request.as_json(),
        "fingerprint": fingerprint(partial),
        "files": _checksums(partial),
        "content": content,
    }
    write_json(partial / MANIFEST, manifest)
    (partial / REQUEST).unlink(missing_ok=True)  # late: until here a killed writer can go on
    extra_file.unlink(missing_ok=True)
    sync(partial)


def _checksums(partial: Path) -> dict[str, str]:
    """Return the checksum of every file by its name."""
    names = [
        path.relative_to(partial).as_posix()
        for path in files_below(partial)
        if path not in {partial / MANIFEST, partial / REQUEST, partial / EXTRA}
        and not is_lock(path)
    ]
    return {name: fingerprint(partial / name) for name in names}
