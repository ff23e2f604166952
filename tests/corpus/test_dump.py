"""Articles from a Wikipedia dump: which pages are kept, and what is refused."""

import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from realm.corpus import reading
from realm.corpus.articles import read_articles
from realm.corpus.dump import is_disambiguation
from realm.errors import CorpusError
from realm.records import Article, Skipped

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">
  <siteinfo><sitename>Wikipedia</sitename>
    <namespaces><namespace key="6" case="first-letter">File</namespace></namespaces></siteinfo>
"""


def page(number: int, title: str, text: str, *, ns: int = 0, more: str = "") -> str:
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{ns}</ns>
    <id>{number}</id>{more}
    <revision><id>99{number}</id><contributor><username>A</username><id>5</id></contributor>
      <model>wikitext</model><format>text/x-wiki</format>
      <text bytes="9" xml:space="preserve">{escape(text)}</text><sha1>x</sha1></revision>
  </page>
"""


def write(path: Path, *pages: str, end: str = "</mediawiki>\n") -> Path:
    data = (HEAD + "".join(pages) + end).encode()
    path.write_bytes(bz2.compress(data) if path.suffix == ".bz2" else data)
    return path


APRIL = page(1, "April & May", "'''April''' is a <b>month</b> &amp; more.")


@pytest.mark.parametrize("name", ["wiki.xml", "wiki.xml.bz2", "pages-articles1.xml-p1p42.bz2"])
def test_pages_are_articles_in_plain_text(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, APRIL)
    assert list(read_articles([path])) == [
        Article(id="1", title="April & May", text="April is a month & more.")
    ]


def test_what_is_no_article_is_counted_by_reason_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "wiki.xml",
        APRIL,
        page(2, "Talk:April", "Talk.", ns=1),
        page(3, "Apr", "#REDIRECT [[April]]"),
        page(4, "Apr.", "", more='<redirect title="April" />'),
        page(5, "April (disambiguation)", "Text."),
        page(6, "Apr (name)", "Text.\n{{Disambiguation|given name}}"),
        page(7, "List of months", "Text."),
        page(8, "Empty", " "),
        page(9, "Only templates", "{{infobox|name=x}}"),
        page(10, "Code", "x = 1").replace(">wikitext<", ">Scribunto<"),
        page(1, "Again", "Text."),
    )
    skipped = Skipped()
    assert [article.id for article in read_articles([path], skipped=skipped)] == ["1"]
    assert skipped.examples == {
        reading.OTHER_NAMESPACE: ["wiki.xml:12"],
        reading.REDIRECT: ["wiki.xml:20", "wiki.xml:28"],
        reading.DISAMBIGUATION: ["wiki.xml:36", "wiki.xml:44"],
        reading.LIST: ["wiki.xml:53"],
        reading.NO_TEXT: ["wiki.xml:61", "wiki.xml:69"],
        reading.OTHER_MODEL: ["wiki.xml:77"],
        reading.DUPLICATE: ["wiki.xml:85"],
    }


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("{{disambig}}", True),
        ("{{Disambiguation|geo}}", True),
        ("{{ dab }}", True),
        ("{{hndis|Smith}}", True),
        ("{{Airport disambiguation}}", True),
        ("{{human_name disambiguation\n|a}}", True),
        ("April{{Disambiguation needed|date=May}}", False),
        ("{{dablink|x}} {{about|months}}", False),
        ("disambig", False),
    ],
)
def test_disambiguation_pages_are_known_by_their_templates(
    wikitext: str, *, expected: bool
) -> None:
    assert is_disambiguation(wikitext) is expected


def test_a_declared_entity_is_refused(tmp_path: Path) -> None:
    """A billion laughs: nested entities that expand to gigabytes."""
    path = tmp_path / "wiki.xml"
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    path.write_text(f'<!DOCTYPE m [<!ENTITY l0 "ha">{laughs}]><mediawiki>&l9;</mediawiki>')
    with pytest.raises(CorpusError, match=r"wiki.xml:1: found a DOCTYPE, expected none"):
        list(read_articles([path]))


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("", "truncated or damaged"),
        ("<page><title>A</title>", "truncated or damaged"),
        ("</page>", "truncated or damaged"),
        ("&nbsp;</mediawiki>", "truncated or damaged"),
        ("</mediawiki><more>", "truncated or damaged"),
    ],
)
def test_a_damaged_dump_is_refused_with_its_line(tmp_path: Path, end: str, message: str) -> None:
    path = write(tmp_path / "wiki.xml", APRIL, end=end)
    with pytest.raises(CorpusError, match=rf"wiki\.xml:\d+: the XML is {message}"):
        list(read_articles([path]))


@pytest.mark.parametrize("content", ["<html></html>", "no XML", '<?xml encoding="x"?><a/>'])
def test_xml_that_is_no_dump_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wiki.xml"
    path.write_text(content)
    with pytest.raises(CorpusError, match=r"wiki\.xml.*expected .*pages-articles"):
        list(read_articles([path]))


def test_a_page_beyond_the_limit_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.corpus.dump.TEXT_LIMIT", 1_000)
    path = write(tmp_path / "wiki.xml", page(3, "Long", "long " * 1_000), APRIL)
    skipped = Skipped()
    assert [article.id for article in read_articles([path], skipped=skipped)] == ["1"]
    assert skipped.counts == {reading.TOO_LONG: 1}
    with pytest.raises(CorpusError, match="found more than 1,000 characters"):
        list(read_articles([path], on_error="fail"))


def test_of_a_page_with_its_history_the_last_revision_alone_has_a_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.corpus.dump.TEXT_LIMIT", 1_000)
    older = "<revision><model>wikitext</model><text>{}</text></revision>"
    history = "".join(older.format("long " * size) for size in (150, 1_000, 150))
    whole = page(3, "Long", "It is short now.", more=history)
    grown = page(4, "Grown", "long " * 1_000, more=history)
    path = write(tmp_path / "wiki.xml", whole, grown)
    skipped = Skipped()
    assert [article.text for article in read_articles([path], skipped=skipped)] == [
        "It is short now."
    ]
    assert skipped.counts == {reading.TOO_LONG: 1}
