"""From a document to an answer, in any script: text[start:end] is the answer, whole characters.

Documents are written by hypothesis from pieces that offsets go wrong on: accents as code points of
their own, letters whose small form is longer, scripts that run from the right, emoji of many parts.
"""

import json
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hostile.site import Site
from hostile.world import open_realm, tokenizer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from realm.config import MaskConfig, SplitConfig
from realm.corpus.passages import split_articles
from realm.corpus.sentences import is_inside_character, whole_characters
from realm.errors import RealmError
from realm.masking.cloze import cloze
from realm.masking.masker import Masker
from realm.masking.rules import RuleTagger
from realm.records import Article, Document, DocumentFormat, Skipped

PIECES = (
    "caf\u00e9",
    "cafe\u0301",
    "Z\u0351\u036b\u0343a\u0302\u0303l\u030ago",
    "\u0130stanbul",
    "D\u0131yarbak\u0131r",
    "Stra\u00dfe",
    "STRA\u1e9eE",
    "\ufb01nd \ufb03",
    "\u01f0\u0149\u1f52",  # longer in small letters
    "\uff21\uff22\uff43\uff11\uff12",
    "\u65e5\u672c\u8a9e\u3002",
    "\u4e2d\u56fd\u4eba",
    "\u304b\u3099\u304d",  # a mark of its own on kana
    "\ud55c\uad6d",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8",
    "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u202e\u0645\u0631\u062d\u0628\u0627\u202c \u0661\u0669",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0e01\u0e33\u0e19\u0e49",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5",
    "\U0001f44d\U0001f3fd 1\ufe0f\u20e3 \u2764\ufe0f",
    "\U0001d49c\U0001d49c \U00020bb7",
    "\u03a3\u0391\u03a3 \u03c3\u03b1\u03c2",
    "a\u200bb\u00adc\u2060d\ufeff",
    "born in 1907",
    "the library closes at eight",
    "Basel",
    "\0",
)
SPACES = ("", " ", " ", "\n", "\r\n", ". ", "\u3000", "\u2028", "\u00a0", "\t", "\n\n")
WORDS = st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
TEXTS = (
    st.lists(st.tuples(WORDS, st.sampled_from(SPACES)), min_size=1, max_size=14)
    .map(lambda parts: "".join(word + space for word, space in parts))
    .filter(bool)
)
quietly = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    """A tiny untrained model with an empty library: it answers with whatever stands there."""
    with open_realm("any script") as opened:
        yield opened


@pytest.fixture(scope="module")
def site(model: Any) -> Iterator[Site]:
    started = Site(model)
    yield started
    started.close()


@given(TEXTS)
def test_the_words_of_a_text_have_the_offsets_of_their_letters(text: str) -> None:
    """What a word's offsets cut out has the same wordpieces again."""
    ids, offsets = tokenizer().encode(text)
    last = 0
    for start, end in offsets:
        assert last <= end
        assert 0 <= start < end <= len(text)
        last = start
    continues = [tokenizer().token(number).startswith("##") for number in ids]
    firsts = [place for place, one in enumerate(continues) if not one]
    for first, following in pairwise([*firsts, len(ids)]):
        word = text[offsets[first][0] : offsets[following - 1][1]]
        assert tokenizer().encode(word).ids == ids[first:following]


@given(TEXTS, st.data())
def test_a_range_is_widened_to_whole_characters_and_no_further(text: str, data: Any) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = whole_characters(text, start, end)
    assert first <= start < end <= last
    assert not is_inside_character(text, first)
    assert not is_inside_character(text, last)
    assert all(is_inside_character(text, at) for at in range(first + 1, start + 1))
    assert all(is_inside_character(text, at) for at in range(end, last))


