"""Wikitext to plain text."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realm.corpus.wikitext import plain_text

MARKUP = st.lists(
    st.sampled_from(
        ["'''", "''", "[[", "]]", "{{", "}}", "{|", "|}", "|", "\n", " ", "text", "File:a.png",
         "<ref>", "</ref>", "<b>", "</b>", "==", "* ", "(", ")", ",", "[http://a.b ", "]", "&amp;",
         "<!--", "-->", "<nowiki>", "</nowiki>", "__TOC__"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("'''April''' is ''a'' month.", "April is a month."),
        ("A [[month|spring month]] of the [[year]].", "A spring month of the year."),
        ("[[:Category:Months|Months]] stay.", "Months stay."),
        ("Gone.[[Category:Months]][[fr:Avril]][[File:A.jpg|thumb|A [[cat]].]]", "Gone."),
        ("See [http://a.b the site] and [http://c.d].", "See the site and."),
        ("One<ref name=a>{{cite web|x}}</ref> two<ref name=a />.", "One two."),
        ("{{Infobox|a={{b}}}}April (from {{IPA|x}}; {{lang|la|aprilis}})", "April (from; aprilis)"),
        ("Rome ({{IPA|x}}) is old.", "Rome is old."),
        ("Rome ({{IPA|x}}, ; born) is old.", "Rome (born) is old."),
        ("It runs {{convert|5|km|mi}} since {{circa|1900}}.", "It runs 5 km since c. 1900."),
        ("<!-- a\nb -->One &mdash; two&nbsp;x.<br/>Three", "One — two x. Three"),
        ("{|\n! head\n|-\n| cell\n|}\nAfter the table.", "After the table."),
        ("One <math>x^2</math>two <nowiki>[not a link]</nowiki>.", "One two [not a link]."),
        ("One line\nof a paragraph.\n\nThe next.", "One line of a paragraph.\nThe next."),
        ("Months:\n* April\n* May\nAfter.", "Months:\nApril\nMay\nAfter."),
        ("__NOTOC__\nText.", "Text."),
        ("<gallery>\nFile:A.jpg|A\n</gallery>Text.", "Text."),
        ("<blockquote>Quoted.</blockquote>Text.", "Quoted.\nText."),
        ("'''!Kung''' is a language.", "!Kung is a language."),
        ("{{Only|templates}}", ""),
    ],
)  # fmt: skip
def test_markup_becomes_text(wikitext: str, expected: str) -> None:
    assert plain_text(wikitext) == expected


def test_headings_and_sections_of_links_are_dropped() -> None:
    wikitext = (
        "Lead.\n== History ==\nOld.\n=== See also ===\n* [[May]]\n==== Deeper ====\nGone.\n"
        "=== Today ===\nNew.\n== ''References'' ==\n{{reflist}}\n* A book.\n=== Notes ===\nGone.\n"
        "== Legacy ==\nKept.\n==External links==\n* [http://a.b Site]"
    )
    assert plain_text(wikitext) == "Lead.\nOld.\nNew.\nKept."


@pytest.mark.parametrize(
    "wikitext",
    ["One {{never|closed two.\n\nThree.", "One {| two\n| cell\n\nThree.",
     "One [[File:a.jpg|thumb|never [[closed]]\n\nThree."],
)  # fmt: skip
def test_markup_that_is_never_closed_takes_its_line_only(wikitext: str) -> None:
    text = plain_text(wikitext)
    assert text is not None
    assert text.endswith("Three.")
    assert not re.search(r"[|{}\[\]]", text)


@pytest.mark.parametrize("markup", ["{{a|", "<ref>", "<b x=a>", "}}{{ {{", "[[a|", "<!--"])
def test_a_page_that_would_take_minutes_is_unreadable(markup: str) -> None:
    assert plain_text(markup * 20_000) is None
    closed = "{{a}} <ref>b</ref> <ref name=c /> [[File:d]] <!-- e --> <br> "
    assert plain_text(closed * 300 + "Text.") == "Text."


@pytest.mark.parametrize("left", [", ", "(()) ", "\n", "(;", "\u3000" * 4])
def test_long_runs_of_leftovers_take_linear_time(left: str) -> None:
    started = time.monotonic()
    assert plain_text(left * 15_000 + "Text.") is not None
    assert time.monotonic() - started < 10  # quadratic: 30 s and more


@given(MARKUP)
def test_no_markup_is_left(wikitext: str) -> None:
    text = plain_text(wikitext)
    assert text is not None
    assert not re.search(r"''|\[\[|\]\]|\{\{|\}\}|\(\s*\)|<ref|<b>|\n\n|  ", text)
    assert all(line == line.strip() != "" for line in text.splitlines())
