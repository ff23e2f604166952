"""What is right for a question, and what the reader reads in training."""

from typing import Any

import numpy as np
import pytest
import torch

from realm.config import FinetuneConfig, check
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.records import Question
from realm.retrieval.candidates import NULL_ROW
from realm.training.supervision import Judged, correct_spans, judge, rows_to_read


def asking(store: PassageStore, word: str, gold: str | None = None) -> tuple[Question, list[int]]:
    """A question with the rows that hold its answer."""
    rows = [row for row in range(len(store)) if word in store.text(row)]
    return Question(id="q", question="which", answers=(word,), passage_id=gold), rows


def judged(rows: list[int], right: list[int], gold: tuple[int, ...] = ()) -> Judged:
    holds = np.isin(rows, right)
    return Judged(
        rows=rows, is_right=np.isin(rows, gold) if gold else holds, holds=holds, gold=gold
    )


def settings(**changed: Any) -> FinetuneConfig:
    return FinetuneConfig(**{"num_passages": 3, **changed})


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_a_gold_passage_whatever_holds_an_answer_is_right(store: PassageStore) -> None:
    question, having = asking(store, "Tarvik")
    rows = list(range(len(store)))
    found = judge(store, question, rows, gold_passages=True)
    assert [row for row, right in zip(rows, found.is_right, strict=True) if right] == having
    assert found.gold == ()


def test_with_a_gold_passage_only_its_rows_with_the_answer_are_right(store: PassageStore) -> None:
    """Other passages that hold the answer's words may say something else."""
    question, having = asking(store, "Tarvik", gold="a0")
    mine = [row for row in having if store.article_id(row) == "a0"]
    assert len(mine) < len(having)
    assert mine
    rows = list(range(len(store)))
    found = judge(store, question, rows, gold_passages=True)
    assert list(found.gold) == mine
    assert [row for row, right in zip(rows, found.is_right, strict=True) if right] == mine
    assert int(found.holds.sum()) == len(having)
    ignored = judge(store, question, rows, gold_passages=False)
    assert ignored.gold == ()
    assert int(ignored.is_right.sum()) == len(having)


def test_a_gold_passage_that_is_not_in_the_corpus_is_no_gold_passage(store: PassageStore) -> None:
    question, having = asking(store, "Tarvik", gold="elsewhere")
    found = judge(store, question, list(range(len(store))), gold_passages=True)
    assert int(found.is_right.sum()) == len(having)


def test_as_found_is_the_paper_s_way() -> None:
    assert rows_to_read(judged([7, 3, 5, 1], right=[1]), settings(), draw()) == [7, 3, 5]


def test_the_gold_passage_is_read_though_it_was_not_found() -> None:
    one = judged([7, 3, 5, 1], right=[3], gold=(9,))
    assert rows_to_read(one, settings(), draw()) == [7, 3, 9]
    assert rows_to_read(judged([7, 3, 5], right=[3], gold=(3,)), settings(), draw()) == [7, 3, 5]


@pytest.mark.parametrize("gold", [(), (9,), (5,)])
def test_one_that_is_right_and_others_that_hold_no_answer(gold: tuple[int, ...]) -> None:
    one = judged([7, 3, 5, 1, 2, 4, 6, 8], right=[3, 5], gold=gold)
    seen: set[int] = set()
    for seed in range(60):
        first, *others = rows_to_read(one, settings(draw_from=6), draw(seed))
        assert first == (gold[0] if gold else 3)
        assert len(set(others)) == 2
        seen |= set(others)
    assert seen == {7, 1, 2, 4}, "wrong ones among the six best"


def test_the_right_ones_are_withheld_at_the_null_rate() -> None:
    one = judged([7, 3, 5, 1, 2], right=[3])
    config = settings(draw_from=5, null_passage=True, null_rate=0.3)
    read = [rows_to_read(one, config, draw(seed)) for seed in range(300)]
    assert all(len(rows) == 3 for rows in read)
    assert 60 < sum(3 not in rows for rows in read) < 120


def test_a_null_rate_without_what_it_needs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"null_rate=0.1 needs null_passage=true and draw_from"):
        check(FinetuneConfig, {"null_rate": 0.1}, section="finetune")


def test_the_null_passage_is_right_where_no_other_is(store: PassageStore) -> None:
    question, having = asking(store, "Tarvik")
    without = next(row for row in range(len(store)) if row not in having)
    sizes = [len(store.wordpieces(row)) for row in (having[0], without)]
    with_answer, nothing = (torch.zeros(size, 10) for size in sizes)
    null = torch.zeros(1, 10)
    marks = correct_spans(store, question, [without, NULL_ROW], [nothing, null])
    assert marks.nonzero().flatten().tolist() == [sizes[1] * 10]
    marks = correct_spans(store, question, [having[0], NULL_ROW], [with_answer, null])
    assert not marks[-10:].any()
    assert marks[:-10].any()


def test_spans_of_other_passages_than_gold_are_not_right(store: PassageStore) -> None:
    question, having = asking(store, "Tarvik")
    logits = [torch.zeros(len(store.wordpieces(row)), 10) for row in having[:2]]
    marks = correct_spans(store, question, having[:2], logits, gold=having[1:2])
    size = logits[0].numel()
    assert not marks[:size].any()
    assert marks[size:].any()
