"""The live index: newer rows stay, files stay as they are, the search stays exact."""

from collections.abc import Callable
from pathlib import Path

import torch

from realm.index.exact import search
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers

ALL = torch.arange(24)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_that_are_older_or_as_old_are_not_written(
    make_snapshot: Callable[..., Snapshot], make_towers: Callable[..., Towers]
) -> None:
    live = LiveIndex(make_snapshot(make_towers(), step=5))
    before = live.vectors(ALL)
    rows = torch.tensor([3, 7])
    assert live.write(rows, torch.ones(2, 16), 5) == 0
    assert torch.equal(live.vectors(ALL), before)
    assert live.write(rows, torch.ones(2, 16), torch.tensor([4, 6])) == 1
    assert torch.equal(live.vectors(torch.tensor([3])), before[3:4])
    assert torch.equal(live.vectors(torch.tensor([7])), torch.ones(1, 16))
    assert live.row_steps[rows].tolist() == [5, 6]
    assert live.oldest_step() == 5
    assert live.mean_staleness(8) == 8 - (23 * 5 + 6) / 24
    assert live.mean_staleness(8, rows) == 2.5


def test_a_swap_keeps_what_is_newer_than_the_snapshot(
    make_snapshot: Callable[..., Snapshot], make_towers: Callable[..., Towers]
) -> None:
    live = LiveIndex(make_snapshot(make_towers(), name="old", step=0))
    live.write(torch.tensor([1, 2]), torch.full((2, 16), 9.0), torch.tensor([4, 12]))
    newer = make_snapshot(make_towers(seed=1), name="new", step=10)
    expected = newer.exact[ALL]
    expected[2] = 9.0
    live.swap(newer)
    assert torch.equal(live.vectors(ALL), expected)
    assert live.row_steps.unique().tolist() == [10, 12]
    assert live.oldest_step() == 10
    rows, vectors, steps = live.replaced()
    assert (rows.tolist(), steps.tolist()) == ([2], [12])
    assert torch.equal(vectors, torch.full((1, 16), 9.0))


def test_the_search_is_exact_after_longer_vectors_were_written(
    make_snapshot: Callable[..., Snapshot],
    make_towers: Callable[..., Towers],
    make_store: Callable[..., object],
    articles: list[dict[str, str]],
) -> None:
    """The bounds of the snapshot hold no longer: larger norms, larger rounding errors."""
    many = make_store([{**one, "id": f"{one['id']}-{n}"} for n in range(10) for one in articles])
    live = LiveIndex(make_snapshot(make_towers(), many, shard_rows=50))
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(64, 16, generator=generator)
    for step in range(1, 6):
        rows = torch.randperm(len(live), generator=generator)[:60]
        # Near to each other, and long: which is best shows beyond the 8 bits of the scan.
        vectors = 50.0 * step * (torch.ones(16) + 1e-4 * torch.randn(60, 16, generator=generator))
        live.write(rows, vectors, step)
        everything = live.vectors(torch.arange(len(live)))
        scores, found = live.search(queries, 5)
        expected, _ = search(queries, everything, 5)
        torch.testing.assert_close(scores, expected, rtol=2e-6, atol=1e-4)
        of_found = (queries[:, None].double() * everything[found].double()).sum(dim=-1)
        torch.testing.assert_close(of_found.float(), expected, rtol=2e-6, atol=1e-4)


def test_files_stay_as_they_are_and_copies_do_not_meet(
    make_snapshot: Callable[..., Snapshot], make_towers: Callable[..., Towers]
) -> None:
    snapshot = make_snapshot(make_towers(), shard_rows=7)
    before = files_of(snapshot.folder)
    first = LiveIndex(snapshot)
    second = LiveIndex(Snapshot.open(snapshot.folder))
    vectors = second.vectors(ALL)
    assert first.write(ALL, torch.zeros(24, 16), 1) == 24
    assert files_of(snapshot.folder) == before
    assert torch.equal(second.vectors(ALL), vectors)
    assert torch.equal(Snapshot.open(snapshot.folder, verify=True).exact[ALL], vectors)
    assert torch.equal(first.vectors(ALL), torch.zeros(24, 16))
