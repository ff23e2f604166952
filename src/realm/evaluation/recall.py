"""How often a retriever finds a passage with the answer: zero-shot recall, no reader needed."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from realm.evaluation.metrics import Interval, answer_finder, hits_at_k, wilson_interval
from realm.records import Progress, Question

BATCH = 64


@runtime_checkable
class Finds(Protocol):
    """What is measured."""

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        """Return (rows, scores) of the k best passages of each question, best first."""
        ...


@runtime_checkable
class HasTexts(Protocol):
    """Where the passages' texts come from."""

    def __len__(self) -> int: ...

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of these rows."""
        ...


def answer_recall(
    retriever: Finds,
    passages: HasTexts,
    questions: Sequence[Question],
    *,
    at: Sequence[int] = (1, 5, 20, 100),
    progress: Progress | None = None,
) -> dict[int, Interval]:
    """Return, for each k, the share of questions with an answer in the first k passages.

    Its 95 % interval is Wilson's.

    Args:
        retriever: finds passages.
        passages: their texts.
        questions: what to find; at least one.
        at: values of k; those beyond the corpus are capped.
        progress: called with (questions done, questions).
    """
    deepest = min(max(at), len(passages))
    ranks = answer_ranks(retriever, passages, questions, deepest=deepest, progress=progress)
    return {
        k: wilson_interval(round(sum(hits_at_k(ranks, min(k, deepest)))), len(ranks)) for k in at
    }


def answer_ranks(
    retriever: Finds,
    passages: HasTexts,
    questions: Sequence[Question],
    *,
    deepest: int,
    progress: Progress | None = None,
) -> list[int | None]:
    """Return the rank of the first passage with an answer, from 1; None: not among the deepest.

    Args:
        retriever: finds passages.
        passages: their texts.
        questions: what to find.
        deepest: passages retrieved for each question.
        progress: called with (questions done, questions).
    """
    ranks: list[int | None] = []
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        found = retriever.retrieve([q.question for q in batch], deepest)
        for question, (rows, _) in zip(batch, found, strict=True):
            has_answer = answer_finder(question)
            texts = passages.texts(rows)
            ranks.append(next((n for n, text in enumerate(texts, 1) if has_answer(text)), None))
        if progress:
            progress(len(ranks), len(questions))
    return ranks
