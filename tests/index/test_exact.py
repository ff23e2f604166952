"""The search returns what a float32 search over everything returns, near-ties included."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realm.index import exact as exact_module
from realm.index import scan as scan_module
from realm.index import scoring
from realm.index.exact import search, search_exactly
from realm.index.mapped import MappedRows
from realm.index.scan import surviving_rows


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_module, "QUERIES_AT_ONCE", 3)
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


def test_order_that_bfloat16_cannot_see_is_found_without_a_second_pass(
    searched: list[tuple[torch.dtype, int]],
) -> None:
    """600 rows within one step of bfloat16: all that are in doubt survive, 32 bits decide."""
    chance = torch.Generator().manual_seed(0)
    base = torch.randn(16, generator=chance)
    order = torch.randperm(600, generator=chance)
    passages = base * (1 + 1e-5 * order[:, None])
    assert len(passages.bfloat16().unique(dim=0)) < 100
    scores, rows = two_stage(base[None], passages, 5)
    assert order[rows[0]].tolist() == [599, 598, 597, 596, 595]
    assert searched == []
    _, scanned = search(base[None], passages.bfloat16(), 5)
    assert order[scanned[0]].tolist() != [599, 598, 597, 596, 595]
    torch.testing.assert_close(scores, brute_force(base[None], passages, 5)[0].float())


def test_only_queries_that_too_many_rows_survive_are_searched_in_32_bits(
    searched: list[tuple[torch.dtype, int]],
) -> None:
    passages = torch.zeros(10_000, 16)
    passages[:, 0] = torch.arange(10_000) ** 2 / 1e4  # far apart at the top
    passages[:, 1] = 1.0 + torch.arange(10_000) * 1e-7  # in doubt everywhere
    queries = torch.eye(16)[:2]
    _, rows = two_stage(queries, passages, 3)
    assert rows.tolist() == [[9_999, 9_998, 9_997]] * 2
    assert searched == [(torch.float32, 1)]


def test_a_query_that_is_not_a_number_disturbs_no_other() -> None:
    queries, passages = problem(3, 900, 8, "random", 4)
    expected = two_stage(queries, passages, 5)
    queries[1] = float("nan")
    scores, rows = two_stage(queries, passages, 5)
    assert scores.shape == rows.shape == (3, 5)
    torch.testing.assert_close(scores[[0, 2]], expected[0][[0, 2]])
    assert torch.equal(rows[[0, 2]], expected[1][[0, 2]])


@pytest.mark.parametrize(
    ("value", "is_known"), [(float("nan"), True), (float("nan"), False), (float("inf"), True)]
)
@pytest.mark.parametrize("num_queries", [1, 3, 20])
def test_a_row_that_is_not_a_number_hides_none_that_is(
    num_queries: int,
    value: float,
    is_known: bool,  # noqa: FBT001 - of several norms, the largest forgets one that is no number
) -> None:
    queries, passages = problem(num_queries, 1_000, 32, "random", 5)
    before = norms(passages)
    passages[[10, 990]] = value
    told = norms(passages) if is_known else before
    scores, rows = search_exactly(queries, passages.bfloat16(), passages, 5, **told)
    expected = search(queries, passages, 5)
    torch.testing.assert_close(scores, expected[0], equal_nan=True)
    assert [set(found) for found in rows.tolist()] == [set(e) for e in expected[1].tolist()]


def test_a_small_index_is_searched_in_32_bits_at_once(
    searched: list[tuple[torch.dtype, int]],
) -> None:
    queries, passages = problem(2, 40, 4, "random", 1)
    two_stage(queries, passages, 5)
    assert searched == [(torch.float32, 2)]


@settings(max_examples=150)
@given(
    one_by_pairs=st.booleans(),
    is_quick=st.booleans(),
    order=st.sampled_from(["as drawn", "best last", "best first"]),
    block_rows=st.sampled_from([16, 64, 256]),
    k=st.integers(1, 6),
    **{**PROBLEMS, "num_queries": st.sampled_from([1, 2, 3, 4, 5, 16])},
)
def test_the_true_top_k_survive_many_small_blocks(
    one_by_pairs: bool,  # noqa: FBT001 - drawn
    is_quick: bool,  # noqa: FBT001 - drawn
    order: str,
    block_rows: int,
    k: int,
    num_queries: int,
    num_passages: int,
    dim: int,
    kind: str,
    seed: int,
) -> None:
    queries, passages = problem(num_queries, 4 * num_passages + 2, dim, kind, seed)
    if order != "as drawn":
        by_score = (passages @ queries[0]).argsort(descending=order == "best first")
        passages = passages[by_score]
    k = min(k, len(passages))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "BLOCK_SCORES", block_rows * num_queries)
        patch.setattr(scoring, "PAIR_DIMS", range(2, 1_000 * one_by_pairs))
        patch.setattr(scoring, "PAIR_ROWS", 50)
        patch.setattr(scoring, "WIDE_ROWS", 50)
        patch.setattr(scoring, "has_quick_bfloat16", lambda _: is_quick)
        scan = MappedRows(passages.bfloat16().tensor_split(2))
        found = surviving_rows(queries, scan, k, **norms(passages))
    truth = queries.double() @ passages.double().T
    size = float(queries.norm(dim=-1).max() * passages.norm(dim=-1).max())
    for number, scores in enumerate(truth):
        survived = found.rows[number, : found.counts[number]]
        assert (found.rows[number, found.counts[number] :] == scan_module.NO_ROW).all()
        assert len(set(survived.tolist())) == len(survived)
        if len(survived) < k:  # given up
            assert len(passages) > scan_module.FEWEST_GIVEN_UP or not survived.numel()
        else:
            best = scores[survived].sort(descending=True).values[:k]
            torch.testing.assert_close(
                best, scores.sort(descending=True).values[:k], rtol=0.0, atol=1e-6 * size
            )


@pytest.mark.parametrize("is_quick", [True, False])
def test_no_processor_multiplies_in_16_bits_without_instructions_for_them(
    monkeypatch: pytest.MonkeyPatch, *, is_quick: bool
) -> None:
    queries, passages = problem(4, 5_000, 24, "random", 6)
    multiplied: list[torch.dtype] = []
    multiply = torch.mm

    def watched(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
        multiplied.append(left.dtype)
        return multiply(left, right, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    monkeypatch.setattr(scoring, "has_quick_bfloat16", lambda _: is_quick)
    found = surviving_rows(queries, passages.bfloat16(), 5, **norms(passages))
    assert set(multiplied) == {torch.bfloat16 if is_quick else torch.float32}
    assert (found.counts >= 5).all()


@pytest.mark.parametrize("dim", [64, 128])
def test_one_query_is_searched_as_many_are(dim: int) -> None:
    queries, passages = problem(2, 20_000, dim, "random", 6)
    expected = two_stage(queries, passages, 10)
    for number in range(2):
        scores, rows = two_stage(queries[number : number + 1], passages, 10, num_parts=3)
        torch.testing.assert_close(scores, expected[0][number : number + 1])
        assert torch.equal(rows, expected[1][number : number + 1])


def test_few_rows_survive_and_are_read_in_32_bits() -> None:
    """Else the 32-bit vectors would have to stay in memory."""
    queries, passages = problem(8, 20_000, 64, "random", 5)
    found = surviving_rows(queries, passages.bfloat16(), 10, **norms(passages))
    assert found.counts.min() >= 10
    assert found.counts.max() < 60


def test_of_equal_scores_the_first_rows_are_found() -> None:
    passages = torch.ones(3_000, 128)
    passages[[7, 700, 2_000, 2_999]] = 2.0
    for num_queries in (1, 3):
        _, rows = two_stage(torch.ones(num_queries, 128), passages, 6)
        assert rows.tolist() == [[7, 700, 2_000, 2_999, 0, 1]] * num_queries


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
    monkeypatch.setattr(exact_module, "RESCORED_FLOATS", 150 * 8)
    scores, rows = two_stage(queries, passages, 100)
    assert max(gathered) == 150
    assert sum(gathered) >= 5 * 100
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