@pytest.mark.parametrize(
    "character",
    [
        "e\u0301",
        "\u1112\u1161\u11ab",  # han, as three letters
        "\ud558\u11ab",  # and as ha with a letter
        "\u05e9\u05c1\u05b8",
        "\u0938\u094d",
        "\u304b\u3099",
        "1\ufe0f\u20e3",
        "\U0001f469\u200d\U0001f467",
    ],
)
def test_no_part_of_a_character_stands_alone(character: str) -> None:
    text = f"a{character}b"
    for at in range(1, 1 + len(character)):
        assert whole_characters(text, at, at + 1) == (1, 1 + len(character))
    assert whole_characters(text, 0, 1) == (0, 1)
    assert whole_characters(text, len(text) - 1, len(text)) == (len(text) - 1, len(text))


def test_marks_without_end_are_no_character() -> None:
    """A passage of a million accents must not be walked through for each of its answers."""
    text = "e" + "\u0301" * 1_000
    assert whole_characters(text, 0, 1) == (0, 65)


def test_two_syllables_are_two_characters() -> None:
    text = "\ud55c\uad6d \u1112\u1161\u11ab\u1100\u116e\u11a8"
    inside = [at for at in range(len(text)) if is_inside_character(text, at)]
    assert inside == [4, 5, 7, 8]


@quietly
@given(TEXTS, TEXTS)
def test_passages_and_their_sentences_are_slices_of_the_article(title: str, text: str) -> None:
    config = SplitConfig(max_wordpieces=24, min_wordpieces=1)
    (cut,) = split_articles([Article(id="a", title=title, text=text)], tokenizer(), config)
    last = 0
    for one in cut.passages:
        passage = one.passage
        assert last <= passage.start < passage.end <= len(text)
        assert text[passage.start : passage.end] == passage.text
        for start, end in passage.sentences:
            assert passage.text[start:end].strip() == passage.text[start:end] != ""
        last = passage.end


@quietly
@given(TEXTS)
@example("Yesterday cafe\u0301 \u0130stanbul met Zoe\u0308 Stra\u00dfe in 1907 in Basel.")
def test_what_is_masked_is_what_was_tagged(text: str) -> None:
    """Each span is a slice of its sentence, and its wordpieces are masked, no others."""
    config = SplitConfig(max_wordpieces=64, min_wordpieces=1)
    (cut,) = split_articles([Article(id="a", title="", text=text)], tokenizer(), config)
    passages = [one.passage for one in cut.passages]
    spans = list(RuleTagger().tag(passages, Skipped()))
    for passage, found in zip(passages, spans, strict=True):
        for span in found:
            assert 0 <= span.start < span.end <= len(passage.text)
            assert passage.text[span.start : span.end].strip()
    masker = Masker(tokenizer(), MaskConfig(query_wordpieces=64), Skipped())
    for examples in masker.salient(passages, spans):
        for one in examples:
            ids, offsets = tokenizer().encode(one.sentence)
            masked = [
                place
                for place, (start, end) in enumerate(offsets)
                if start < one.span_end and end > one.span_start
            ]
            assert masked[: len(one.positions)] == list(one.positions)
            assert [ids[place] for place in one.positions] == list(one.target_ids)
            assert one.sentence[one.span_start : one.span_end].strip()


@given(TEXTS, TEXTS, st.sampled_from(PIECES))
def test_a_blank_is_filled_where_it_stands(before: str, after: str, answer: str) -> None:
    pieces = [tokenizer().encode(part).ids for part in (before, after, answer)]
    try:
        blank = cloze(f"{before}[MASK]{after}", tokenizer(), query_wordpieces=512)
        filled = blank.with_answers([answer])
    except RealmError:
        assert not (pieces[0] or pieces[1]) or not pieces[2]
        return
    mask = [tokenizer().mask_id] * len(pieces[2])
    assert list(filled.query_ids) == [*pieces[0], *mask, *pieces[1]]
    assert list(filled.target_ids) == pieces[2]


def written(texts: list[str], kind: DocumentFormat) -> tuple[str, list[str]]:
    """Return a document's text, and the texts that offsets count in, by line for JSON lines."""
    if kind != "jsonl":
        return texts[0], texts[:1]
    records = [
        json.dumps({"id": str(n), "text": t}, ensure_ascii=n % 2) for n, t in enumerate(texts)
    ]
    return "\n".join(records), texts


