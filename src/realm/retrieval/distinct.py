"""Of passages with the same text one is read, so that copies of a file take no place of others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from realm.corpus.store import Passages
from realm.retrieval.dense import Retriever

MAX_DEPTH = 64
"""So many times as many passages are retrieved as were asked for, where most are copies."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was retrieved for one question, and what of it is read."""

    rows: list[int] = field(default_factory=list[int])
    """All, best first."""
    read: list[int] = field(default_factory=list[int])
    """The best of them, no two with the same text."""
    scores: list[float] = field(default_factory=list[float])
    """Of those read."""
    copies: list[int] = field(default_factory=list[int])
    """The others with the text of one that is read, best first."""


def retrieve_distinct(
    retriever: Retriever,
    store: Passages,
    questions: Sequence[str],
    *,
    num_passages: int,
    num_retrieved: int,
) -> list[Retrieved]:
    """Retrieve passages, and choose those to read: the best ones with texts of their own.

    The best one stands for its copies, with its own score: what is read, and its p(z|x), is as if
    there were none. Where copies leave too few, more are retrieved.

    Args:
        retriever: finds rows, best first.
        store: the passages.
        questions: in words.
        num_passages: passages to read; fewer where there are not as many texts.
        num_retrieved: passages to retrieve at least.

    Returns:
        For each question what was found.
    """
    depth = max(num_passages, num_retrieved)
    deepest = depth * MAX_DEPTH
    found = [
        _choose(store, rows, scores, num_passages)
        for rows, scores in retriever.retrieve(questions, depth)
    ]
    while depth < deepest and (
        lacking := [
            number
            for number, one in enumerate(found)
            if len(one.read) < num_passages and len(one.rows) >= depth
        ]
    ):
        depth *= 2
        deeper = retriever.retrieve([questions[number] for number in lacking], depth)
        for number, (rows, scores) in zip(lacking, deeper, strict=True):
            found[number] = _choose(store, rows, scores, num_passages)
    return found


def _choose(store: Passages, rows: list[int], scores: list[float], num_passages: int) -> Retrieved:
    """Return the rows with the first `num_passages` texts, and their copies."""
    chosen = Retrieved(rows)
    texts: set[str] = set()
    for row, score in zip(rows, scores, strict=True):
        text = store.text(row)
        if text in texts:
            chosen.copies.append(row)
        elif len(texts) < num_passages:
            texts.add(text)
            chosen.read.append(row)
            chosen.scores.append(score)
    return chosen
