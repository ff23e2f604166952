"""Wikitext -> plain text: the sentences of a page, without its furniture."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import html
import re
from collections.abc import Iterable, Iterator, Sequence

import mwparserfromhell as mw
from mwparserfromhell.nodes import (
    ExternalLink,
    Heading,
    HTMLEntity,
    Node,
    Tag,
    Template,
    Text,
    Wikilink,
)
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

DROPPED_SECTIONS = {
    "see also", "references", "external links", "further reading", "notes", "footnotes",
    "notes and references", "references and notes", "citations", "sources", "bibliography",
    "works cited", "other websites", "related pages", "gallery", "explanatory notes",
    "general references", "primary sources", "secondary sources", "notes and citations",
}  # fmt: skip
"""Lists of links and books: no sentences in them."""
DROPPED_TAGS = {
    "ref", "references", "gallery", "math", "chem", "ce", "score", "timeline", "table", "imagemap",
    "syntaxhighlight", "source", "hiero", "graph", "mapframe", "maplink", "templatestyles", "style",
    "inputbox", "categorytree", "dynamicpagelist", "section", "noinclude", "includeonly", "hr",
    "indicator", "templatedata",
}  # fmt: skip
DROPPED_NAMESPACES = {"file", "image", "category", "media"}
"""Links there show a picture or nothing."""
TEXT_TEMPLATES = {
    "lang": 1, "transl": -1, "transliteration": -1, "nowrap": 0, "nobr": 0, "nobreak": 0,
    "small": 0, "smallcaps": 0, "sc": 0, "abbr": 0, "tooltip": 0, "em": 0, "strong": 0, "as of": 0,
    "c.": 0, "circa": 0, "okina": None, "'": None, "snd": None, "spaced ndash": None, "ndash": None,
}  # fmt: skip
"""Templates in the middle of sentences -> which argument they show (None: see `CHARACTERS`)."""
CHARACTERS = {"okina": "'", "'": "'", "snd": " - ", "spaced ndash": " - ", "ndash": "-"}
LINE = "\x02"
"""Marks a list item while the text is put together (no XML holds this character)."""

MAX_UNCLOSED = 200
"""The parser takes minutes for thousands of templates, links or tags that are never closed."""
MARKS = (
    re.compile(r"(?P<open>\{\{)|\}\}"),
    re.compile(r"(?P<open>\[)|\]"),
    re.compile(r"(?P<open><!--)|-->"),
    re.compile(
        r"</[a-z]|<(?!(?:br|wbr|hr|img|li|d[dt]|t[hdr]|p|meta|link)\b)(?P<open>[a-z])(?![^<>]*/>)",
        re.IGNORECASE,
    ),
)
"""Opening and closing marks of templates, links, comments, and tags that need a closing one."""
LANGUAGE_LINK = re.compile(r"(?:[a-z]{2,3}|simple|zh-[a-z-]+|be-[a-z-]+|roa-rup|map-bms):\S")
MAGIC_WORD = re.compile(r"__[A-Z]+__")
EMPTY_BRACKETS = re.compile(r"[(\[（][\s,;:.–—/-]*[)\]）]")  # noqa: RUF001 (CJK brackets)
OPENING_LEFTOVER = re.compile(r"([(（])(?:\s*[,;:]){1,20}\s*")  # noqa: RUF001
CLOSING_LEFTOVER = re.compile(r"(?<!\s)(?:\s*[,;:]){1,20}\s*([)）])")  # noqa: RUF001
BROKEN_MARKUP = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|'{2,}|</?[a-zA-Z][^<>\n]{0,200}>")
UNCLOSED = re.compile(
    r"^[ \t]*(?:\||\{\||![^\n]*(?:\||!!)).*$"
    r"|\{\{[^{}\n]*(?:\}\}?)?"
    r"|\[\[(?:File|Image|Category):[^\[\]\n]*\]{0,2}",
    re.MULTILINE | re.IGNORECASE,
)
"""Tables, templates and pictures that the page forgot to close: dropped to the end of the line."""
COMMAS = re.compile(r",(?:\s*,)+")
SPACE_BEFORE = re.compile(r"[ \t]+([,;:.!?)）](?:\s|$))")  # noqa: RUF001
MAX_NESTING = 3
"""Brackets inside brackets that dropped templates leave empty."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Half characters, which an entity can name (&#xD800;) and no file can hold."""
BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
SPACES = re.compile(r"[ \t\u00a0\u2009\u200a\u202f]+")


def plain_text(wikitext: str) -> str | None:
    """Return the running text of a page, one paragraph or list item a line; None if unreadable.

    Templates, tables, references, pictures, categories, comments and formulas are dropped, as are
    sections of links and books. Headings are dropped too: a heading is no sentence, and would
    become a query of its own in the inverse cloze task.
    """
    if sum(_num_unclosed(wikitext, marks) for marks in MARKS) > MAX_UNCLOSED:
        return None
    try:
        code = mw.parse(wikitext)
    except ParserError:
        return None
    return _tidy("".join(_show_sections(code.nodes)))


