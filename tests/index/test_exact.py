"""The search returns what a float32 search over everything returns, near-ties included."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realm.index import exact as exact_module
from realm.index.exact import search, search_exactly
from realm.index.mapped import MappedRows


def brute_force(queries: Tensor, passages: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best (scores, rows) in 64 bits, equal scores by row."""
    scores = queries.double() @ passages.double().T
    order = scores.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return scores.gather(-1, order), order


def norms(passages: Tensor) -> dict[str, float]:
    rounding = (passages - passages.bfloat16().float()).norm(dim=-1).max()
    return {"max_norm": float(passages.norm(dim=-1).max()), "max_rounding": float(rounding)}


def two_stage(
    queries: Tensor, passages: Tensor, k: int, *, num_parts: int = 1
) -> tuple[Tensor, Tensor]:
    scan = MappedRows(passages.bfloat16().tensor_split(num_parts))
    exact = MappedRows(passages.tensor_split(num_parts))
    return search_exactly(queries, scan, exact, k, **norms(passages))


def assert_is_the_top_k(
    queries: Tensor, passages: Tensor, scores: Tensor, rows: Tensor, k: int
) -> None:
    """Check scores and rows up to what 32 bits can tell apart."""
    truth, _ = brute_force(queries, passages, k)
    size = float(queries.norm(dim=-1).max() * passages.norm(dim=-1).max())
    close = {"rtol": 0.0, "atol": 1e-6 * size + 1e-7}
    assert scores.shape == rows.shape == (len(queries), k)
    torch.testing.assert_close(scores.double(), truth, **close)
    own = torch.einsum("qd,qkd->qk", queries.double(), passages.double()[rows])
    torch.testing.assert_close(own, truth, **close)
    assert all(len(set(found)) == k for found in rows.tolist())
    assert (scores[:, :-1] >= scores[:, 1:]).all()


PROBLEMS = {
    "num_queries": st.integers(1, 4),
    "num_passages": st.integers(1, 300),
    "dim": st.integers(1, 20),
    "kind": st.sampled_from(["random", "near ties", "duplicates", "norms", "coarse"]),
    "seed": st.integers(0, 10_000),
}


def problem(
    num_queries: int, num_passages: int, dim: int, kind: str, seed: int
) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    queries = torch.randn(num_queries, dim, generator=chance)
    passages = torch.randn(num_passages, dim, generator=chance)
    if kind == "near ties":
        passages = passages[:1] + 1e-4 * passages
    elif kind == "duplicates":
        passages = passages[
            torch.randint(max(1, num_passages // 7), (num_passages,), generator=chance)
        ]
    elif kind == "norms":
        passages = passages * torch.logspace(-6, 6, num_passages)[:, None]
    elif kind == "coarse":  # halfway between two bfloat16 values, above and below
        step = torch.randint(-2, 3, (num_passages, dim), generator=chance)
        passages = 1.0 + step * 2.0**-8 + step.sign() * 2.0**-18
    return queries, passages


@settings(max_examples=80)
@given(k=st.integers(1, 12), chunk_rows=st.integers(1, 400), **PROBLEMS)
def test_search_in_chunks_is_a_brute_force_search(
    k: int, chunk_rows: int, num_queries: int, num_passages: int, dim: int, kind: str, seed: int
) -> None:
    queries, passages = problem(num_queries, num_passages, dim, kind, seed)
    k = min(k, num_passages)
    scores, rows = search(queries, passages, k, chunk_rows=chunk_rows)
    assert_is_the_top_k(queries, passages, scores, rows, k)


@settings(max_examples=120)
@given(k=st.integers(1, 12), num_parts=st.integers(1, 3), **PROBLEMS)
def test_the_two_stage_search_is_a_brute_force_search(
    k: int, num_parts: int, num_queries: int, num_passages: int, dim: int, kind: str, seed: int
) -> None:
    queries, passages = problem(num_queries, num_passages + 2, dim, kind, seed)
    k = min(k, len(passages))
    scores, rows = two_stage(queries, passages, k, num_parts=num_parts)
    assert_is_the_top_k(queries, passages, scores, rows, k)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, int]]:
    """Note (dtype, number of queries) of each pass over the passages."""
    noted = []

    def spy(
        queries: Tensor, passages: Tensor | MappedRows, k: int, **settings: int
    ) -> tuple[Tensor, Tensor]:
        noted.append((passages.dtype, len(queries)))
        return search(queries, passages, k, **settings)

    monkeypatch.setattr(exact_module, "search", spy)
    return noted


