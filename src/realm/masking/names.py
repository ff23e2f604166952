"""Capitalised names in English text, by rule: which chains of words name something."""

import re
from collections.abc import Sequence

from realm.masking.chains import chain_at, parts_of
from realm.masking.common_words import begins_names, is_common
from realm.masking.tokens import Evidence, Kind, Word, gather_evidence, split_words
from realm.masking.words import (
    ACRONYMS,
    INNER,
    LABELS,
    LEADING,
    OFFICES,
    PLACE_NOUNS,
    STOP,
    TITLES,
)
from realm.records import SalientSpan

LABEL = "NAME"
MAX_WORDS = 12
"""A longer chain is a headline, not a name."""

_ROMAN = re.compile(r"(?=[XVI])X{0,3}(?:IX|IV|V?I{0,3})$")
_QUOTED = re.compile(r"[\"“]([^\"“”\n]{2,70}?)[.,]?[\"”]")


def find_names(
    text: str, *, title: str, sentence_starts: Sequence[int], taken: Sequence[SalientSpan]
) -> list[SalientSpan]:
    """Return the names in `text`, in order, disjoint, none of them across a span of `taken`.

    A capitalised word that begins a sentence counts only if the passage writes it with a capital
    elsewhere, if the next word is capitalised too and the pair may be a name, or if it is no
    common English word. Titles (Dr, President), possessive 's and articles are left out.

    Args:
        text: The text of a passage.
        title: Its title.
        sentence_starts: First character of each sentence.
        taken: Dates and quantities, sorted and disjoint.
    """
    quoted = [q for q in _quoted(text) if all(q.end <= t.start or q.start >= t.end for t in taken)]
    blocked = sorted([*taken, *quoted, *_shouted(text, sentence_starts)], key=lambda s: s.start)
    words = split_words(text, sentence_starts, blocked)
    evidence = gather_evidence(words, title)
    names = list(quoted)
    place = 0
    while place < len(words):
        chain = chain_at(words, place)
        for part in parts_of(chain):
            kept = _trim(part, evidence)
            if kept and _is_name(kept, evidence):
                names.append(SalientSpan(start=kept[0].start, end=kept[-1].end, label=LABEL))
        place += max(1, len(chain))
    return sorted(names, key=lambda span: span.start)


def _trim(chain: Sequence[Word], evidence: Evidence) -> list[Word]:
    """Return the chain without openers of sentences, titles, and loose ends."""
    kept = list(chain)
    while kept and _is_loose_start(kept, evidence):
        kept.pop(0)
    while kept and kept[-1].kind is Kind.LOWER:
        kept.pop()
    return kept


def _is_loose_start(chain: Sequence[Word], evidence: Evidence) -> bool:
    first = chain[0]
    if len(chain) > 1 and _is_title(chain):
        return True
    if first.initial:
        return not _may_begin_sentence(chain, evidence)
    if first.kind is Kind.LOWER:
        return first.lower not in LEADING or len(chain) == 1
    if first.kind is Kind.STOP:
        return len(chain) == 1 or chain[1].kind is not Kind.NAME
    return first.kind in {Kind.NUMBER, Kind.BREAK}


def _is_title(chain: Sequence[Word]) -> bool:
    """Whether the chain begins with a title that is no part of the name behind it."""
    title = chain[0].lower.rstrip(".")
    if (
        title not in TITLES
        or chain[0].cut
        or (chain[1].kind is not Kind.NAME and chain[1].lower not in LEADING)
    ):
        return False
    return chain[-1].lower not in PLACE_NOUNS


def _may_begin_sentence(chain: Sequence[Word], evidence: Evidence) -> bool:
    """Whether a capitalised first word of a sentence belongs to a name."""
    first = chain[0]
    lower = first.lower
    if first.kind is not Kind.NAME:
        return True  # it leads a name: de Gaulle, Sunday Times
    if lower in evidence.capital or not (first.text[1:].islower() or len(first.text) == 1):
        return True
    if len(chain) == 1:
        return lower not in evidence.lower and not is_common(lower)
    if is_common(lower):
        return begins_names(lower) or first.cut != "" or (lower, chain[1].lower) in evidence.pairs
    return True


def _is_name(chain: Sequence[Word], evidence: Evidence) -> bool:
    """Whether what is left names something."""
    if len(chain) > MAX_WORDS or all(_says_nothing(word) for word in chain):
        return False
    if len(chain) > 1:
        return True
    lower = chain[0].lower
    return not (lower in evidence.lower and is_common(lower))


def _says_nothing(word: Word) -> bool:
    """A title, an initial, a numeral, a label like Part, an acronym like TV."""
    lower = word.lower.rstrip(".")
    return (
        word.kind is not Kind.NAME
        or len(lower) == 1
        or lower in TITLES
        or lower in OFFICES
        or lower in LABELS
        or word.text in ACRONYMS
        or _ROMAN.match(word.text) is not None
    )


def _quoted(text: str) -> list[SalientSpan]:
    """Return titles of works: what stands in double quotes with every main word capitalised."""
    spans: list[SalientSpan] = []
    for match in _QUOTED.finditer(text):
        inside = match.group(1)
        words = re.findall(r"[^\W_][\w'’-]*", inside)  # noqa: RUF001
        main = [word for word in words if word.lower() not in STOP | INNER]
        capitalised = all(word[0].isupper() or word[0].isdigit() for word in main)
        whole = inside[0].isupper() and (inside[-1].isalnum() or inside[-1] in ")!?…")
        if (
            main
            and capitalised
            and inside.count(",") < 3
            and whole
            and len(inside) > 2
            and len(words) <= MAX_WORDS
        ):
            spans.append(SalientSpan(start=match.start(1), end=match.end(1), label=LABEL))
    return spans


def _shouted(text: str, sentence_starts: Sequence[int]) -> list[SalientSpan]:
    """Return sentences in capitals: their capitals tell nothing."""
    ends = [*sentence_starts[1:], len(text)]
    return [
        SalientSpan(start=start, end=end, label="")
        for start, end in zip(sentence_starts, ends, strict=True)
        if end - start > 24 and text[start:end].isupper()
    ]
