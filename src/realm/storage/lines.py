"""A file of JSON lines that a killed writer goes on with, beside the manifest that ends it.

While it is written, the lines stand in `.NAME.partial` and what they are made from in
`.NAME.request`. `NAME.manifest.json` is written when all lines are there, then the file gets its
name: a file with a manifest is whole.
"""

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from realm.errors import ArtifactError
from realm.storage.checking import check_file
from realm.storage.files import (
    fingerprint,
    hidden,
    not_read,
    passing_over_damage,
    read_json,
    sync,
    write_json,
)
from realm.storage.folders import Request, differences, writing
from realm.storage.locking import locked


class LinesWriter:
    """Appends whole lines; what stood there before counts as done."""

    def __init__(self, path: Path, *, num_done: int) -> None:
        self.num_lines = num_done
        """Lines in the file."""
        self.content: dict[str, Any] = {}
        """What the manifest's "content" entry will say."""
        self._path = path
        self._stream = path.open("a", encoding="utf-8")

    def write(self, values: Iterable[object]) -> None:
        """Append one line for each value, and hand them to the operating system."""
        for value in values:
            self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
            self.num_lines += 1
        self._stream.flush()

    def lines(self) -> Iterator[Any]:
        """Yield what every line so far holds, also those of an earlier writer."""
        with self._path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def lines_manifest(path: Path) -> Path:
    """Return where the manifest of a file of lines stands."""
    return path.with_name(f"{path.name}.manifest.json")


def read_lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the manifest of a finished file, and what its lines hold.

    Raises:
        ArtifactError: the file is missing, unfinished or damaged.
    """
    manifest = read_json(lines_manifest(path))
    if (checksum := manifest.get("fingerprint")) is not None:
        check_file(path, str(checksum), remedy="make it again with --rebuild")
    try:
        with path.open(encoding="utf-8") as stream:
            lines = [json.loads(line) for line in stream]
    except (OSError, ValueError, RecursionError) as error:
        raise not_read(path, error, remedy="make it again with --rebuild") from None
    if not all(isinstance(line, dict) for line in lines):
        raise ArtifactError(f"{path} holds lines that are no objects; make it again with --rebuild")
    return manifest, lines


def lines_done(path: Path, request: Request, *, rebuild: bool = False) -> dict[str, Any] | None:
    """Return the manifest's "content" of a file made from an equal request; None: to be made.

    With `rebuild` a finished file of the same kind is to be made again, whatever it is from.

    Raises:
        ArtifactError: `path` was made from something else, or is no file that realm finished.
    """
    manifest = lines_manifest(path)
    if not path.exists():
        return None
    found = read_json(manifest) if manifest.is_file() else {}
    if path.is_dir() or found.get("kind") != request.kind:
        raise ArtifactError(
            f"{path} exists and is not a file that realm finished; choose another --out"
        )
    if rebuild:
        return None
    if told := differences(found, request.as_json()):
        raise ArtifactError(
            f"{path} was made from other {told}; choose another --out, or pass --rebuild to "
            "replace it"
        )
    return dict(found["content"])


@contextmanager
def writing_lines(path: Path, request: Request, *, in_groups_of: int = 1) -> Generator[LinesWriter]:
    """Yield a writer; at its end the file is finished. After a failure the lines stay.

    Args:
        path: the file.
        request: what it is made from. Lines of another request are thrown away.
        in_groups_of: a resumed writer drops the lines of a group that was cut.

    Raises:
        ArtifactError: somebody else is writing it, or the disk is full.
    """
    partial, asked = hidden(path, "partial"), hidden(path, "request")
    with locked(path), writing(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_ours(path, request):
            partial.unlink(missing_ok=True)
            write_json(asked, request.as_json())
        writer = LinesWriter(partial, num_done=_keep_whole(partial, in_groups_of))
        try:
            yield writer
        finally:
            writer.close()
        sync(partial)
        path.unlink(missing_ok=True)  # an old one, to be replaced
        told = {**request.as_json(), "fingerprint": fingerprint(partial), "content": writer.content}
        write_json(lines_manifest(path), told)
        partial.replace(path)
        asked.unlink(missing_ok=True)
        sync(path.parent)


def _is_ours(path: Path, request: Request) -> bool:
    with passing_over_damage():
        return not differences(read_json(hidden(path, "request")), request.as_json())
    return False


def _keep_whole(partial: Path, in_groups_of: int) -> int:
    """Cut off what a kill left unfinished; return how many lines remain."""
    if not partial.is_file():
        return 0
    ends = [0]
    with partial.open("rb") as stream:
        for line in stream:
            if not _is_whole(line):
                break
            ends.append(ends[-1] + len(line))
    num_lines = (len(ends) - 1) // in_groups_of * in_groups_of
    with partial.open("r+b") as stream:
        stream.truncate(ends[num_lines])
    return num_lines


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return line.endswith(b"\n")
