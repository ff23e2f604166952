"""Capitalised names in English text, by rule: chains of capitalised words and what joins them."""

import re
from collections.abc import Sequence

from realm.masking.tokens import Evidence, Kind, Word, gather_evidence, split_words
from realm.masking.words import (
    ACRONYMS,
    BODY_NOUNS,
    EPITHETS,
    FIRST_NAME_MONTHS,
    INNER,
    INNER_TITLES,
    LEADING,
    OFFICES,
    PAIRS,
    PARTIES,
    PLACE_NOUNS,
    STOP,
    SUFFIXES,
    TAIL_NOUNS,
    TITLES,
    begins_names,
    is_common,
)
from realm.records import SalientSpan

LABEL = "NAME"
MAX_WORDS = 12
"""A longer chain is a headline, not a name."""

_ROMAN = re.compile(r"(?=[XVI])X{0,3}(?:IX|IV|V?I{0,3})$")
_MODEL_NUMBER = re.compile(r"\d{1,3}$|\d+[-A-Za-z]\S*$")
_QUOTED = re.compile(r"[\"“]([^\"“”\n]{2,70}?),?[\"”]")


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
        chain = _chain(words, place)
        for part in _parts(chain):
            kept = _trim(part, evidence)
            if kept and _is_name(kept, evidence):
                names.append(SalientSpan(start=kept[0].start, end=kept[-1].end, label=LABEL))
        place += max(1, len(chain))
    return sorted(names, key=lambda span: span.start)


def _chain(words: Sequence[Word], place: int) -> list[Word]:
    """Return the longest run of words from `place` on that may be one name."""
    first = words[place]
    if first.kind is not Kind.NAME and not _leads(first, words[min(place + 1, len(words) - 1)]):
        return []
    return _chain_after(words, place)


def _leads(first: Word, second: Word) -> bool:
    """Whether a word that is no name begins one: van Gogh, The Hague, Sunday Times."""
    if second.kind is not Kind.NAME:
        return False
    if first.kind is Kind.LOWER:
        return first.lower in LEADING
    if first.kind is Kind.STOP:
        return not first.initial and first.lower != "i"
    if first.kind is Kind.CALENDAR:
        common = is_common(second.lower) and second.lower not in TITLES
        return common or first.lower in FIRST_NAME_MONTHS
    return False


def _chain_after(words: Sequence[Word], place: int) -> list[Word]:
    chain = [words[place]]
    while more := _next(words, place + len(chain), chain):
        chain += words[place + len(chain) : place + len(chain) + more]
    return chain


def _next(words: Sequence[Word], place: int, chain: Sequence[Word]) -> int:
    """Return how many of the words from `place` on continue the chain (0: it ends)."""
    word, last = words[place], chain[-1]
    if last.cut and not (word.kind is Kind.NAME and _goes_on(chain)):
        return 0
    if word.kind is Kind.NAME:
        return 1
    if word.kind is Kind.NUMBER:
        return int(bool(_MODEL_NUMBER.match(word.text)) and last.kind is Kind.NAME)
    if word.kind is Kind.CALENDAR:
        return int(is_common(last.lower) and (not last.initial or begins_names(last.lower)))
    if word.kind is Kind.BREAK:
        return _over_mark(words, place, last)
    if word.lower in INNER or word.kind is Kind.STOP:
        return _over_particles(words, place)
    return _over_connector(words, place, chain) if word.kind is Kind.LOWER else 0


def _goes_on(chain: Sequence[Word]) -> bool:
    """Whether a name goes on behind 's: People's Republic, St. Peter's Basilica."""
    last = chain[-1]
    saint = len(chain) > 1 and chain[-2].lower.rstrip(".") in {"st", "saint"}
    return not last.cut.startswith("-") and (saint or is_common(last.lower))


def _over_mark(words: Sequence[Word], place: int, last: Word) -> int:
    """Johnson & Johnson; Martin Luther King, Jr.; Writers' Guild."""
    mark, after = words[place], words[min(place + 1, len(words) - 1)]
    if after.kind is not Kind.NAME:
        return 0
    plural = mark.text in {"'", "’"} and mark.start == last.end and last.lower.endswith("s")  # noqa: RUF001
    joins = (
        mark.text == "&"
        or (mark.text == "," and after.lower in SUFFIXES)
        or (plural and is_common(last.lower))
    )
    return 2 * joins


