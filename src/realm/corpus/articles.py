"""Files of articles -> Article records: JSONL, text folders, Parquet and Wikipedia dumps."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from realm.config import SplitConfig
from realm.corpus.dump import read_dump
from realm.corpus.parquet import read_parquet
from realm.corpus.reading import (
    BAD_JSON,
    BAD_NAME,
    BAD_TYPE,
    BAD_UTF8,
    MAX_NAME_CHARACTERS,
    NO_TEXT,
    NOWHERE,
    OTHER_FILE,
    OUTSIDE,
    TEXT_LIMIT,
    TOO_LONG,
    UNPARSED,
    Found,
    OnError,
    Place,
    Reading,
    leads_out,
    shown,
    to_record,
    written_name,
)
from realm.corpus.streams import read_blocks, read_lines
from realm.errors import CorpusError
from realm.records import Article, Skipped
from realm.storage import files_below

READ = (
    "JSON lines with id, title and text (.jsonl, also .gz, .bz2 or .zst), Parquet with the same "
    "columns (.parquet), a Wikipedia pages-articles dump (.xml or .xml.bz2), a .txt or .md file, "
    "or a folder of .txt and .md files"
)
TEXT_FILES = {".txt", ".md"}
DUMP = re.compile(r"\.xml(-p[^.]*)?(\.(bz2|gz|zst))?$")
"""Dumps of many parts are named pages-articles1.xml-p1p41242.bz2."""
JSONL = re.compile(r"\.jsonl(\.(bz2|gz|zst))?$")
HEADING = re.compile(r"#{1,6}[ \t]+([^ \t].*)")
"""Behind the heading may stand # again, see `_heading_in`; a pattern for both takes minutes for a
line of many spaces."""


def read_articles(
    inputs: Sequence[Path],
    *,
    drop_titles: Sequence[str] | None = None,
    on_error: OnError = "skip",
    skipped: Skipped | None = None,
) -> Iterator[Article]:
    """Yield the articles of any mix of files and folders, one at a time.

    Args:
        inputs: Files and folders of the kinds in `READ`.
        drop_titles: Articles whose title starts so are left out (default: SplitConfig's).
        on_error: What to do with a malformed record: count it, or raise at the first.
        skipped: Counts everything left out by reason, with places `file:line`.

    Raises:
        CorpusError: an input is missing, truncated or of no kind that is read; a malformed
            record with `on_error` "fail"; no article at all.
    """
    skipped = Skipped() if skipped is None else skipped
    num_articles = 0
    for found in find_articles(inputs, drop_titles=drop_titles, on_error=on_error, skipped=skipped):
        if article := to_article(found, skipped, on_error):
            num_articles += 1
            yield article
    if not num_articles:
        raise CorpusError(no_articles(inputs, skipped))


def find_articles(
    inputs: Sequence[Path],
    *,
    drop_titles: Sequence[str] | None = None,
    on_error: OnError = "skip",
    skipped: Skipped,
) -> Iterator[Found]:
    """Yield articles as `read_articles` does, wikitext not yet turned into text."""
    if drop_titles is None:
        drop_titles = cast("tuple[str, ...]", SplitConfig.model_fields["drop_titles"].default)
    reading = Reading(drop_titles=drop_titles, on_error=on_error, skipped=skipped)
    for path in inputs:
        check_input(path)
    for path in inputs:
        yield from filter(reading.admits, _read_input(path, reading))


def to_article(found: Found, skipped: Skipped, on_error: OnError) -> Article | None:
    """Return an article with plain text; None, counted, when its wikitext holds no text.

    Raises:
        CorpusError: its wikitext cannot be parsed, and `on_error` is "fail".
    """
    if not found.is_wikitext:
        return found.article
    from realm.corpus.wikitext import plain_text

    text = plain_text(found.article.text)
    if text is None:
        Reading(drop_titles=(), on_error=on_error, skipped=skipped).malformed(
            UNPARSED,
            found.place,
            found=f"marks that are never closed in {found.article.title[:80]!r}",
            expected="templates, links and tags with their ends",
        )
        return None
    if not text:
        skipped.add(NO_TEXT, str(found.place))
        return None
    return Article(id=found.article.id, title=found.article.title, text=text)


def check_input(path: Path) -> None:
    """Refuse an input that cannot be read.

    Raises:
        CorpusError: it is missing, of another kind, or a folder without text files.
    """
    if path.is_dir():
        if not any(file.suffix.lower() in TEXT_FILES for file in _files(path)):
            raise CorpusError(
                f"{path} holds no .txt or .md file; expected {READ}. "
                "Name other files of a folder one by one"
            )
    elif not path.is_file():
        raise CorpusError(f"found no {written_name(str(path))}; expected {READ}")
    elif _kind(path) == "":
        raise CorpusError(f"{path} is of no kind that is read; expected {READ}")
    else:
        check_name(path)


def check_name(path: Path) -> None:
    """Refuse a file whose name cannot be written as text, so that nothing could refer to it.

    Raises:
        CorpusError: its name is not UTF-8.
    """
    if (written := written_name(path.name)) != path.name:
        raise CorpusError(f"found the file name {written}, expected UTF-8; rename the file")


def no_articles(inputs: Sequence[Path], skipped: Skipped) -> str:
    """Return the message for a corpus in which nothing was found."""
    names = ", ".join(path.name for path in inputs) or "no input"
    told = ", ".join(f"{count:,} {reason}" for reason, count in skipped.counts.items())
    return f"found no article in {names} (left out: {told or 'nothing'}); expected {READ}"


def _kind(path: Path) -> str:
    name = path.name.lower()
    if JSONL.search(name):
        return "jsonl"
    if DUMP.search(name):
        return "dump"
    if name.endswith(".parquet"):
        return "parquet"
    return "text" if path.suffix.lower() in TEXT_FILES else ""


def _read_input(path: Path, reading: Reading) -> Iterator[Found]:
    if path.is_dir():
        yield from _read_folder(path, reading)
        return
    match _kind(path):
        case "jsonl":
            yield from _read_jsonl(path, reading)
        case "parquet":
            yield from read_parquet(path, reading.own_name(path, _stem(path)), reading)
        case "dump":
            yield from read_dump(path, reading)
        case _:
            yield from _read_text(path, path.name, reading)


def _read_jsonl(path: Path, reading: Reading) -> Iterator[Found]:
    stem = reading.own_name(path, _stem(path))
    for number, line in read_lines(read_blocks(path), TEXT_LIMIT):
        place = Place(path.name, number)
        if line is None:
            reading.malformed(
                TOO_LONG, place, found=f"more than {TEXT_LIMIT:,} bytes", expected="one article"
            )
        elif line.strip() and (article := parse_line(line, place, f"{stem}-{number}", reading)):
            yield Found(article, place)


def parse_line(line: bytes, place: Place, default_id: str, reading: Reading) -> Article | None:
    """Return the article in a line of JSON, or None (counted)."""
    expected = 'one object such as {"id": "1", "title": "April", "text": "April is ..."}'
    try:
        value: object = json.loads(line.decode())
    except UnicodeDecodeError as error:
        found = f"byte {line[error.start]:#04x} at column {error.start + 1}"
        reading.malformed(BAD_UTF8, place, found=found, expected="UTF-8 text")
        return None
    except (ValueError, RecursionError) as error:
        reading.malformed(BAD_JSON, place, found=f"{shown(line)} ({error})", expected=expected)
        return None
    if not isinstance(value, dict):
        reading.malformed(BAD_TYPE, place, found=shown(value), expected=expected)
        return None
    return to_record(cast("dict[str, Any]", value), place, default_id, reading)


def _read_folder(folder: Path, reading: Reading) -> Iterator[Found]:
    found = [*_files(folder), *_lost_links(folder)]
    for file in sorted(found, key=lambda file: file.relative_to(folder).as_posix()):
        name = file.relative_to(folder).as_posix()
        if (written := written_name(name)) != name:
            found, expected = f"the name {written}", "one in UTF-8"
            reading.malformed(BAD_NAME, Place(written, 1), found=found, expected=expected)
        elif leads_out(file, folder):
            reading.skipped.add(OUTSIDE, str(Place(name, 1)))
        elif _leads_nowhere(file):
            reading.skipped.add(NOWHERE, str(Place(name, 1)))
        elif file.suffix.lower() in TEXT_FILES:
            yield from _read_text(file, name, reading)
        else:
            reading.skipped.add(OTHER_FILE, str(Place(name, 1)))


def _read_text(path: Path, name: str, reading: Reading) -> Iterator[Found]:
    parts: list[bytes] = []
    for block in read_blocks(path):
        parts.append(block)
        if sum(map(len, parts)) > TEXT_LIMIT:
            reading.malformed(
                TOO_LONG,
                Place(name, 1),
                found=f"more than {TEXT_LIMIT:,} bytes",
                expected="one article",
            )
            return
    data = b"".join(parts)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(name, data.count(b"\n", 0, error.start) + 1)
        found = f"byte {data[error.start]:#04x}"
        reading.malformed(BAD_UTF8, place, found=found, expected="UTF-8 text")
        return
    title = heading_of(text) if path.suffix.lower() == ".md" else ""
    own = reading.own_name(path, name)
    yield Found(Article(id=own, title=title or path.stem, text=text), Place(name, 1))


def heading_of(text: str) -> str:
    """Return the first markdown heading outside fenced code, or ''."""
    is_code = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        elif not is_code and (heading := _heading_in(line)):
            return heading
    return ""


def _heading_in(line: str) -> str:
    """Return the heading that a line of markdown is, without # at its end; '' for none.

    A line longer than any title is the text itself, its line breaks lost.
    """
    found = HEADING.match(line)
    if not found:
        return ""
    text = found[1].rstrip()
    before = text.rstrip("#")
    is_closed = not before or before[-1] in " \t"
    heading = (before if is_closed else text).strip()
    return heading if len(heading) <= MAX_NAME_CHARACTERS else ""


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder and its subfolders, hidden ones aside, in order of names.

    Raises:
        CorpusError: one of the folders cannot be listed.
    """
    try:
        found = {path.relative_to(folder): path for path in files_below(folder)}
    except OSError as error:
        raise CorpusError(
            f"cannot list {error.filename}: {error.strerror}; mend its permissions or its disk"
        ) from None
    return [
        found[name]
        for name in sorted(found, key=Path.as_posix)
        if not any(part.startswith(".") for part in name.parts)
    ]


def _lost_links(folder: Path) -> list[Path]:
    """Return the links to folders elsewhere and to nothing, hidden ones aside.

    No link to a folder is followed; those to files elsewhere are among the files.
    """
    found: list[Path] = []
    for where, folders, files in os.walk(folder):
        links = [path for name in folders if _is_link(path := Path(where, name))]
        found += (path for path in links if leads_out(path, folder))
        found += (path for name in files if _leads_nowhere(path := Path(where, name)))
    return [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _leads_nowhere(path: Path) -> bool:
    """Return whether a path is a link to nothing, or round in a circle."""
    return _is_link(path) and not path.exists()


def _is_link(path: Path) -> bool:
    """Return whether a path is a link; no where the system does not tell."""
    return os.path.islink(path)  # noqa: PTH114 - Path's own raises there


def _stem(path: Path) -> str:
    return re.sub(r"\.(jsonl|parquet)(\.(bz2|gz|zst))?$", "", path.name, flags=re.IGNORECASE)
