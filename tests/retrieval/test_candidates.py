"""From a query to candidates; the paper's rules about them stand in tests/paper."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.records import MaskedExample
from realm.retrieval.candidates import (
    MISSING_ROW,
    NULL_ROW,
    CandidateFinder,
    choose_candidates,
    ngrams,
    overlaps,
)

IDS = st.lists(st.integers(0, 4), max_size=12)


def as_array(ids: list[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int64)


@given(st.lists(st.booleans(), max_size=12), st.integers(2, 9), st.integers(0, 100))
def test_candidates_are_null_then_the_best_that_are_not_its_own(
    is_own: list[bool], num_candidates: int, seed: int
) -> None:
    found = np.random.default_rng(seed).permutation(100)[: len(is_own)].tolist()
    chosen = choose_candidates(torch.tensor(found, dtype=torch.long), is_own, num_candidates)
    others = [row for row, own in zip(found, is_own, strict=True) if not own]
    expected = [NULL_ROW, *others][:num_candidates]
    assert chosen == expected + [MISSING_ROW] * (num_candidates - len(expected))


@given(IDS, st.lists(IDS, max_size=4))
def test_overlap_is_the_share_of_the_sentences_distinct_trigrams(
    sentence: list[int], passages: list[list[int]]
) -> None:
    """Of each passage by itself: a run never reaches from one into the next."""

    def runs(ids: list[int], size: int) -> set[tuple[int, ...]]:
        return {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}

    size = min(3, len(sentence))
    wanted = runs(sentence, size) if size else set()
    expected = [
        len(wanted & runs(passage, size)) / len(wanted) if wanted else 0.0 for passage in passages
    ]
    found = overlaps(as_array(sentence), [as_array(passage) for passage in passages], 5)
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_a_passage_that_holds_the_whole_sentence_overlaps_wholly(length: int) -> None:
    """Also a sentence that is too short for a trigram."""
    sentence = list(range(10, 10 + length))
    passages = [as_array([1, 2, *sentence, 3]), as_array([1, 2, 3])]
    assert overlaps(as_array(sentence), passages, 100).tolist() == [1.0, 0.0]


def test_trigrams_of_a_large_vocabulary_stay_apart() -> None:
    size = 250_000
    first = as_array([size - 1, size - 2, size - 3])
    assert ngrams(first, size).tolist() == [((size - 1) * size + size - 2) * size + size - 3]
    assert overlaps(first, [as_array([size - 1, size - 2, size - 4])], size).tolist() == [0.0]


@pytest.fixture
def twins(make_store: Callable[..., PassageStore]) -> PassageStore:
    """Forty passages that hold one sentence, and three that do not."""
    sentence = "Fermat was born in the year 1607 near the old harbour of Toulouse."
    others = [
        "A prize and a street in Basel.",
        "Everybody knows the house in Oslo.",
        "A judge lived in Paris.",
    ]
    texts = [*(f"{sentence} A {n} house." for n in range(90)), *others]
    return make_store([{"id": f"a{n}", "title": "A", "text": t} for n, t in enumerate(texts)])


def test_it_searches_deeper_where_the_best_are_all_its_own(
    twins: PassageStore,
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
) -> None:
    """Duplicates fill the first search; candidates that train must still be found."""
    snapshot = make_snapshot(make_towers(), twins)
    example = make_example(twins, 0, "1607")
    ranks = torch.arange(93, dtype=torch.float32).flip(0)[:, None] * torch.ones(16)
    ranked = dataclasses.replace(
        snapshot,
        exact=MappedRows([ranks]),
        scan=MappedRows([ranks.bfloat16()]),
        max_norm=float(ranks.norm(dim=-1).max()),
        max_rounding=1.0,
    )
    searched = []
    real = type(ranked).search

    def spy(self: Snapshot, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        searched.append((len(queries), k))
        return real(self, queries, k)

    finder = CandidateFinder(twins, num_candidates=4, overlap_limit=0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(ranked), "search", spy)
        rows, stale = finder.find(ranked, torch.ones(2, 16), [example, example])
    assert rows == [[NULL_ROW, 90, 91, 92]] * 2
    assert searched == [(2, 11), (2, 93)]
    expected = torch.tensor([float("nan"), 2 * 16.0, 16.0, 0.0]).expand(2, -1)
    torch.testing.assert_close(stale, expected, equal_nan=True)


def test_scores_come_from_the_snapshot_in_the_order_of_the_candidates(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
) -> None:
    snapshot = make_snapshot(make_towers())
    examples = [make_example(store, 0, "1607"), make_example(store, 13, "Cantor")]
    queries = torch.randn(2, 16)
    finder = CandidateFinder(store, num_candidates=6, overlap_limit=0.6)
    rows, stale = finder.find(snapshot, queries, examples)
    assert stale.shape == (2, 6)
    assert stale[:, 0].isnan().all()
    for number, chosen in enumerate(rows):
        expected = snapshot.exact[torch.tensor(chosen[1:])] @ queries[number]
        torch.testing.assert_close(stale[number, 1:], expected, rtol=1e-5, atol=1e-5)
        assert (stale[number, 1:-1] >= stale[number, 2:]).all()


def test_queries_may_carry_gradients_and_come_in_any_layout(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
) -> None:
    snapshot = make_snapshot(make_towers())
    queries = torch.randn(16, 2, requires_grad=True).T
    examples = [make_example(store, 0, "1607"), make_example(store, 13, "Cantor")]
    rows, stale = CandidateFinder(store, num_candidates=3, overlap_limit=0.6).find(
        snapshot, queries, examples
    )
    assert [len(chosen) for chosen in rows] == [3, 3]
    assert not stale.requires_grad
