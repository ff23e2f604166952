"""English text as words for the name rules: capitalised, lower-case, numbers, breaks."""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from realm.masking.common_words import common_words, is_common
from realm.masking.words import CALENDAR, STOP, word_set
from realm.records import SalientSpan


class Kind(Enum):
    """What a word may do in a name."""

    NAME = "capitalised, may be part of a name"
    STOP = "capitalised function word"
    LOWER = "in lower case"
    NUMBER = "begins with a digit"
    CALENDAR = "month or weekday"
    RUN = "many lower-case words: no name goes across"
    BREAK = "punctuation, line end, date or quantity: no name goes across"


class Word(NamedTuple):
    """One word, possessive 's and lower-case suffixes (London-based) cut off."""

    start: int
    end: int
    text: str
    lower: str
    kind: Kind
    initial: bool
    """First of a sentence, of a line, or after a quotation mark or colon."""
    cut: str = ""
    """What was cut off at the end; a name seldom goes on behind it."""


class Evidence(NamedTuple):
    """How a passage itself writes its words."""

    capital: frozenset[str]
    """Capitalised inside sentences, on their own or in the title."""
    lower: frozenset[str]
    """In lower case."""
    pairs: frozenset[tuple[str, str]]
    """Neighbours that are both capitalised inside sentences."""


# may be a capital; what a word begins with is asked of str.isupper
_UPPER = r"[^\W\d_a-zß-öø-ÿ]"
_LETTER = r"[^\W_][\u0300-\u036f]*"
_TOKEN = re.compile(
    r"(?P<run>(?:[a-z]+ ){3,}(?=[a-z]))"
    rf"|(?P<acronym>{_UPPER}(?:\.{_UPPER})+(?:\.|(?![^\W_])))"
    rf"|(?P<dotted>{_UPPER}\.(?=\s?{_UPPER})"
    r"|(?:St|Ste|Mt|Ft|Dr|Mr|Mrs|Ms|Jr|Sr|Inc|Ltd|Corp|Co|Bros|Gen|Col|Lt|Capt|Sgt|Sen|Gov|Rep|Hon"
    r"|Rev|Prof|Maj|Adm|Cmdr|Fr)\.)"
    rf"|(?P<word>{_LETTER}(?:{_LETTER}|['’‐‑-](?=[^\W_])|&(?=[^\W\d_])"  # noqa: RUF001
    r"|\.(?=(?:com|org|net|edu|gov|co|uk|tv|io)\b))*)"
    r"|(?P<other>\S)"
)
_LOWER_NAME = re.compile(
    rf"(?:(?:al|el|ad|ar|as|an|at|ash|az|d|l|dell|o)[-'’]|[a-z]{{1,2}}(?=..))({_UPPER})"  # noqa: RUF001
)
_PREFIXED = re.compile(rf"[a-z]+-(?=({_UPPER})\w)")
_PREFIXES = word_set("""
co non anti pre post self semi multi re ex pro sub inter mid neo ultra cross counter vice well
twenty thirty forty fifty sixty seventy eighty ninety two half
""")
_OPENING = frozenset("\"“„«‘'")  # noqa: RUF001 - curly quotation marks


def split_words(
    text: str, sentence_starts: Sequence[int], taken: Sequence[SalientSpan]
) -> list[Word]:
    """Return the words of `text`; what lies in `taken` becomes a break."""
    words: list[Word] = []
    starts = iter([*sentence_starts, len(text) + 1])
    next_start, fresh, last_end = next(starts), True, 0
    blocks = _Blocks(taken)
    for match in _TOKEN.finditer(text):
        start = match.start()
        while start >= next_start:
            next_start, fresh = next(starts), True
            words.append(_break(start))
        if "\n" in text[last_end:start]:
            fresh = True
            words.append(_break(start))
        last_end = match.end()
        if match.lastgroup == "run":
            words.append(Word(start, last_end, match.group(), "", Kind.RUN, initial=False))
            fresh = False
            continue
        if match.lastgroup == "other" or blocks.hold(start, last_end):
            words.append(_break(start, match.group()))
            fresh = _is_fresh(text, match, fresh=fresh)
            continue
        words.append(_word(match, initial=fresh))
        fresh = False
    words.append(_break(len(text)))
    return words


