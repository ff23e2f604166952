"""Capitalised words and what joins them to one chain that may be a name."""

import re
from collections.abc import Sequence

from realm.masking.common_words import begins_names, is_common
from realm.masking.tokens import Kind, Word
from realm.masking.words import (
    BODY_NOUNS,
    EPITHETS,
    FIRST_NAME_MONTHS,
    INNER,
    INNER_TITLES,
    LEADING,
    OF_NOUNS,
    OFFICES,
    PAIRS,
    PARTIES,
    PLACE_NOUNS,
    PRONOUN_VERBS,
    SUFFIXES,
    TAIL_NOUNS,
    TITLES,
)

_HEADS = OF_NOUNS | PLACE_NOUNS | BODY_NOUNS | TAIL_NOUNS
_MAX_TAIL = 8
"""How far ahead an `and` looks for the end of its name."""
_APOSTROPHES = frozenset("'’")  # noqa: RUF001
_MODEL_NUMBER = re.compile(r"\d{1,3}$|\d+[-A-Za-z]\S*$")


def chain_at(words: Sequence[Word], place: int) -> list[Word]:
    """Return the longest run of words from `place` on that may be one name."""
    first = words[place]
    if first.kind is not Kind.NAME and not _leads(first, words[min(place + 1, len(words) - 1)]):
        return []
    return _chain_after(words, place)


def parts_of(chain: Sequence[Word]) -> list[Sequence[Word]]:
    """Return the chain cut before inner titles, behind parties: U.S. | President Wilson."""
    parts: list[Sequence[Word]] = []
    first = 0
    for place in range(1, len(chain) - 1):
        before, word, after = chain[place - 1 : place + 2]
        if after.kind is not Kind.NAME or after.lower in SUFFIXES:
            continue
        is_title = (
            word.lower.rstrip(".") in INNER_TITLES
            and not word.cut
            and before.lower not in INNER_TITLES
        )
        is_first_title = is_title and chain[-1].lower not in PLACE_NOUNS
        if is_first_title or (before.lower in PARTIES and not before.cut):
            parts.append(chain[first:place])
            first = place
    return [*parts, chain[first:]]


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
    if last.cut:
        return int(word.kind is Kind.NAME and _goes_on(chain, word))
    match word.kind:
        case Kind.NAME:
            more = 1
        case Kind.NUMBER:
            more = int(_is_model_number(word, last))
        case Kind.CALENDAR:
            more = int(is_common(last.lower) and (not last.initial or begins_names(last.lower)))
        case Kind.STOP:
            more = int(word.text != "I" or words[place + 1].lower not in PRONOUN_VERBS)
        case Kind.BREAK:
            more = _over_mark(words, place, chain)
        case Kind.LOWER if word.lower in INNER:
            more = _over_particles(words, place)
        case Kind.LOWER:
            more = _over_connector(words, place, chain)
        case _:
            more = 0
    return more


def _is_model_number(word: Word, last: Word) -> bool:
    """Boeing 747, Apollo 11; not the page behind U.S."""
    short = _MODEL_NUMBER.match(word.text) is not None
    return short and last.kind is Kind.NAME and not last.text.endswith(".")


def _goes_on(chain: Sequence[Word], after: Word) -> bool:
    """Whether a name goes on behind 's: People's Republic, St. Peter's Basilica, Anne's War."""
    last = chain[-1]
    before = chain[-2].lower.rstrip(".") if len(chain) > 1 else ""
    if last.cut.startswith("-"):
        return False
    return (
        before in {"st", "saint"}
        or is_common(last.lower)
        or (before in {"king", "queen", "prince"} and is_common(after.lower))
    )


def _over_mark(words: Sequence[Word], place: int, chain: Sequence[Word]) -> int:
    """Johnson & Johnson; Martin Luther King, Jr.; Writers' Guild; Mexican-American War."""
    mark, last = words[place], chain[-1]
    after, behind = words[min(place + 1, len(words) - 1)], words[min(place + 2, len(words) - 1)]
    if after.kind is not Kind.NAME:
        return 0
    tight = mark.start == last.end
    joins = (
        mark.text == "&"
        or (mark.text == "," and after.lower in SUFFIXES)
        or (mark.text in _APOSTROPHES and tight and last.lower[-1] == "s" and is_common(last.lower))
        or (mark.text == "–" and tight and len(chain) == 1 and behind.lower in _HEADS)  # noqa: RUF001
    )
    return 2 * joins


def _over_particles(words: Sequence[Word], place: int) -> int:
    """Ludwig van Beethoven, Rio de la Plata."""
    end = place
    while words[end].lower in INNER:
        end += 1
    return end - place + 1 if words[end].kind is Kind.NAME else 0


def _over_connector(words: Sequence[Word], place: int, chain: Sequence[Word]) -> int:
    """University of Oslo, Lord of the Rings, Catherine the Great, Council on Foreign Relations."""
    connector = words[place].lower
    articles = int(words[place + 1].lower == "the" and connector in {"of", "for", "on"})
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
    return len(chain) == 1 or last in _HEADS or is_common(last)


def _takes_and(words: Sequence[Word], place: int, chain: Sequence[Word]) -> bool:
    """Bosnia and Herzegovina, Food and Drug Administration, Department of Health and Science."""
    before, after = chain[-1].lower, words[place + 1].lower
    if (before, after) in PAIRS:
        return True
    if not (is_common(before) and is_common(after)):
        return False
    if len(chain) > 2 and any(word.lower in BODY_NOUNS for word in chain[:-1]):
        return True
    end = place + 1
    while words[end].kind is Kind.NAME and end - place < _MAX_TAIL:
        end += 1
    return end - place > 2 and words[end - 1].lower in TAIL_NOUNS
