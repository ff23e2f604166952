"""Exact maximum inner product search by chunked matrix products and a running top-k."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from realm.device import CPU
from realm.index.mapped import MappedRows
from realm.index.scan import NO_ROW, Survivors, surviving_rows

CHUNK_ROWS = 1 << 16
"""Rows scored at once: peak memory is queries x CHUNK_ROWS scores, whatever the corpus."""
QUERIES_AT_ONCE = 512
"""More queries take several passes over the passages."""
RESCORED_FLOATS = 1 << 19
"""Numbers of the rows scored again that are gathered at once (2 MiB)."""
SMALL_INDEX = 8
"""An index of at most so many times k rows is searched in 32 bits at once."""


def search(
    queries: Float[Tensor, "queries dim"],
    passages: Shaped[Tensor, "passages dim"] | MappedRows,
    k: int,
    *,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return the k largest inner products of each query and their rows, best first.

    Products are taken in the passages' dtype (bfloat16 or float32) where the passages lie; scores
    come back in 32 bits, in main memory.
    Equal scores come in the order of their rows; which of them come last among the k is open.

    Raises:
        ValueError: k is not between 1 and the number of passages.
    """
    check_k(k, len(passages))
    queries = queries.to(passages.dtype)
    best = torch.empty((len(queries), 0))
    rows = torch.empty((len(queries), 0), dtype=torch.long)
    for start, chunk in _chunks(passages, chunk_rows):
        scores = (queries.to(chunk.device) @ chunk.T).float()
        top = scores.topk(min(k, scores.shape[1]), dim=-1)
        chunk_best, chunk_found = top.values.to(CPU), top.indices.to(CPU)
        merged = torch.cat([best, chunk_best], dim=-1)
        best, kept = merged.topk(min(k, merged.shape[1]), dim=-1)
        rows = torch.cat([rows, chunk_found + start], dim=-1).gather(-1, kept)
    return in_order(best, rows)


def search_exactly(
    queries: Float[Tensor, "queries dim"],
    scan: Shaped[Tensor, "passages dim"] | MappedRows,
    exact: Float[Tensor, "passages dim"] | MappedRows,
    k: int,
    *,
    max_norm: float,
    max_rounding: float,
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return what a float32 search returns, at the price of a 16-bit scan.

    The scan keeps every row that its error bound cannot exclude from the top k (`realm.index.scan`)
    and those are scored again in 32 bits. Equal vectors get equal scores, and of equal scores the
    first rows are among the k. A small index, and queries that the scan gives up because hundreds
    of rows are nearly equal, are searched in 32 bits: there `search` leaves both open.

    Args:
        queries: in 32 bits.
        scan: the vectors rounded to bfloat16.
        exact: the same in float32; only rows that survive the scan are touched.
        k: how many.
        max_norm: largest norm of a row of `exact`.
        max_rounding: largest norm of a row of `exact - scan`.

    Raises:
        ValueError: k is not between 1 and the number of passages.
    """
    check_k(k, len(scan))
    if len(scan) <= SMALL_INDEX * k or not len(queries):
        return search(queries, exact, k)
    norms = {"max_norm": max_norm, "max_rounding": max_rounding}
    found = [
        _best_survivors(some, exact, surviving_rows(some, scan, k, **norms), k)
        for some in queries.split(QUERIES_AT_ONCE)
    ]
    return torch.cat([best for best, _ in found]), torch.cat([rows for _, rows in found])


def _best_survivors(
    queries: Float[Tensor, "queries dim"],
    exact: Float[Tensor, "passages dim"] | MappedRows,
    survivors: Survivors,
    k: int,
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return the k best of those that survived; search in 32 bits for queries that have fewer."""
    is_row = survivors.rows != NO_ROW
    scores = torch.full(is_row.shape, float("-inf"))
    query, rows = is_row.nonzero()[:, 0], survivors.rows[is_row]
    size = max(1, RESCORED_FLOATS // queries.shape[1])
    pairs = zip(query.split(size), rows.split(size), strict=True)
    # not a matrix product, whose sums depend on the place of a row: equal vectors score equally
    scores[is_row] = torch.cat([(exact[r] * queries[q]).sum(dim=-1) for q, r in pairs])
    best, found = in_order(scores, survivors.rows)
    given_up = survivors.counts < k
    if not bool(given_up.any()):
        return best[:, :k], found[:, :k]
    searched = search(queries[given_up], exact, k)
    best, found = (_widened(table, k) for table in (best, found))
    best[given_up], found[given_up] = searched
    return best, found


def _widened(table: Shaped[Tensor, "queries most"], k: int) -> Shaped[Tensor, "queries k"]:
    """Return the first k columns, of which the last may not be there."""
    return torch.nn.functional.pad(table, (0, max(0, k - table.shape[1])))[:, :k]


def check_k(k: int, num_passages: int) -> None:
    """Refuse to find no passages, or more than there are.

    Raises:
        ValueError: k is not between 1 and the number of passages.
    """
    if not 1 <= k <= num_passages:
        raise ValueError(f"k={k}, expected 1 to {num_passages}: the index holds so many passages")


def _chunks(
    passages: Shaped[Tensor, "passages dim"] | MappedRows, size: int
) -> Iterator[tuple[int, Shaped[Tensor, "rows dim"]]]:
    rows = MappedRows([passages]) if isinstance(passages, Tensor) else passages
    return rows.chunks(size)


def rescore(
    queries: Float[Tensor, "queries dim"],
    exact: Float[Tensor, "passages dim"] | MappedRows,
    rows: Int[Tensor, "queries k"],
) -> Float[Tensor, "queries k"]:
    """Return the float32 inner products of each query with its own rows."""
    size = max(1, RESCORED_FLOATS // max(1, rows.shape[1] * queries.shape[1]))
    parts = [
        torch.einsum("qd,qkd->qk", some, exact[chosen])
        for some, chosen in zip(queries.split(size), rows.split(size), strict=True)
    ]
    return torch.cat(parts)


def in_order(
    scores: Float[Tensor, "queries k"], rows: Int[Tensor, "queries k"]
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return both sorted by score, best first, equal scores by row."""
    by_row = rows.argsort(dim=-1)
    rows, scores = rows.gather(-1, by_row), scores.gather(-1, by_row)
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return scores.gather(-1, order), rows.gather(-1, order)
