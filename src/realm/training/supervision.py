"""Which passages are right for a question, which of them the reader reads, and which spans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.records import Question
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.matching import answer_spans, holds_answer, wordpiece_spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was found for a question, best first, and what is right."""

    rows: list[int]
    is_right: Bool[np.ndarray, " rows"]
    """Gold, or where no passage is named as gold: holds an answer."""
    holds: Bool[np.ndarray, " rows"]
    """Whether each holds an answer."""
    gold: tuple[int, ...]
    """Rows of the gold passage, found or not; those that hold an answer, where any does."""

    def are_right(self, rows: Sequence[int]) -> Bool[np.ndarray, " rows"]:
        """Return which of some rows, found or gold, are right."""
        right = {row for row, is_right in zip(self.rows, self.is_right, strict=True) if is_right}
        return np.isin(rows, [*(right | set(self.gold))])


def judge(
    store: PassageStore, question: Question, rows: Sequence[int], *, gold_passages: bool
) -> Judged:
    """Judge the passages found for a question.

    Args:
        store: the passages.
        question: with its answers, perhaps with its gold passage (an article of the store).
        rows: found, best first.
        gold_passages: whether a gold passage that is named is the only right one.

    Raises:
        CorpusError: an answer pattern is no regex.
    """
    holds = holds_answer(store, rows, question)
    gold: tuple[int, ...] = ()
    if gold_passages and question.passage_id is not None:
        named = store.rows_of_article(question.passage_id)
        held = holds_answer(store, named, question)
        having = [row for row, holds in zip(named, held, strict=True) if holds]
        gold = tuple(having or named)
    is_right = np.isin(rows, gold) if gold else holds
    return Judged(rows=list(rows), is_right=is_right, holds=holds, gold=gold)


def rows_to_read(judged: Judged, config: FinetuneConfig, draw: np.random.Generator) -> list[int]:
    """Return the rows that the reader reads in training, at most `num_passages`.

    As they were found; with a gold passage the last one gives way to it. With `draw_from`: one that
    is right, and others without an answer; at `null_rate` none that is right.
    """
    rows, count = judged.rows, config.num_passages
    if config.draw_from is None:
        chosen = rows[:count]
        if judged.gold and not set(judged.gold) & set(chosen):
            chosen = [*chosen[: count - 1], judged.gold[0]]
        return chosen
    near = slice(0, config.draw_from)
    wrong = [
        row
        for row, held in zip(rows[near], judged.holds[near], strict=True)
        if not held and row not in judged.gold
    ]
    right = [
        row for row, is_right in zip(rows[near], judged.is_right[near], strict=True) if is_right
    ]
    right = (right or list(judged.gold))[:1]
    if right and wrong and draw.random() < config.null_rate:
        right = []
    num_wrong = min(len(wrong), count - len(right))
    return right + [wrong[n] for n in sorted(draw.permutation(len(wrong))[:num_wrong].tolist())]


def correct_spans(
    store: PassageStore,
    question: Question,
    rows: Sequence[int],
    logits: Sequence[Float[Tensor, "_ widths"]],
    *,
    gold: Sequence[int] = (),
) -> Bool[Tensor, " spans"]:
    """Return which of the flattened spans are right.

    Args:
        store: the passages.
        question: with its answers.
        rows: the passages read; NULL_ROW, the null passage, is right where no other is.
        logits: of the spans of each.
        gold: where not empty, only spans of these rows are right.
    """
    marks = [torch.zeros(part.shape, dtype=torch.bool) for part in logits]
    for row, mark in zip(rows, marks, strict=True):
        if row == NULL_ROW or (gold and row not in gold):
            continue
        text = store.text(row)
        spans = answer_spans(text, question)
        if spans:
            for first, last in wordpiece_spans(spans, store.tokenizer.encode(text).offsets):
                if last < mark.shape[0] and last - first < mark.shape[1]:
                    mark[first, last - first] = True
    if NULL_ROW in rows and not any(bool(mark.any()) for mark in marks):
        marks[list(rows).index(NULL_ROW)][0, 0] = True
    return torch.cat([mark.reshape(-1) for mark in marks])
