"""head.json: which segments a library consists of, and which of their documents were removed.

It is the one file of a library that changes, by being replaced: whoever reads it sees the library
before a change or after it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realm.errors import ArtifactError, DamagedError, OtherFormatError
from realm.storage import read_json, write_json

HEAD = "head.json"
KIND = "library"
SEGMENT_NAME = re.compile(r"segment-\d+")
FORMAT_VERSION = 1
"""Raised when an older release could no longer read what we write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentState:
    """A segment as a library uses it."""

    name: str
    removed: tuple[int, ...] = ()
    """Numbers of its documents that are there no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The state of a library."""

    version: int = 0
    """Counts the changes."""
    made_with: dict[str, Any] = field(default_factory=dict[str, Any])
    """What decides passages and vectors: hashes of embedder and tokenizer, how texts are cut."""
    model: str = ""
    """Name of the model that it was made with, for people."""
    segments: tuple[SegmentState, ...] = ()

    def changed(self, segments: Sequence[SegmentState]) -> "Head":
        """Return the head after a change."""
        return Head(
            version=self.version + 1,
            made_with=self.made_with,
            model=self.model,
            segments=tuple(segments),
        )


def write_head(library: Path, head: Head) -> None:
    """Replace the head; it is on disk when this returns.

    Raises:
        ArtifactError: it cannot be written; the library is as it was.
    """
    told = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "version": head.version,
        "model": head.model,
        "made_with": head.made_with,
        "segments": [{"name": s.name, "removed": list(s.removed)} for s in head.segments],
    }
    try:
        write_json(library / HEAD, told)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {library / HEAD}: {error.strerror or error}; nothing was changed. Free "
            "space or mend the permissions and do the same again"
        ) from error


def read_head(library: Path) -> Head:
    """Return the state of a library.

    Raises:
        ArtifactError: there is none, or it is damaged.
        OtherFormatError: another release wrote it.
    """
    if not (library / HEAD).is_file():
        raise ArtifactError(
            f"found no library at {library} (it has no {HEAD}); expected one made by "
            f"`realm docs add {library} FILE...`"
        )
    told = read_json(library / HEAD)
    if told.get("kind") != KIND:
        raise ArtifactError(
            f"{library / HEAD} is of the kind {str(told.get('kind'))[:40]!r}, expected {KIND!r}; "
            "name a library"
        )
    if told.get("format_version") != FORMAT_VERSION:
        raise OtherFormatError(
            f"{library / HEAD} is of format {str(told.get('format_version'))[:40]}, this release "
            f"reads {FORMAT_VERSION}; use the release that wrote it, or make the library again "
            "from its documents (`realm docs add`)"
        )
    try:
        return Head(
            version=int(told["version"]),
            made_with=dict(told["made_with"]),
            model=str(told["model"]),
            segments=tuple(
                SegmentState(name=_name(s["name"]), removed=tuple(int(n) for n in s["removed"]))
                for s in told["segments"]
            ),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedError(f"{library / HEAD} is damaged ({error!r})") from None


def _name(value: object) -> str:
    """Return a segment's name, which leads nowhere but to a folder beside the others."""
    if not isinstance(value, str) or not SEGMENT_NAME.fullmatch(value):
        raise ValueError(f"found segment {value!r}, expected segment-NUMBER")
    return value
