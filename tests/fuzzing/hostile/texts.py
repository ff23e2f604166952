"""Targets that read texts: JSON lines, dumps, markup, settings."""

import bz2
import gzip
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import zstandard

from hostile.scratch import chosen, from_file, scratch
from hostile.target import Target
from hostile.world import tokenizer
from realm.config import (
    EvaluateConfig,
    FinetuneConfig,
    IndexConfig,
    MaskConfig,
    PretrainConfig,
    SplitConfig,
    load_config,
)
from realm.corpus.articles import read_articles
from realm.corpus.documents import articles_of, check_document, read_document
from realm.corpus.folder import TextFile
from realm.corpus.passages import split_articles
from realm.corpus.wikitext import plain_text
from realm.errors import RealmError
from realm.evaluation.claims import read_claims
from realm.evaluation.questions import read_questions
from realm.evaluation.table3 import read_sentences
from realm.masking.pretagged import PretaggedTagger
from realm.records import Article, Document, Passage, Skipped
from realm.study.settings import StudySettings

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst", ".xml.gz", ".xml.bz2", ".md", ".txt")
SETTINGS: tuple[tuple[str, type[Any]], ...] = (
    ("split", SplitConfig),
    ("mask", MaskConfig),
    ("index", IndexConfig),
    ("pretrain", PretrainConfig),
    ("finetune", FinetuneConfig),
    ("evaluate", EvaluateConfig),
)
ARTICLES = (
    '{"id": "1", "title": "April", "text": "April is the fourth month. It was born in 1582."}\n'
    '{"id": 2, "text": "e\\u0301 \\ud83d\\ude00 \u65e5\u672c\u8a9e", "more": [1.5, null]}\n'
    "\n"
    '{"text": "third"}\n'
).encode()
QUESTIONS = (
    b'{"id": "q1", "question": "When was April born?", "answers": ["1582"], "passage_id": "1#0"}\n'
    b'{"question": "Where?", "answer": "here", "answer_patterns": ["he(re)+", "^x$"]}\n'
)
CLAIMS = (
    b'{"id": 7, "claim": "April is a month.", "label": "true"}\n{"question": "x", "label": "no"}\n'
)
SENTENCES = (
    b'{"sentence": "3 is a [MASK] prime.", "answer": "Fermat"}\n'
    b'{"sentence": "a [MASK] b [MASK].", "answers": ["b", "c"]}\n'
)
SPANS = b'{"id": "12#0", "spans": [[0, 6, "PER"], [3, 9, "LOC"]]}\n{"id": "13#0", "spans": []}\n'
PAGE = (
    "<page><title>April</title><ns>0</ns><id>1</id><revision><model>wikitext</model>"
    "<text>'''April''' is the [[month|fourth month]] {{lang|la|Aprilis}} &lt;ref>x&lt;/ref>. "
    "&#x65e5;&amp;\n== See also ==\n* [[May]]</text></revision></page>"
)
DUMP = (
    f'<mediawiki xml:lang="en">{PAGE}<page><title>R</title><redirect title="April"/></page>'
    "</mediawiki>"
).encode()
WIKITEXT = (
    b"'''A''' {{Infobox|a=b|c={{d}}}} [[File:x.png|thumb|[[b]] c]] text (; x) &nbsp;<br/>\n"
    b"{| class=x\n| a || b\n|}\n* one\n* two <ref name=a>b</ref> {{convert|5|km}}\n==Notes==\ngone"
)
CONFIG = (
    b'[split]\nmax_wordpieces = 288\nlanguage = "en"\n[pretrain]\nsteps = 10\n'
    b"refresh = {every_steps = 5}\n[finetune]\nsteps = 3\n[mask]\nmask_rate = 0.15\n[index]\n"
)
STUDY = (
    b"[study]\ncompare = [['a', 'b']]\n[split]\nmax_wordpieces = 64\n[pretrain]\nsteps = 3\n"
    b"[rows.a]\nlabel = 'A'\nseeds = [0, 1]\n[rows.b]\nlabel = 'B'\npretrain = {steps = 4}\n"
)


def _articles(path: Path) -> None:
    """Read articles both ways: leaving bad records out, and stopping at the first."""
    skipped = Skipped()
    found = list(read_articles([path], skipped=skipped))
    _check_articles(found)
    strict = list(read_articles([path], on_error="fail"))
    assert strict == found, "what stops at bad records reads otherwise than what skips them"


def _check_articles(found: list[Article]) -> None:
    for article in found:
        f"{article.id}{article.title}{article.text}".encode()
        assert article.text.strip(), "a blank article"
    assert len({article.id for article in found}) == len(found), "an id twice"


