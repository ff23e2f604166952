"""What every reader of articles shares: places, reasons, and what to do with a bad record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from realm.errors import CorpusError
from realm.records import Article, Skipped

OnError = Literal["skip", "fail"]
TEXT_LIMIT = 64 << 20
"""Longest line, file or page in bytes; longer ones are no articles."""
MAX_NAME_CHARACTERS = 5_000
"""Of an article's id and of its title. Every passage repeats them: a text whose only line is taken
for its heading would become hundreds of times as long."""
NUM_PLACES = 10_000
"""Places listed in skipped.jsonl for each reason; the counts go on."""

BAD_JSON = "bad JSON"
BAD_NAME = "file name that is not UTF-8"
BAD_TYPE = "wrong type"
BAD_UTF8 = "invalid UTF-8"
BINARY = "no text (holds zero bytes)"
DISAMBIGUATION = "disambiguation page"
DUPLICATE = "duplicate id"
LIST = "list or index page"
LONG_NAME = f"id or title longer than {MAX_NAME_CHARACTERS:,} characters"
NO_TEXT = "no text"
NOT_READ = "cannot be read"
OTHER_FILE = "not a .txt or .md file"
OTHER_IN_FOLDER = "not a .txt, .md or .jsonl file"
OUTSIDE = "link that leads out of the folder"
NOWHERE = "link that leads nowhere"
OTHER_MODEL = "page is not wikitext"
OTHER_NAMESPACE = "page is no article"
REDIRECT = "redirect"
TAKEN = "name of a file in another watched folder"
TOO_LONG = f"longer than {TEXT_LIMIT >> 20} MiB"
TOO_SHORT = "passage shorter than min_wordpieces"
UNPARSED = "wikitext that cannot be parsed"
WHOLE_FILES = {BAD_NAME, BINARY, NOT_READ, NOWHERE, OTHER_FILE, OTHER_IN_FOLDER, OUTSIDE, TAKEN}
"""Reasons that are those of a file: the line of its place, 1, tells nothing."""


class Place(NamedTuple):
    """Where a record stands: the file's name (not its folder) and a number counted from 1."""

    file: str
    line: int
    """Line of a text file or dump, row of a Parquet file."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Found(NamedTuple):
    """An article as its file has it."""

    article: Article
    place: Place
    is_wikitext: bool = False
    """`article.text` is markup still."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """One pass over the inputs: counts what is left out, or stops at it."""

    drop_titles: Sequence[str]
    on_error: OnError
    skipped: Skipped
    _ids: set[str] = field(default_factory=set[str])
    _files: dict[str, Path] = field(default_factory=dict[str, Path])

    def own_name(self, file: Path, name: str) -> str:
        """Return a name for the ids of a file's articles, which that of no other file is.

        Of two files data.jsonl in different folders the second one's is "data (2)"; a file that is
        read twice has the same both times.

        Args:
            file: where it lies.
            name: what it is called, or its path in the folder that was named.
        """
        names = (name if number == 1 else f"{name} ({number})" for number in count(1))
        return next(own for own in names if self._is_of(own, file))

    def _is_of(self, own: str, file: Path) -> bool:
        other = self._files.setdefault(own, file)
        return other is file or other.samefile(file)

    def malformed(self, reason: str, place: Place, *, found: str, expected: str) -> None:
        """Count a record that cannot be used.

        Raises:
            CorpusError: `on_error` is "fail".
        """
        if self.on_error == "fail":
            raise CorpusError(
                f"{place}: {reason}: found {found}, expected {expected}; "
                "mend it, or pass --on-error skip to leave such records out"
            )
        self.skipped.add(reason, str(place))

    def admits(self, found: Found) -> bool:
        """Return whether an article is used, counting it by reason if not."""
        article, place, _ = found
        if not article.text.strip():
            self.malformed(NO_TEXT, place, found="a blank text", expected="some text")
        elif not _is_unicode(article):
            self.malformed(
                BAD_UTF8, place, found="half a surrogate pair", expected="Unicode characters"
            )
        elif (longest := max(len(article.id), len(article.title))) > MAX_NAME_CHARACTERS:
            expected = f"at most {MAX_NAME_CHARACTERS:,}"
            self.malformed(LONG_NAME, place, found=f"{longest:,} characters", expected=expected)
        elif reason := dropped_by_title(article.title, self.drop_titles):
            self.skipped.add(reason, str(place))
        elif article.id in self._ids:
            self.malformed(
                DUPLICATE, place, found=f"id {article.id!r} again", expected="each id once"
            )
        else:
            self._ids.add(article.id)
            return True
        return False


def leads_out(file: Path, folder: Path) -> bool:
    """Return whether a file of a folder is a link to something that the user has not named."""
    if not file.is_symlink():
        return False
    try:
        return not file.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # to nothing, or round in a circle: it is no file
        return False


def dropped_by_title(title: str, drop_titles: Sequence[str]) -> str:
    """Return the reason why an article of this title is left out, or ''."""
    if "(disambiguation)" in title.lower():
        return DISAMBIGUATION
    return LIST if title.startswith(tuple(drop_titles)) else ""


def to_record(
    fields: dict[str, Any], place: Place, default_id: str, reading: Reading
) -> Article | None:
    """Return the article in an object with id, title and text, or None (counted)."""
    article_id, title, text = fields.get("id"), fields.get("title"), fields.get("text")
    if text is None:
        reading.malformed(
            NO_TEXT, place, found=f"the fields {sorted(fields)}", expected="a string in 'text'"
        )
        return None
    if type(article_id) is int:
        article_id = str(article_id)
    for name, value in (("id", article_id), ("title", title), ("text", text)):
        if value is not None and not isinstance(value, str):
            found = f"{shown(value)} in {name!r}"
            reading.malformed(BAD_TYPE, place, found=found, expected="a string")
            return None
    blank_id = not str(article_id or "").strip()
    return Article(
        id=default_id if blank_id else str(article_id),
        title=" ".join((title or "").split()),
        text=text,
    )


def shown(value: object) -> str:
    """Return a value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def written_name(name: str) -> str:
    r"""Return a file's name as it can be written: a byte that is no UTF-8 as `\udcff`."""
    return name.encode(errors="backslashreplace").decode()


def _is_unicode(article: Article) -> bool:
    try:
        f"{article.id}{article.title}{article.text}".encode()
    except UnicodeEncodeError:
        return False
    return True