def _num_unclosed(wikitext: str, marks: re.Pattern[str]) -> int:
    """Return how many opening marks have no closing one."""
    depth = 0
    for mark in marks.finditer(wikitext):
        if mark["open"] is not None:
            depth += 1
        elif depth:
            depth -= 1
    return depth


def _show_sections(nodes: Iterable[Node]) -> Iterator[str]:
    dropped_level = 0
    for node in nodes:
        if isinstance(node, Heading):
            if dropped_level and node.level > dropped_level:
                continue
            name = _tidy("".join(_show_all(node.title.nodes))).casefold().strip(" :.")
            dropped_level = node.level if name in DROPPED_SECTIONS else 0
            yield "\n\n"
        elif not dropped_level:
            yield from _show(node)


def _show_all(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        yield from _show(node)


def _show_code(code: Wikicode | None) -> Iterator[str]:
    return _show_all(code.nodes if code is not None else ())


def _show(node: Node) -> Iterator[str]:
    """Yield what a reader of the page sees of a node."""
    match node:
        case Text():
            yield node.value
        case Wikilink():
            yield from _show_link(node)
        case ExternalLink():
            yield from _show_code(node.title)
        case HTMLEntity():
            yield SURROGATES.sub("\ufffd", node.normalize() or "")
        case Template():
            yield from _show_template(node)
        case Tag():
            yield from _show_tag(node)
        case Heading():  # inside a tag
            yield "\n\n"
        case _:
            pass  # comments and arguments


def _show_link(link: Wikilink) -> Iterator[str]:
    title = str(link.title).strip()
    namespace = title.partition(":")[0].strip().casefold()
    if namespace in DROPPED_NAMESPACES or (link.text is None and LANGUAGE_LINK.match(title)):
        return
    if link.text is not None:
        yield from _show_code(link.text)
    else:
        yield from _show_code(mw.parse(title.removeprefix(":")) if "{{" in title else None)
        if "{{" not in title:
            yield html.unescape(title.removeprefix(":").replace("_", " "))


def _show_template(template: Template) -> Iterator[str]:
    name = str(template.name).strip().casefold().replace("_", " ")
    arguments = [p.value for p in template.params if not p.showkey]
    if name in {"convert", "cvt"} and len(arguments) > 1:
        yield f"{str(arguments[0]).strip()} {str(arguments[1]).strip()}"
        return
    if name in CHARACTERS:
        yield CHARACTERS[name]
        return
    at = 0 if name.startswith("lang-") else TEXT_TEMPLATES.get(name)
    if at is not None and len(arguments) > at:
        if name in {"c.", "circa"}:
            yield "c. "
        yield from _show_code(arguments[at])


def _show_tag(tag: Tag) -> Iterator[str]:
    name = str(tag.tag).strip().casefold()
    if name in DROPPED_TAGS:
        return
    if name in {"li", "dt", "dd"}:
        yield f"\n{LINE}"
    elif name == "br":
        yield " "
    elif name in {"p", "div", "blockquote", "center", "poem", "ul", "ol", "dl"}:
        yield "\n\n"
        yield from _show_code(tag.contents)
        yield "\n\n"
        return
    if not tag.self_closing:
        yield from _show_code(tag.contents)


def _tidy(text: str) -> str:
    """Return the text with paragraphs as lines, and nothing left of what was dropped."""
    text = UNCLOSED.sub("", MAGIC_WORD.sub("", BLANK_LINES.sub("\n\n", SPACES.sub(" ", text))))
    text = BLANK_LINES.sub("\n\n", SPACES.sub(" ", BROKEN_MARKUP.sub("", text)))
    for _ in range(MAX_NESTING):
        text = SPACES.sub(" ", EMPTY_BRACKETS.sub("", text))
    text = CLOSING_LEFTOVER.sub(r"\1", OPENING_LEFTOVER.sub(r"\1", text))
    text = SPACE_BEFORE.sub(r"\1", COMMAS.sub(",", text))
    text = text.replace("( ", "(").replace(" )", ")")
    return "\n".join(_paragraphs(text.split("\n")))


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    """Yield paragraphs: lines up to a blank one, and list items by themselves."""
    paragraph: list[str] = []
    for line in [*lines, ""]:
        stripped = SPACES.sub(" ", line.replace(LINE, "")).strip()
        if (not stripped or LINE in line) and paragraph:
            yield " ".join(paragraph)
            paragraph = []
        if stripped and any(character.isalnum() for character in stripped):
            if LINE in line:
                yield stripped
            else:
                paragraph.append(stripped)
