"""A document that somebody added -> the articles in it, each with its line."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import cast

from realm.corpus.articles import JSONL, TEXT_FILES, heading_of, parse_line
from realm.corpus.folder import TextFile
from realm.corpus.reading import (
    MAX_NAME_CHARACTERS,
    NO_TEXT,
    NOT_READ,
    TEXT_LIMIT,
    TOO_LONG,
    Found,
    Place,
    Reading,
)
from realm.corpus.streams import read_lines
from realm.corpus.whole_files import bytes_of, decoded, text_of
from realm.errors import CorpusError, WithheldError
from realm.readable import counted
from realm.records import Article, Document, DocumentFormat, Skipped

MAX_ID_CHARACTERS = 1_000
NOT_IN_IDS = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, half surrogate pairs, ends of lines and paragraphs. Names of files
hold other characters that print nothing: joiners in Persian and in emoji, narrow spaces."""
_TELLS_NOTHING = re.compile(
    r"([0-9a-f]{32,}|[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12})(#\d+)?", re.IGNORECASE
)
"""Hashes and UUIDs (and their passages): names that programs give, and no words to embed."""
FORMATS: tuple[DocumentFormat, ...] = ("text", "markdown", "jsonl")


def only_documents(given: object) -> Iterator[Document]:
    """Yield one or many documents; a text or a mapping in their place is refused.

    Raises:
        CorpusError: something else than a document.
    """
    is_one = not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping)
    for one in [given] if is_one else cast("Iterable[object]", given):
        if not isinstance(one, Document):
            raise CorpusError(
                f"found {type(one).__name__} for a document, expected "
                'realm.Document(id="notes/april.md", text="...")'
            )
        yield one


def check_document(document: Document) -> None:
    """Refuse a document that no library can hold.

    Raises:
        CorpusError: its id, format, title or text cannot be used.
    """
    if not 0 < len(document.id) <= MAX_ID_CHARACTERS or (
        NOT_IN_IDS & set(map(unicodedata.category, document.id))
    ):
        raise CorpusError(
            f"found the document id {document.id[:80]!r} "
            f"({counted(len(document.id), 'character')}), expected 1 to "
            f"{MAX_ID_CHARACTERS:,} characters in one line, such as notes/april.md"
        )
    if document.format not in FORMATS:
        raise CorpusError(
            f"{document.id}: found the format {document.format!r}, expected {', '.join(FORMATS)}"
        )
    if not document.text.strip():
        raise CorpusError(
            f"{document.id}: found no text, expected some; a document that is to go is removed"
        )
    if len(document.text) > TEXT_LIMIT:
        raise CorpusError(
            f"{document.id}: found {len(document.text):,} characters, expected at most "
            f"{TEXT_LIMIT:,}; cut it into several documents"
        )
    if len(document.title) > MAX_NAME_CHARACTERS:
        raise CorpusError(
            f"{document.id}: found a title of {len(document.title):,} characters, expected at most "
            f"{MAX_NAME_CHARACTERS:,}; put the rest into its text"
        )
    for told, text in (("text", document.text), ("title", document.title)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{document.id}: found half a surrogate pair at character {error.start + 1} of "
                f"its {told}, expected Unicode characters; decode it again"
            ) from None


def can_be_held(document: Document, skipped: Skipped) -> bool:
    """Return whether `check_document` lets a file's document pass; count one that it refuses."""
    try:
        check_document(document)
    except CorpusError:
        reason = NOT_READ if document.text.strip() else NO_TEXT
        skipped.add(reason, str(Place(document.id, 1)))
        return False
    return True


def title_of(document: Document) -> str:
    """Return a document's title: its own, its heading, or the last part of its id.

    It is embedded with every passage; '' where that part is a hash or a UUID, which says nothing.
    """
    own = " ".join(document.title.split())
    if not own and document.format == "markdown":
        own = heading_of(document.text)
    return own or _stem(document.id)


def articles_of(document: Document, skipped: Skipped) -> Iterator[tuple[Article, int]]:
    """Yield (article, line of the document that it begins in, from 1).

    A text is one article under the document's own id; a record of JSON lines has its own id, or its
    line, behind the document's.

    Args:
        document: one that `check_document` lets pass.
        skipped: counts what is left out, by reason, with its place.
    """
    reading = Reading(drop_titles=(), on_error="skip", skipped=skipped)
    for found in _read(document, reading):
        if reading.admits(found):
            yield found.article, found.place.line


def read_document(file: TextFile, skipped: Skipped) -> Document | None:
    """Return a file of a folder as a document; None, counted by reason, where it is no text.

    A line of JSON lines that is no UTF-8 is left out, and counted; the others stay in their lines.

    Args:
        file: of `list_files`.
        skipped: counts what is left out.

    Raises:
        WithheldError: the system does not hand it out; it is counted, too.
    """
    read = _records_of if JSONL.search(file.name.lower()) else text_of
    try:
        text = read(file.path, file.name, skipped)
    except WithheldError:
        skipped.add(NOT_READ, str(Place(file.name, 1)))
        raise
    except CorpusError:
        skipped.add(NOT_READ, str(Place(file.name, 1)))
        return None
    return None if text is None else Document(id=file.name, text=text, format=format_of(file.name))


def format_of(name: str) -> DocumentFormat:
    """Return the format that a file's name stands for.

    Raises:
        CorpusError: none that is read.
    """
    if JSONL.search(name.lower()):
        return "jsonl"
    ending = PurePosixPath(name).suffix.lower()
    if ending not in TEXT_FILES:
        raise CorpusError(f"{name} is of no kind that is read; expected .txt, .md or .jsonl")
    return cast("DocumentFormat", "markdown" if ending == ".md" else "text")


def _read(document: Document, reading: Reading) -> Iterator[Found]:
    if document.format != "jsonl":
        article = Article(id=document.id, title=title_of(document), text=document.text)
        yield Found(article, Place(document.id, 1))
        return
    for number, line in read_lines([document.text.encode()], TEXT_LIMIT):
        place = Place(document.id, number)
        if line is None:
            reading.skipped.add(TOO_LONG, str(place))
        elif line.strip() and (article := parse_line(line, place, str(number), reading)):
            own = f"{document.id}/{article.id}"
            yield Found(Article(id=own, title=article.title, text=article.text), place)


def _records_of(path: Path, name: str, skipped: Skipped) -> str | None:
    """Return the text of JSON lines, an empty line where one is no UTF-8."""
    if (data := bytes_of(path, name, skipped)) is None:
        return None
    lines = enumerate(data.split(b"\n"), 1)
    return "\n".join(decoded(line, Place(name, number), skipped) or "" for number, line in lines)


def _stem(document_id: str) -> str:
    name = PurePosixPath(document_id).name
    stem = re.sub(r"\.(txt|md|jsonl)(\.(bz2|gz|zst))?$", "", name, flags=re.IGNORECASE) or name
    return "" if _TELLS_NOTHING.fullmatch(stem) else stem