def test_order_that_bfloat16_cannot_see_comes_from_the_fall_back(
    searched: list[tuple[torch.dtype, int]],
) -> None:
    """600 rows within one step of bfloat16: no certificate, so 32 bits decide."""
    chance = torch.Generator().manual_seed(0)
    base = torch.randn(16, generator=chance)
    order = torch.randperm(600, generator=chance)
    passages = base * (1 + 1e-5 * order[:, None])
    assert len(passages.bfloat16().unique(dim=0)) < 100
    scores, rows = two_stage(base[None], passages, 5)
    assert order[rows[0]].tolist() == [599, 598, 597, 596, 595]
    assert (torch.float32, 1) in searched
    _, scanned = search(base[None], passages.bfloat16(), 5)
    assert order[scanned[0]].tolist() != [599, 598, 597, 596, 595]
    torch.testing.assert_close(scores, brute_force(base[None], passages, 5)[0].float())


def test_only_queries_in_doubt_are_searched_in_32_bits(
    searched: list[tuple[torch.dtype, int]],
) -> None:
    """Scores that are far apart are certified by the 16-bit scan."""
    passages = torch.zeros(600, 16)
    passages[:, 0] = torch.arange(600) ** 2 / 100  # far apart at the top
    passages[:, 1] = 1.0 + torch.arange(600) * 1e-5  # in doubt everywhere
    queries = torch.eye(16)[:2]
    _, rows = two_stage(queries, passages, 3)
    assert rows.tolist() == [[599, 598, 597]] * 2
    assert searched == [(torch.bfloat16, 2), (torch.float32, 1)]


def test_a_small_index_is_searched_in_32_bits_at_once(
    searched: list[tuple[torch.dtype, int]],
) -> None:
    queries, passages = problem(2, 70, 4, "random", 1)
    two_stage(queries, passages, 5)
    assert searched == [(torch.float32, 2)]


@settings(max_examples=60)
@given(st.integers(1, 64), st.floats(1e-3, 1e3), st.integers(0, 10_000))
def test_the_bound_holds_for_every_row(dim: int, scale: float, seed: int) -> None:
    """|q.x - scanned| never exceeds the error that the certificate allows for."""
    chance = torch.Generator().manual_seed(seed)
    queries = scale * torch.randn(3, dim, generator=chance)
    passages = torch.randn(200, dim, generator=chance) * (1 + torch.rand(200, 1, generator=chance))
    scanned = (queries.bfloat16() @ passages.bfloat16().T).double()
    truth = queries.double() @ passages.double().T
    size = norms(passages)
    rounded = queries.bfloat16().float()
    error = (
        (queries - rounded).norm(dim=-1) * size["max_norm"]
        + rounded.norm(dim=-1) * size["max_rounding"]
        + dim * exact_module.FLOAT32_UNIT * queries.norm(dim=-1) * size["max_norm"]
    )[:, None] + scanned.abs() * exact_module.BF16_UNIT
    assert ((truth - scanned).abs() <= error).all()


def test_equal_scores_come_in_the_order_of_their_rows() -> None:
    passages = torch.ones(300, 4)
    passages[200] = 2.0
    queries = torch.ones(1, 4)
    for scores, rows in (search(queries, passages, 300), two_stage(queries, passages, 300)):
        assert rows[0].tolist() == [200, *range(200), *range(201, 300)]
        assert scores[0, 0] == 8.0
    _, rows = two_stage(queries, passages, 4)
    assert rows[0, 0] == 200
    assert rows[0, 1:].tolist() == sorted(rows[0, 1:].tolist())


def test_a_wide_k_is_rescored_a_few_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, passages = problem(5, 900, 8, "random", 2)
    expected = two_stage(queries, passages, 100)
    gathered = []
    real = MappedRows.__getitem__

    def spy(self: MappedRows, rows: Tensor) -> Tensor:
        gathered.append(rows.numel())
        return real(self, rows)

    monkeypatch.setattr(MappedRows, "__getitem__", spy)
    monkeypatch.setattr(exact_module, "RESCORED_FLOATS", 2 * 400 * 8)
    scores, rows = two_stage(queries, passages, 100)
    assert max(gathered) == 2 * 400
    torch.testing.assert_close(scores, expected[0])
    assert torch.equal(rows, expected[1])


def test_queries_and_passages_need_not_be_contiguous() -> None:
    queries, passages = problem(8, 400, 6, "random", 3)
    expected = two_stage(queries[::2], passages, 5)
    wide = torch.cat([passages, passages], dim=-1)[:, :6]
    assert not wide.is_contiguous()
    for found in (
        two_stage(queries.T.contiguous().T[::2], passages, 5),
        two_stage(queries[::2], wide, 5),
        search(queries[::2], wide, 5, chunk_rows=64),
    ):
        torch.testing.assert_close(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_no_queries_find_nothing() -> None:
    scores, rows = two_stage(torch.zeros(0, 6), torch.randn(400, 6), 5)
    assert scores.shape == rows.shape == (0, 5)


@pytest.mark.parametrize("k", [0, 11])
@pytest.mark.parametrize("find", [search, two_stage])
def test_more_passages_than_there_are_cannot_be_found(
    find: Callable[..., tuple[Tensor, Tensor]], k: int
) -> None:
    with pytest.raises(ValueError, match=f"k={k}, expected 1 to 10"):
        find(torch.randn(2, 3), torch.randn(10, 3), k)