def gather_evidence(words: Sequence[Word], title: str) -> Evidence:
    """Return how the passage writes each word; a title's first word is no evidence."""
    heading = re.findall(r"[^\W\d_][\w'-]*", title)
    capital = {w.lower() for w in heading[1:] if w[0].isupper()}
    pairs = {(a.lower(), b.lower()) for a, b in pairwise(heading) if b[0].isupper()}
    lower: set[str] = set()
    for before, word, after in zip(
        [words[-1], *words], words, [*words[1:], words[-1]], strict=False
    ):
        if word.kind is Kind.RUN:
            lower.update(word.text.split())
        elif word.kind is Kind.LOWER:
            lower.add(word.lower)
        elif word.kind is Kind.NAME and not word.initial:
            follows = before.kind is Kind.NAME
            if follows and not before.initial:
                pairs.add((before.lower, word.lower))
            if not follows and after.kind is not Kind.NAME:
                capital.add(word.lower)
    return Evidence(frozenset(capital), frozenset(lower), frozenset(pairs))


class _Blocks:
    """Tells, for ranges in rising order, whether a taken span overlaps them."""

    def __init__(self, spans: Sequence[SalientSpan]) -> None:
        self._spans: Iterator[SalientSpan] = iter(spans)
        self._span = next(self._spans, None)

    def hold(self, start: int, end: int) -> bool:
        while self._span is not None and self._span.end <= start:
            self._span = next(self._spans, None)
        return self._span is not None and self._span.start < end


def _break(start: int, text: str = "") -> Word:
    return Word(start, start + len(text), text, text, Kind.BREAK, initial=False)


def _is_fresh(text: str, match: re.Match[str], *, fresh: bool) -> bool:
    """Whether the word behind this mark may be capitalised without being a name."""
    mark, start = match.group(), match.start()
    if mark in _OPENING:
        return fresh or start == 0 or text[start - 1] in " \n([—"
    if mark in ".!?:…":
        return True
    return fresh and not mark.isalnum()


def _word(match: re.Match[str], *, initial: bool) -> Word:
    start, end, text = match.start(), match.end(), match.group()
    if match.lastgroup != "word" and text[0].isupper():
        return Word(start, end, text, text.lower(), Kind.NAME, initial)
    if text[0].isdigit():
        return Word(start, end, text, text.lower(), Kind.NUMBER, initial)
    if not text[0].isupper():
        return _lower_word(start, end, text, initial=initial)
    stem, cut = _stem(text)
    lower = stem.lower()
    return Word(start, start + len(stem), stem, lower, _kind(stem, lower, cut), initial, cut)


def _kind(text: str, lower: str, cut: str) -> Kind:
    if text == "US":
        return Kind.NAME
    head = re.split(r"['’]", lower)[0]  # noqa: RUF001 - I'm, It's
    if lower in STOP or head in STOP or (cut.startswith("-") and lower in _PREFIXES):
        return Kind.STOP
    if len(text) > 3 and text.isupper() and lower in common_words():
        return Kind.STOP  # shouted, not an acronym
    return Kind.CALENDAR if lower in CALENDAR else Kind.NAME


def _lower_word(start: int, end: int, text: str, *, initial: bool) -> Word:
    inner = _LOWER_NAME.match(text)
    if inner and inner[1].isupper():
        stem, cut = _stem(text)
        return Word(start, start + len(stem), stem, stem.lower(), Kind.NAME, initial, cut)
    prefix = _PREFIXED.match(text)
    if prefix and prefix[1].isupper():  # pro-European, mid-January
        first = start + prefix.end()
        stem, cut = _stem(text[prefix.end() :])
        kind = _kind(stem, stem.lower(), cut)
        return Word(first, first + len(stem), stem, stem.lower(), kind, initial=False, cut=cut)
    return Word(start, end, text, text.lower(), Kind.LOWER, initial)


def _stem(text: str) -> tuple[str, str]:
    """Return a word without possessive 's or lower-case suffix, and what was cut off.

    "London" of London-based; Stratford-upon-Avon, Wal-mart and Al-qaeda stay whole.
    """
    stem = text[:-2] if text.endswith(("'s", "’s", "'S", "’S")) else text  # noqa: RUF001
    head, hyphen, last = stem.rpartition("-")
    while hyphen and last.islower() and is_common(last):
        stem = head
        head, hyphen, last = stem.rpartition("-")
    return stem, text[len(stem) :]
