"""A search that ranks share returns what one process returns, for each rank's own queries."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from realm.index.builder import publish_vectors
from realm.index.mapped import MappedRows
from realm.index.sharded import ShardedIndex
from realm.index.snapshot import Snapshot
from realm.ranks import Ranks
from realm.storage import Request

Torchrun = Callable[..., subprocess.CompletedProcess[str]]

SEARCH = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from realm.index.mapped import MappedRows
from realm.index.sharded import ShardedIndex
from realm.index.snapshot import Snapshot
from realm.torchrun import started_ranks

folder = Path(sys.argv[1])
queries = load_file(folder / "queries.safetensors")["queries"]
with started_ranks() as ranks:
    mine = queries[:0] if ranks.rank == 1 else queries[:4] if ranks.rank == 0 else queries[4:]
    out = {}
    for name in ("large", "ties", "tiny"):
        index = ShardedIndex(Snapshot.open(folder / name), ranks)
        for k in (1, 7, 60, len(index)):
            if k <= len(index):
                scores, rows = index.search(mine.round() if name == "ties" else mine, k)
                out |= {f"{name}.{k}.scores": scores, f"{name}.{k}.rows": rows}
        out[f"{name}.held"] = index._scan[__import__("torch").arange(len(index.rows))]
    save_file({n: t.contiguous() for n, t in out.items()}, folder / f"{ranks.rank}.safetensors")
"""
DIM = 16


def publish(folder: Path, vectors: Tensor) -> Snapshot:
    """Publish vectors as a snapshot in shards that no rank's part agrees with."""
    publish_vectors(
        lambda rows: vectors[rows.start : rows.stop],
        folder,
        Request(
            kind="index",
            settings={"step": 0, "shard_rows": 130},
            inputs={"passages": "p", "embedder": "e"},
        ),
        num_passages=len(vectors),
        dim=DIM,
    )
    return Snapshot.open(folder)


@pytest.fixture(scope="module")
def queries() -> Tensor:
    return torch.randn(9, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    """One large enough for the 16-bit scan on every rank, one full of ties, one of two rows."""
    folder = tmp_path_factory.mktemp("snapshots")
    chance = torch.Generator().manual_seed(0)
    large = torch.randn(700, DIM, generator=chance)
    several = torch.randn(5, DIM, generator=chance).mul(3).round()[torch.arange(400) % 5]
    vectors = {"large": large, "ties": several, "tiny": large[:2]}
    return {name: publish(folder / name, rows) for name, rows in vectors.items()}


@pytest.fixture(scope="module")
def found(
    torchrun: Torchrun, snapshots: dict[str, Snapshot], queries: Tensor
) -> list[dict[str, Tensor]]:
    """What each of three ranks found: the second has no queries, and no rows of the tiny one."""
    folder = snapshots["large"].folder.parent
    save_file({"queries": queries}, folder / "queries.safetensors")
    ended = torchrun(SEARCH, folder, world=3)
    assert ended.returncode == 0, ended.stderr
    return [load_file(folder / f"{rank}.safetensors") for rank in range(3)]


@pytest.mark.parametrize("k", [1, 7, 60, 700])
def test_all_ranks_together_find_what_one_finds(
    found: list[dict[str, Tensor]], snapshots: dict[str, Snapshot], queries: Tensor, k: int
) -> None:
    scores, rows = snapshots["large"].search(queries, k)
    assert found[1][f"large.{k}.rows"].shape == (0, k)
    together = {n: torch.cat([each[n] for each in found]) for n in found[0] if n.startswith("lar")}
    assert torch.equal(together[f"large.{k}.rows"], rows)
    torch.testing.assert_close(together[f"large.{k}.scores"], scores)


@pytest.mark.parametrize("k", [60, 400])
def test_equal_scores_come_in_the_order_of_their_rows(
    found: list[dict[str, Tensor]], snapshots: dict[str, Snapshot], queries: Tensor, k: int
) -> None:
    """Whole numbers: their products are exact wherever in a matrix they stand."""
    scores, _ = snapshots["ties"].search(queries.round(), k)
    together = torch.cat([each[f"ties.{k}.scores"] for each in found])
    torch.testing.assert_close(together, scores)
    for rows in torch.cat([each[f"ties.{k}.rows"] for each in found]).tolist():
        assert len(set(rows)) == k
        kinds = [row % 5 for row in rows]
        for kind in set(kinds):
            same = [row for row in rows if row % 5 == kind]
            assert same == sorted(same)


@pytest.mark.parametrize("k", [1, 2])
def test_ranks_without_a_row_join_in(
    found: list[dict[str, Tensor]], snapshots: dict[str, Snapshot], queries: Tensor, k: int
) -> None:
    if k == 1:
        _, rows = snapshots["tiny"].search(queries, k)
        assert torch.equal(torch.cat([each[f"tiny.{k}.rows"] for each in found]), rows)
    assert [len(each["tiny.held"]) for each in found] == [0, 1, 1]


def test_each_rank_holds_its_own_rows_only(
    found: list[dict[str, Tensor]], snapshots: dict[str, Snapshot]
) -> None:
    whole = snapshots["large"].scan[torch.arange(700)]
    assert [len(each["large.held"]) for each in found] == [233, 233, 234]
    assert torch.equal(torch.cat([each["large.held"] for each in found]), whole)


def test_one_rank_searches_as_the_snapshot_does(
    snapshots: dict[str, Snapshot], queries: Tensor
) -> None:
    index = ShardedIndex(snapshots["large"], Ranks())
    assert len(index) == 700
    for ours, theirs in zip(
        index.search(queries, 5), snapshots["large"].search(queries, 5), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("k", [0, 701])
def test_more_than_there_are_cannot_be_found(
    snapshots: dict[str, Snapshot], queries: Tensor, k: int
) -> None:
    with pytest.raises(ValueError, match=f"k={k}, expected 1 to 700"):
        ShardedIndex(snapshots["large"], Ranks()).search(queries, k)


@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_part_of_mapped_rows_is_numbered_from_zero(num_parts: int) -> None:
    whole = torch.arange(30.0).view(10, 3)
    rows = MappedRows(whole.tensor_split(num_parts))
    for part in (range(10), range(3, 7), range(4, 5), range(9, 10), range(5, 5)):
        cut = rows.part(part)
        assert len(cut) == len(part)
        assert (cut.dim, cut.dtype) == (3, torch.float32)
        expected = whole[part.start : part.stop]
        assert torch.equal(cut[torch.arange(len(part))], expected)
        assert torch.equal(
            torch.cat([expected[:0], *(chunk for _, chunk in cut.chunks(2))]), expected
        )
