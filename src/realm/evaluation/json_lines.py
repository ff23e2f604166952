"""Files of JSON lines that people write by hand: every complaint names its line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from realm.errors import CorpusError

LINE_LIMIT = 1 << 20
"""Bytes of the longest line that can be a question."""


def read_objects(path: Path, *, noun: str, example: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number of the line from 1, its JSON object); blank lines are left out.

    Args:
        path: a file named *.jsonl, or *.jsonl.gz, .bz2 or .zst.
        noun: what a line holds, for messages: "question".
        example: a line as it should be.

    Raises:
        CorpusError: the file is missing, damaged or empty, or a line is no JSON object.
    """
    from realm.corpus.streams import read_blocks, read_lines  # slow import, only to read

    if not path.is_file():
        raise CorpusError(f"found no file {path}, expected {noun}s as JSON lines")
    is_empty = True
    for number, line in read_lines(read_blocks(path), LINE_LIMIT):
        place = f"{path}:{number}"
        if line is None:
            raise CorpusError(
                f"{place}: found a line of more than {LINE_LIMIT:,} bytes, expected one {noun} "
                f"a line like {example}"
            )
        text = _decode(line, place)
        if text.strip():
            is_empty = False
            yield number, _parse(text, place, example)
    if is_empty:
        raise CorpusError(f"{path}: found no line, expected one {noun} a line like {example}")


def whole(text: str, place: str) -> str:
    """Return `text` if it can be written as UTF-8: JSON escapes may hold half a character.

    Raises:
        CorpusError: it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CorpusError(
            f"{place}: found half a surrogate pair in {text!r}, expected whole characters"
        ) from None
    return text


def _decode(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{place}: found a byte that is not UTF-8 (0x{line[error.start]:02x} at byte "
            f"{error.start}), expected UTF-8 text; convert the file"
        ) from None


def _parse(text: str, place: str, example: str) -> dict[str, Any]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"{place}: found no JSON ({error}), expected a line like {example}"
        ) from None
    if not isinstance(value, dict):
        raise CorpusError(
            f"{place}: found a JSON {type(value).__name__}, expected an object like {example}"
        )
    return cast("dict[str, Any]", value)
