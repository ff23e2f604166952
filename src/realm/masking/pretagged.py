"""Spans that were tagged elsewhere: `{"id": passage id, "spans": [[start, end, label], ...]}`."""

import json
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from realm.errors import ConfigError, MaskingError
from realm.masking.overlaps import tidy
from realm.readable import counted
from realm.records import Passage, SalientSpan, Skipped
from realm.storage import fingerprint

FORMAT = '{"id": "12#0", "spans": [[0, 6, "PER"]]}'
NO_LINE = "passage without a line in the jsonl file"
OVERLAPPING = "span overlaps a longer one in the jsonl file"


class PretaggedTagger:
    """Looks spans up by passage id in a JSON-lines file.

    The file is checked once, from end to end, and stays on disk: 24 bytes of memory a line.
    """

    def __init__(self, path: Path) -> None:
        """Check every line of `path`.

        Raises:
            ConfigError: there is no such file.
            MaskingError: a line is damaged or a passage stands twice (with file and line).
        """
        if not path.is_file():
            raise ConfigError(f"found no file {path}; expected lines like {FORMAT}")
        self.name = f"jsonl:{path.name}"
        self._path = path
        self._hashes, self._offsets, self._lines = _index(path)

    @property
    def fingerprint(self) -> str:
        """Hash of the file."""
        return fingerprint(self._path)

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the spans of each passage; one without a line has none and is counted.

        Raises:
            MaskingError: a span lies outside its passage (with file and line).
        """
        with self._path.open("rb") as stream:
            for passage in passages:
                yield self._spans(stream, passage, skipped)

    def _spans(self, stream: BinaryIO, passage: Passage, skipped: Skipped) -> list[SalientSpan]:
        wanted = _hash(passage.id)
        place = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        if place == len(self._hashes) or self._hashes[place] != wanted:
            skipped.add(NO_LINE, passage.id)
            return []
        stream.seek(int(self._offsets[place]))
        where = f"{self._path}:{self._lines[place]}"
        _, spans = _parse(stream.readline(), where)
        for span in spans:
            if span.end > len(passage.text):
                raise MaskingError(
                    f"{where}: found span {span.start}..{span.end} in passage {passage.id} of "
                    f"{counted(len(passage.text), 'character')}; expected an end within the "
                    "passage's text. Was the file made from other passages?"
                )
        kept = tidy(spans, passage.text)
        for _ in range(len(spans) - len(kept)):
            skipped.add(OVERLAPPING, passage.id)
        return kept


def _index(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hash, byte offset and number of each line, sorted by the hash of the passage id."""
    hashes, offsets, lines = array("Q"), array("Q"), array("Q")
    with path.open("rb") as stream:
        offset = 0
        for number, line in enumerate(stream, start=1):
            if line.strip():
                identity, _ = _parse(line, f"{path}:{number}")
                hashes.append(_hash(identity))
                offsets.append(offset)
                lines.append(number)
            offset += len(line)
    keys = np.array(hashes, np.uint64)
    order = np.argsort(keys, kind="stable")
    keys, numbers = keys[order], np.array(lines, np.uint64)[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        first, second = int(numbers[twice[0]]), int(numbers[twice[0] + 1])
        raise MaskingError(
            f"{path}:{second}: found the passage of line {first} again; expected one line for "
            "each passage, with all its spans"
        )
    return keys, np.array(offsets, np.uint64)[order], numbers


def _hash(identity: str) -> int:
    return int.from_bytes(
        blake2b(identity.encode(errors="surrogatepass"), digest_size=8).digest(), "big"
    )


def _parse(line: bytes, where: str) -> tuple[str, list[SalientSpan]]:
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as error:  # also bytes that are no text, endless numbers
        raise MaskingError(f"{where}: found no JSON ({error}); expected {FORMAT}") from None
    record = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    identity: object = record.get("id")
    spans: object = record.get("spans")
    if not isinstance(identity, str) or not isinstance(spans, list):
        raise MaskingError(f"{where}: found {_short(cast('object', row))}; expected {FORMAT}")
    return identity, [_parse_span(span, where) for span in cast("list[object]", spans)]


def _parse_span(span: object, where: str) -> SalientSpan:
    match span:
        case [int(start), int(end), str(label)] if 0 <= start < end and _is_label(label):
            return SalientSpan(start=start, end=end, label=label)
        case _:
            raise MaskingError(
                f"{where}: found span {_short(span)}; expected [start, end, label] with characters "
                "0 <= start < end and a label of Unicode characters"
            )


def _is_label(text: str) -> bool:
    """Return whether a text says something, and can be written: no half of a surrogate pair."""
    return bool(text) and text == text.encode(errors="replace").decode()


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