def check_place(answer: Any, text: str, texts: list[str], kind: DocumentFormat) -> None:
    """Follow an answer's link: document, line, offsets."""
    if kind == "jsonl":
        assert texts[answer["line"] - 1][answer["start"] : answer["end"]] == answer["text"]
    else:
        assert text[answer["start"] : answer["end"]] == answer["text"]
        assert answer["line"] == 1 + text.count("\n", 0, answer["start"])


def check_whole(answer: Any) -> None:
    """No accent, joiner or syllable is torn off at either end."""
    passage = answer["passage"]
    start, end = answer["start"] - passage["start"], answer["end"] - passage["start"]
    assert passage["text"][start:end] == answer["text"] != ""
    assert not is_inside_character(passage["text"], start)
    assert not is_inside_character(passage["text"], end)


@settings(quietly, max_examples=60)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=3),
    kind=st.sampled_from(("text", "markdown", "jsonl")),
)
@example(texts=["cafe\u0301 \u05e9\u05b8\u05dc\u05b8 \u1112\u1161\u11ab"], kind="text")
@example(texts=["a", "\u2028 cafe\u0301", "b"], kind="jsonl")
@example(texts=["\u2028 "], kind="text")
def test_from_a_document_to_the_answer_over_http(
    site: Site, texts: list[str], kind: DocumentFormat
) -> None:
    """Add, ask, follow the link, explain, remove: as a page in a browser does it."""
    text, parts = written(texts, kind)
    document = {"id": "d/\u65e5\u672c e\u0301.x", "text": text, "format": kind}
    added = site.ask("POST", b"/documents", json.dumps(document).encode())
    if not text.strip():
        assert added.status == 422
        return
    assert added.status == 200, added.body
    kept = site.ask("GET", b"/documents/d/%E6%97%A5%E6%9C%AC%20e%CC%81.x").json()
    assert kept["text"] == text
    asked = {"question": "born in the library", "num_answers": 50, "num_passages": 50}
    told = site.ask("POST", b"/answer", json.dumps(asked).encode()).json()
    assert site.ask("DELETE", b"/documents/d/%E6%97%A5%E6%9C%AC%20e%CC%81.x").status == 200
    assert bool(told["answers"]) == bool(told["passages"])
    for answer in told["answers"]:
        assert answer["document"] == document["id"]
        check_whole(answer)
        check_place(answer, text, parts, kind)
    for passage in told["passages"]:
        whole = parts[passage["line"] - 1] if kind == "jsonl" else text
        assert whole[passage["start"] : passage["end"]] == passage["text"]


@settings(quietly, max_examples=20)
@given(text=TEXTS)
def test_what_explains_a_sentence_is_a_slice_of_its_document(site: Site, text: str) -> None:
    document = {"id": "one", "text": f"{text} the library", "format": "text"}
    assert site.ask("POST", b"/documents", json.dumps(document).encode()).status == 200
    asked = {"sentence": "the library closes at [MASK]", "answer": "eight"}
    told = site.ask("POST", b"/explain", json.dumps(asked).encode())
    assert site.ask("DELETE", b"/documents/one").status == 200
    assert told.status == 200, told.body
    for candidate in told.json()["candidates"]:
        if passage := candidate["passage"]:
            assert document["text"][passage["start"] : passage["end"]] == passage["text"]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_form_of_unicode_does_not_move_an_answer(model: Any, form: Any) -> None:
    text = unicodedata.normalize(
        form, "Zo\u00eb was born in D\u00fcsseldorf, \ud55c\uad6d, in 1907."
    )
    model.add_documents(Document(id="forms", text=text))
    answered = model.answer("born in", num_answers=50)
    model.remove_documents("forms")
    assert len(answered.answers) > 20
    for answer in answered.answers:
        assert text[answer.start : answer.end] == answer.text
        assert not is_inside_character(text, answer.start)
        assert not is_inside_character(text, answer.end)
