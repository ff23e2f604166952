"""Are all files below a place what was written? Every byte is read, whatever the size."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from realm.errors import ArtifactError, DamagedError
from realm.storage.checking import check_file, checksums
from realm.storage.files import MANIFEST, SEAL, children, is_plain_name, read_json, unreadable

State = Literal["whole", "damaged", "unreadable", "unknown", "gone"]
REMEDY = "make it again, or take it from a copy"
CHECKSUM_LENGTH = 64
"""Characters of a sha256."""
LINES_MANIFEST = f".{MANIFEST}"
"""Ending of the manifest of a single file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFile:
    """One file, and what became of its comparison."""

    path: Path
    state: State
    """whole: as it was written. damaged: its bytes are others, or it is gone. unreadable: the disk
    does not give it. unknown: nothing says what was written (a log, another program's file). gone:
    removed since it was listed, with the manifest of its folder."""
    size: int
    """In bytes; 0 where it is gone."""
    problem: str = ""
    """What is wrong with it, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All files below a place."""

    place: Path
    files: tuple[VerifiedFile, ...]

    @property
    def bad(self) -> list[VerifiedFile]:
        """Those that are damaged or cannot be read."""
        return [one for one in self.files if one.state in {"damaged", "unreadable"}]

    def of(self, state: State) -> list[VerifiedFile]:
        """Return those in one state."""
        return [one for one in self.files if one.state == state]

    def as_json(self) -> dict[str, Any]:
        """Return counts, and the files that are not whole by their path."""
        return {
            "place": str(self.place),
            "whole": len(self.of("whole")),
            "bytes": sum(one.size for one in self.of("whole")),
            "bad": {str(one.path): one.problem for one in self.bad},
            "unknown": [str(one.path) for one in self.of("unknown")],
        }


@dataclass(slots=True)
class _Known:
    """What the manifests below a place say."""

    sums: dict[Path, str] = field(default_factory=dict[Path, str])
    """Checksum of each file that has one."""
    manifests: dict[Path, Path] = field(default_factory=dict[Path, Path])
    """Which manifest has it."""
    problems: dict[Path, ArtifactError] = field(default_factory=dict[Path, ArtifactError])
    """JSON files that are not what they were."""
    sealed: set[Path] = field(default_factory=set[Path])
    """JSON files that are."""


def verify(place: Path, *, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Compare every file below a place with what was written, reading all of it.

    JSON files of ours carry a seal; the others have a checksum in the manifest of their folder
    (or, a single file of lines, in the manifest beside it). What a killed writer left behind, in
    files and folders whose names begin with a dot, is not looked at. What somebody removes
    meanwhile, an older checkpoint of a run that goes on, is none that is missing.

    Args:
        place: a folder that realm wrote, or one with such folders somewhere below.
        progress: called with (bytes read, bytes in all).

    Raises:
        ArtifactError: there is no such folder, or nothing in it says what was written.
        UnreadableError: a folder cannot be listed or entered.
    """
    if not place.is_dir():
        raise ArtifactError(f"found no folder {place}; expected one that realm wrote")
    found = list(_visible(place))
    known = _read_manifests(found)
    if not known.sums and not known.sealed and not known.problems:
        raise ArtifactError(
            f"nothing below {place} says what was written; expected a folder that realm wrote, "
            f"with a {MANIFEST}, or a folder of such folders"
        )
    everything = sorted({*found, *known.sums})
    sizes = {path: _size(path) for path in everything}
    read, total = 0, sum(sizes.values())
    files: list[VerifiedFile] = []
    for path in everything:
        one = _verified(path, sizes[path], known)
        files.append(replace(one, state="gone", problem="") if _is_gone(one, known) else one)
        read += sizes[path]
        if progress is not None:
            progress(read, total)
    return Verification(place=place, files=tuple(files))


def _visible(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without hidden ones; links are not followed."""
    for path in children(folder):
        if path.name.startswith("."):
            continue
        try:
            is_link, is_folder, is_file = path.is_symlink(), path.is_dir(), path.is_file()
        except OSError as error:  # its folder may be listed, and not be entered
            raise unreadable(path, error) from None
        if is_folder and not is_link:
            yield from _visible(path)
        elif is_file and not is_link:
            yield path


def _read_manifests(files: list[Path]) -> _Known:
    known = _Known()
    for path in files:
        if path.suffix != ".json" or _is_foreign(path):
            continue
        try:
            told = read_json(path)
        except ArtifactError as error:
            known.problems[path] = error
            continue
        if (name := _name_of_seal(told)) is not None:  # read_json takes one named "seal" away
            known.problems[path] = DamagedError(
                f"{path} is damaged: its seal is called {name!a}; {REMEDY}"
            )
            continue
        if path.name == MANIFEST:
            sums = _of_folder(path.parent, told)
            known.sums.update(sums)
            known.manifests.update(dict.fromkeys(sums, path))
        elif path.name.endswith(LINES_MANIFEST) and isinstance(told.get("fingerprint"), str):
            lines = path.with_name(path.name.removesuffix(LINES_MANIFEST))
            known.sums[lines], known.manifests[lines] = str(told["fingerprint"]), path
        known.sealed.add(path)
    return known


def _is_foreign(path: Path) -> bool:
    """Return whether a file is JSON in somebody else's format: without a seal, and no manifest."""
    if path.name.endswith(MANIFEST):
        return False  # one that an older release wrote has no seal, and holds checksums
    with suppress(OSError, ValueError, RecursionError):
        return _name_of_seal(json.loads(path.read_text(encoding="utf-8"))) is None
    return False


def _name_of_seal(told: object) -> str | None:
    """Return the key under which a seal stands: another one of its length, if a bit has flipped."""
    if not isinstance(told, dict) or not told:
        return None
    name, value = list(cast("dict[str, object]", told).items())[-1]
    is_seal = isinstance(value, str) and len(value) == CHECKSUM_LENGTH and len(name) == len(SEAL)
    return name if is_seal else None


def _of_folder(folder: Path, manifest: dict[str, Any]) -> dict[Path, str]:
    """Return the checksums of a folder's files; a name that leads elsewhere is left out."""
    return {
        folder / name: checksum
        for name, checksum in checksums(manifest).items()
        if all(map(is_plain_name, name.split("/")))
    }


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _is_gone(one: VerifiedFile, known: _Known) -> bool:
    """Return whether a file was removed since it was listed: manifests are removed first."""
    manifest = known.manifests.get(one.path, one.path.parent / MANIFEST)
    return one.state != "whole" and not one.path.exists() and not manifest.exists()


def _verified(path: Path, size: int, known: _Known) -> VerifiedFile:
    def told(state: State, problem: str = "") -> VerifiedFile:
        return VerifiedFile(path=path, state=state, size=size, problem=problem)

    error = known.problems.get(path)
    if error is not None:
        return told("damaged" if isinstance(error, DamagedError) else "unreadable", str(error))
    if path not in known.sums:
        return told("whole" if path in known.sealed else "unknown")
    if not path.is_file():
        return told("damaged", f"{path} is missing; {REMEDY}")
    try:
        check_file(path, known.sums[path], remedy=REMEDY)
    except DamagedError as error:
        return told("damaged", str(error))
    except ArtifactError as error:
        return told("unreadable", str(error))
    return told("whole")