def _any_file(data: bytes) -> None:
    number, content = chosen(data, len(ENDINGS))
    path = scratch() / f"articles{ENDINGS[number]}"
    path.write_bytes(content)
    _check_articles(list(read_articles([path])))


def _split(data: bytes) -> None:
    """Cut a text into passages: each is a slice, and nothing but white space is lost."""
    text = data.decode(errors="replace")
    config = SplitConfig(max_wordpieces=24, min_wordpieces=1)
    (cut,) = split_articles([Article(id="a", title=text[:20], text=text)], tokenizer(), config)
    for one in cut.passages:
        passage = one.passage
        assert text[passage.start : passage.end] == passage.text, "a passage is no slice"
        assert one.wordpieces == tokenizer().encode(passage.text).ids, "other wordpieces"
        for start, end in passage.sentences:
            assert 0 <= start < end <= len(passage.text), "a sentence outside its passage"


def _wikitext(data: bytes) -> None:
    text = plain_text(data.decode(errors="replace"))
    if text is not None:
        text.encode()


def _sentences(path: Path) -> None:
    for sentence in read_sentences(path):
        "".join([sentence.text, *sentence.answers]).encode()


def _pretagged(path: Path) -> None:
    tagger = PretaggedTagger(path)
    text = "Fermat was born in Toulouse."
    passages = [
        Passage(
            row=row,
            id=f"{row}#0",
            article_id=str(row),
            title="",
            text=text,
            start=0,
            end=len(text),
            sentences=((0, len(text)),),
        )
        for row in (12, 13, 14)
    ]
    for spans in tagger.tag(passages, Skipped()):
        for span in spans:
            assert 0 <= span.start < span.end <= len(text), "a span outside its passage"
        for one, other in pairwise(spans):
            assert one.end <= other.start, "spans that overlap"


def _config(path: Path) -> None:
    refused: RealmError | None = None
    for section, cls in SETTINGS:
        try:
            load_config(cls, section=section, file=path)
        except RealmError as error:  # the others are still to be tried
            refused = error
    if refused:
        raise refused


def _override(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    load_config(PretrainConfig, section="pretrain", overrides=[text])


def _document(data: bytes) -> None:
    """Add a document as a library does, from its text and from a file of its name."""
    number, content = chosen(data, 3)
    name = ("a.txt", "b.md", "c.jsonl")[number]
    path = scratch() / name
    path.write_bytes(content)
    skipped = Skipped()
    document = read_document(TextFile(name=name, path=path), skipped)
    if document is None:
        assert skipped.total, "left out without a reason"
        return
    check_document(document)
    for article, line in articles_of(document, skipped):
        assert 1 <= line <= document.text.count("\n") + 1, "a line outside the document"
        if document.format != "jsonl":
            assert article.text == document.text, "a text that is not the document's"
    title = content[:40].decode(errors="surrogateescape")
    check_document(Document(id=name, title=title, text="x"))


def _seeded(name: str, take: Callable[[bytes], None], *seeds: bytes) -> Target:
    return Target(name=name, take=take, seeds=lambda: list(seeds))


def _packed_articles() -> list[bytes]:
    return [
        b"\0" + ARTICLES,
        b"\1" + gzip.compress(ARTICLES, mtime=0),
        b"\2" + bz2.compress(ARTICLES),
        b"\3" + zstandard.compress(ARTICLES),
        b"\4" + gzip.compress(DUMP, mtime=0),
        b"\5" + bz2.compress(DUMP),
        b"\6# April\n\nIt is a month.\n",
        b"\7plain",
    ]


TEXT_TARGETS = (
    _seeded("articles", from_file("articles.jsonl", _articles), ARTICLES),
    Target(name="article-files", take=_any_file, seeds=_packed_articles),
    _seeded("dump", from_file("dump.xml", _articles), DUMP),
    _seeded("wikitext", _wikitext, WIKITEXT),
    _seeded("split", _split, b"One sentence. Two! " * 20, "e\u0301\u65e5\u672c\u3002".encode() * 9),
    _seeded("questions", from_file("questions.jsonl", read_questions), QUESTIONS),
    _seeded("claims", from_file("claims.jsonl", read_claims), CLAIMS),
    _seeded("sentences", from_file("sentences.jsonl", _sentences), SENTENCES),
    _seeded("pretagged", from_file("spans.jsonl", _pretagged), SPANS),
    _seeded("config", from_file("config.toml", _config), CONFIG),
    _seeded("override", _override, b"refresh.every_steps=5", b"steps = 1_000", b"marginal=token"),
    _seeded("study", from_file("study.toml", StudySettings.load), STUDY),
    _seeded(
        "document",
        _document,
        b"\0text",
        b"\1# A\n\n```\n# no\n```\n",
        b"\2" + ARTICLES,
        b"\2" + json.dumps({"id": "x", "text": "y"}).encode(),
    ),
)
