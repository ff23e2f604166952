"""Beyond lexical overlap: how many of a question's words stand in its gold passage.

A retriever that only matches words fails where question and passage share few; the third of the
questions that share the fewest says how it does there.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from realm.errors import CorpusError
from realm.records import Question
from realm.retrieval.bm25 import words

THIRDS = ("least", "middle", "most")
_FUNCTION_WORDS = frozenset(
    words(
        """
        a about after all along also although am among an and another any are around as at away
        be because been before being between both but by can could d did do does doing done
        during each either else ever every few for from had has have having he her here hers him
        his how however i if in into is it its itself just like ll many may me might more most
        much must my near no nor not now of off often on once one only onto or other our out over
        own per quite re s same shall she should since so some still such t than that the their
        them then there these they this those through to too toward under until up upon us ve
        very was we were what when where whether which while who whom whose why will with within
        without would yet you your
        """
    )
)


@runtime_checkable
class HasArticles(Protocol):
    """A passage store."""

    def row_of(self, passage_id: str) -> int:
        """Return the row of the passage with this id; CorpusError if there is none."""
        ...

    def article_rows(self, row: int) -> range:
        """Return the rows of all passages of the same article."""
        ...

    def title(self, row: int) -> str:
        """Return the title of the passage's article."""
        ...

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of some passages."""
        ...


def content_words(text: str) -> set[str]:
    """Return the words of a text that say something, as BM25 counts words.

    Lower case, no accents, no plural -s; function words left out, unless there are no others.
    """
    found = set(words(text))
    return found - _FUNCTION_WORDS or found


def word_overlap(question: str, passage: str) -> float:
    """Return the share of a question's content words that the passage holds, 0 to 1.

    Each word counts once; a question without words shares nothing.
    """
    asked = content_words(question)
    return len(asked & set(words(passage))) / len(asked) if asked else 0.0


def gold_overlap(store: HasArticles, question: Question) -> float | None:
    """Return the overlap of a question with its gold passage; None where that is not known.

    The gold passage is the article that `passage_id` names, title and all, however it was split;
    or the one passage, where the id is that of a passage (`<article id>#<number>`).
    """
    if question.passage_id is None:
        return None
    rows = _gold_rows(store, question.passage_id)
    if not rows:
        return None
    return word_overlap(question.question, "\n".join([store.title(rows[0]), *store.texts(rows)]))


def overlap_thirds(shares: Sequence[float | None], ids: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the questions with the least, middle and most overlap.

    The thirds are of equal size, give or take one. Among equal shares a hash of the id decides, not
    the order of the file, in which questions on one article stand together. Questions of unknown
    overlap are in none; fewer than three known ones make no thirds.
    """
    known = [number for number, share in enumerate(shares) if share is not None]
    if len(known) < len(THIRDS):
        return []

    def place(number: int) -> tuple[float, str]:
        return shares[number] or 0.0, hashlib.sha256(ids[number].encode()).hexdigest()

    ordered = np.array(sorted(known, key=place))
    return [part.tolist() for part in np.array_split(ordered, len(THIRDS))]


def _gold_rows(store: HasArticles, passage_id: str) -> list[int]:
    try:
        return list(store.article_rows(store.row_of(f"{passage_id}#0")))
    except CorpusError:
        pass
    try:
        return [store.row_of(passage_id)]
    except CorpusError:
        return []
