"""Scored afresh: the embedder of this step chooses among what the index proposes."""

from collections.abc import Callable

import pytest
import torch

from realm.index.exact import search
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.refresh.audit import recall_of_index
from realm.refresh.reranking import Reranked

ALL = torch.arange(24)


@pytest.fixture
def live(make_snapshot: Callable[..., Snapshot], make_towers: Callable[..., Towers]) -> LiveIndex:
    return LiveIndex(make_snapshot(make_towers()))


@pytest.fixture
def fresh() -> torch.Tensor:
    return torch.randn(24, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def queries() -> torch.Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(2))


def test_of_all_passages_it_finds_what_a_fresh_index_would(
    live: LiveIndex, fresh: torch.Tensor, queries: torch.Tensor
) -> None:
    before = live.vectors(ALL)
    found = Reranked(live, lambda rows: fresh[rows], num_passages=24).search(queries, 3)
    expected = search(queries, fresh, 3)
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(live.vectors(ALL), before)


def test_it_chooses_among_those_that_the_index_proposes(
    live: LiveIndex, fresh: torch.Tensor, queries: torch.Tensor
) -> None:
    _, proposed = live.search(queries, 6)
    _, found = Reranked(live, lambda rows: fresh[rows], num_passages=6).search(queries, 6)
    assert [set(row) for row in found.tolist()] == [set(row) for row in proposed.tolist()]
    assert len(Reranked(live, lambda rows: fresh[rows], num_passages=6)) == 24


def test_fresh_vectors_are_written_back_where_it_is_asked_for(
    live: LiveIndex, fresh: torch.Tensor, queries: torch.Tensor
) -> None:
    _, proposed = live.search(queries, 6)
    reranked = Reranked(
        live,
        lambda rows: fresh[rows],
        num_passages=6,
        write_back=lambda rows, vectors: live.write(rows, vectors, 3) and None,
    )
    reranked.search(queries, 2)
    rows = proposed.unique()
    assert torch.equal(live.vectors(rows), fresh[rows])
    assert live.row_steps[rows].unique().tolist() == [3]
    assert int((live.row_steps == 3).sum()) == len(rows)


@pytest.mark.parametrize("k", [0, 25])
def test_too_many_are_refused(
    k: int, live: LiveIndex, fresh: torch.Tensor, queries: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="expected 1 to 24"):
        Reranked(live, lambda rows: fresh[rows], num_passages=6).search(queries, k)


def test_recall_of_a_fresh_index_is_one_and_of_a_stale_one_less(
    live: LiveIndex, fresh: torch.Tensor, queries: torch.Tensor
) -> None:
    assert recall_of_index(live, queries, ALL, live.vectors(ALL), 4) == 1.0
    stale = recall_of_index(live, queries, ALL, fresh, 4)
    _, wanted = search(queries, fresh, 4)
    _, found = search(queries, live.vectors(ALL), 4)
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    assert stale == pytest.approx(sum(hits) / 20)
    assert stale < 1.0
    assert recall_of_index(live, queries, ALL, fresh, 4, rerank=24) == 1.0
    assert stale <= recall_of_index(live, queries, ALL, fresh, 4, rerank=12)
