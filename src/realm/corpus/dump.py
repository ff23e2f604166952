"""Wikipedia's pages-articles dump -> articles in wikitext, in flat memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from realm.corpus.reading import (
    DISAMBIGUATION,
    NO_TEXT,
    OTHER_MODEL,
    OTHER_NAMESPACE,
    REDIRECT,
    TEXT_LIMIT,
    TOO_LONG,
    Found,
    Place,
    Reading,
)
from realm.corpus.streams import read_blocks
from realm.errors import CorpusError
from realm.records import Article

FIELDS = {"title", "ns", "id", "redirect", "revision/model", "revision/text"}
"""Elements of a page that say something, by their path in it."""
MAX_DEPTH = 2
"""Of those."""
REDIRECTION = re.compile(r"\s*#redirect", re.IGNORECASE)
TEMPLATE = re.compile(r"\{\{([^{}|<>\[\]#]{1,80})")
DISAMBIGUATIONS = {
    "dab", "hndis", "hndab", "geodis", "mil-unit-dis", "mathdab", "schooldis", "school disambig",
    "roaddis", "roadis", "hospitaldis", "numberdis", "letterdis", "callsigndis", "tndis",
    "wp disambig", "project disambiguation", "disamb", "disam",
}  # fmt: skip
"""Templates that mark a disambiguation page, beside all that start or end with the word."""

DEEPEST = 100
"""A dump's elements stand in at most five others."""


def read_dump(path: Path, reading: Reading) -> Iterator[Found]:
    """Yield the articles of a dump as wikitext; what is no article is counted by reason.

    Raises:
        CorpusError: the file is truncated, no dump, or declares entities.
    """
    parser = _Parser(path)
    for block in read_blocks(path):
        for page in parser.feed(block):
            if found := _to_found(page, path, reading):
                yield found
    parser.close()


@dataclass(slots=True, kw_only=True)
class _Page:
    line: int
    fields: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    size: int = 0
    """Characters of all fields."""
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    is_redirect: bool = False

    def begin(self, name: str) -> None:
        """Forget what an earlier element of this name held: of several revisions the last stays."""
        self.size -= self.sizes.get(name, 0)
        self.sizes[name] = 0
        self.fields[name] = []

    def add(self, name: str, text: str) -> None:
        """Take more of a field, as long as the page is no longer than a text may be."""
        self.size += len(text)
        self.sizes[name] += len(text)
        if self.size <= TEXT_LIMIT:
            self.fields[name].append(text)

    def get(self, name: str) -> str:
        return "".join(self.fields.get(name, ()))


def _to_found(page: _Page, path: Path, reading: Reading) -> Found | None:
    place = Place(path.name, page.line)
    text = page.get("revision/text")
    reason = _reason(page, text)
    if reason == TOO_LONG:
        told = f"more than {TEXT_LIMIT:,} characters"
        reading.malformed(reason, place, found=told, expected="one article")
        return None
    if reason:
        reading.skipped.add(reason, str(place))
        return None
    page_id = page.get("id").strip() or f"{path.name.partition('.')[0]}-{page.line}"
    article = Article(id=page_id, title=page.get("title").strip(), text=text)
    return Found(article, place, is_wikitext=True)


def _reason(page: _Page, text: str) -> str:
    """Return why a page is left out, or ''."""
    if page.get("ns").strip() not in {"", "0"}:
        return OTHER_NAMESPACE
    if page.is_redirect or REDIRECTION.match(text):
        return REDIRECT
    if page.get("revision/model").strip() not in {"", "wikitext"}:
        return OTHER_MODEL
    if page.size > TEXT_LIMIT:
        return TOO_LONG
    if not text.strip():
        return NO_TEXT
    return DISAMBIGUATION if is_disambiguation(text) else ""


def is_disambiguation(wikitext: str) -> bool:
    """Return whether a template marks the page as a list of meanings."""
    names = (found[1].strip().lower().replace("_", " ") for found in TEMPLATE.finditer(wikitext))
    return any(
        name in DISAMBIGUATIONS
        or name.endswith((" disambiguation", " disambig"))
        or (name.startswith("disambig") and "needed" not in name)
        for name in names
    )


class _Parser:
    """Feeds on blocks of XML and hands out finished pages, keeping only the one it is in."""

    def __init__(self, path: Path) -> None:
        self._file = path
        self._path: list[str] = []
        self._page: _Page | None = None
        self._field: str = ""
        self._finished: list[_Page] = []
        self._num_fed = 0
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartDoctypeDeclHandler = self._refuse_doctype
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters

    def feed(self, block: bytes) -> list[_Page]:
        """Return the pages that end in this block."""
        self._parse(block, is_last=False)
        self._num_fed += len(block)
        if self._num_fed - self._expat.CurrentByteIndex > 2 * TEXT_LIMIT:
            raise self._no_dump(f"found a tag of more than {2 * TEXT_LIMIT >> 20} MiB")
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Check that the dump is whole."""
        self._parse(b"", is_last=True)

    def _parse(self, block: bytes, *, is_last: bool) -> None:
        try:
            self._expat.Parse(block, is_last)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise CorpusError(
                f"{self._file}:{self._expat.CurrentLineNumber}: the XML is truncated or damaged "
                f"({error}); expected a whole pages-articles dump. Fetch it again"
            ) from None

    def _refuse_doctype(self, *_: object) -> None:
        raise CorpusError(
            f"{self._file}:{self._expat.CurrentLineNumber}: found a DOCTYPE, expected none: "
            "Wikipedia's dumps have none, and entities can blow up; remove it"
        )

    def _no_dump(self, found: str) -> CorpusError:
        return CorpusError(
            f"{self._file}:{self._expat.CurrentLineNumber}: {found}, expected a Wikipedia "
            "pages-articles dump, which has none"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        if not self._path and name != "mediawiki":
            raise CorpusError(
                f"{self._file}: found <{name}>, expected <mediawiki>: a Wikipedia pages-articles "
                "dump"
            )
        self._path.append(name)
        if len(self._path) > DEEPEST:
            raise self._no_dump(f"found elements in {len(self._path)} others")
        if name == "page" and len(self._path) == 2:
            self._page = _Page(line=self._expat.CurrentLineNumber)
        elif self._page is not None:
            self._field = self._field_here()
            self._page.is_redirect |= self._field == "redirect"
            if self._field:
                self._page.begin(self._field)

    def _characters(self, text: str) -> None:
        if self._page is not None and self._field:
            self._page.add(self._field, text)

    def _end(self, name: str) -> None:
        self._path.pop()
        self._field = self._field_here()
        if name == "page" and len(self._path) == 1 and self._page is not None:
            self._finished.append(self._page)
            self._page = None

    def _field_here(self) -> str:
        """Return the field of a page that the parser is in, or ''.

        Looked up at a bounded depth: elements in elements without end cost no more than their own
        bytes.
        """
        if len(self._path) > 2 + MAX_DEPTH:
            return ""
        field = "/".join(self._path[2:])
        return field if field in FIELDS else ""