def _over_particles(words: Sequence[Word], place: int) -> int:
    """Ludwig van Beethoven, Rio de la Plata, Gone With The Wind."""
    for ahead in range(1, 4):
        word = words[min(place + ahead, len(words) - 1)]
        if word.kind is Kind.NAME:
            return ahead + 1
        if word.lower not in INNER and word.kind is not Kind.STOP:
            return 0
    return 0


def _over_connector(words: Sequence[Word], place: int, chain: Sequence[Word]) -> int:
    """University of Oslo, Lord of the Rings, Catherine the Great, Council on Foreign Relations."""
    connector = words[place].lower
    articles = int(words[place + 1].lower == "the" and connector in {"of", "for", "on", "in"})
    after = words[min(place + 1 + articles, len(words) - 1)]
    if after.kind is not Kind.NAME:
        return 0
    last = chain[-1].lower
    joins = (
        (connector == "of" and _takes_of(chain))
        or (connector == "the" and len(chain) == 1 and after.lower in EPITHETS)
        or (connector in {"for", "on"} and last in BODY_NOUNS)
        or (connector == "and" and _takes_and(words, place, chain))
    )
    return 2 + articles if joins else 0


def _takes_of(chain: Sequence[Word]) -> bool:
    """Joan of Arc, Bank of England; not "John Smith of Boston", "President of France"."""
    last = chain[-1].lower
    if last in OFFICES:
        return False
    return len(chain) == 1 or is_common(last)


def _takes_and(words: Sequence[Word], place: int, chain: Sequence[Word]) -> bool:
    """Bosnia and Herzegovina, Food and Drug Administration, Department of Health and Science."""
    before, after = chain[-1].lower, words[place + 1].lower
    if (before, after) in PAIRS:
        return True
    if not (is_common(before) and is_common(after)):
        return False
    if len(chain) > 2 and any(word.lower in BODY_NOUNS for word in chain[:-1]):
        return True
    rest = _chain_after(words, place + 1)
    return len(rest) > 1 and rest[-1].lower in TAIL_NOUNS


def _parts(chain: Sequence[Word]) -> list[Sequence[Word]]:
    """Return the chain cut before inner titles, behind parties: U.S. | President Wilson."""
    parts: list[Sequence[Word]] = []
    first = 0
    for place in range(1, len(chain) - 1):
        before, word, after = chain[place - 1 : place + 2]
        if after.kind is not Kind.NAME or after.lower in SUFFIXES:
            continue
        is_title = word.lower.rstrip(".") in INNER_TITLES and before.lower not in INNER_TITLES
        is_first_title = is_title and chain[-1].lower not in PLACE_NOUNS
        if is_first_title or (before.lower in PARTIES and not before.cut):
            parts.append(chain[first:place])
            first = place
    return [*parts, chain[first:]]


def _trim(chain: Sequence[Word], evidence: Evidence) -> list[Word]:
    """Return the chain without openers of sentences, titles, and loose ends."""
    kept = list(chain)
    while kept and _is_loose_start(kept, evidence):
        kept.pop(0)
    while kept and kept[-1].kind in {Kind.LOWER, Kind.STOP}:
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
    if title not in TITLES or (chain[1].kind is not Kind.NAME and chain[1].lower not in LEADING):
        return False
    return chain[-1].lower not in PLACE_NOUNS


def _may_begin_sentence(chain: Sequence[Word], evidence: Evidence) -> bool:
    """Whether a capitalised first word of a sentence belongs to a name."""
    first = chain[0]
    lower = first.lower
    if first.kind is not Kind.NAME:
        return False
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
    """A title, an initial, a Roman numeral, a number, an acronym like TV."""
    lower = word.lower.rstrip(".")
    return (
        word.kind is not Kind.NAME
        or len(lower) == 1
        or lower in TITLES
        or lower in OFFICES
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
        if main and capitalised and inside[0].isupper() and len(words) <= MAX_WORDS:
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
