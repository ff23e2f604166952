"""Files read whole, within the limit; what is no text is counted by reason."""

from pathlib import Path

from realm.corpus.reading import BAD_UTF8, BINARY, TEXT_LIMIT, TOO_LONG, Place
from realm.corpus.streams import BYTE_ORDER_MARK, read_blocks
from realm.records import Skipped


def bytes_of(path: Path, name: str, skipped: Skipped) -> bytes | None:
    """Return a file's content, without a byte order mark; None where it is too long.

    Args:
        path: where it lies.
        name: what it is called where it is counted.
        skipped: counts it, if it is too long.

    Raises:
        CorpusError: a compressed file is damaged.
        WithheldError: it is missing, or the system does not hand it out.
    """
    parts: list[bytes] = []
    size = 0
    for block in read_blocks(path):
        parts.append(block)
        size += len(block)
        if size > TEXT_LIMIT:
            skipped.add(TOO_LONG, str(Place(name, 1)))
            return None
    return b"".join(parts).removeprefix(BYTE_ORDER_MARK)


def text_of(path: Path, name: str, skipped: Skipped) -> str | None:
    """Return a file's text; None where it is too long, or no text.

    Args:
        path: see `bytes_of`.
        name: see there.
        skipped: see there.

    Raises:
        CorpusError: see there.
        WithheldError: see there.
    """
    data = bytes_of(path, name, skipped)
    if data is None:
        return None
    if b"\0" in data:
        skipped.add(BINARY, str(Place(name, 1)))
        return None
    return decoded(data, Place(name, 1), skipped)


def decoded(data: bytes, place: Place, skipped: Skipped) -> str | None:
    """Return UTF-8 as text; None, counted with the line at fault, where it is none.

    Args:
        data: one line, or several.
        place: of the first.
        skipped: counts it.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = place.line + data.count(b"\n", 0, error.start)
        skipped.add(BAD_UTF8, str(Place(place.file, line)))
        return None
