"""Exact maximum inner product search by chunked matrix products and a running top-k."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from realm.device import CPU
from realm.index.mapped import MappedRows

CHUNK_ROWS = 1 << 16
"""Rows scored at once: peak memory is queries x CHUNK_ROWS scores, whatever the corpus."""
RESCORED_FLOATS = 1 << 24
"""Numbers of the widened top-k that are gathered at once (64 MiB)."""
BF16_UNIT = 2.0**-8
"""Largest relative error of one rounding to bfloat16, which has 8 bits of significand."""
FLOAT32_UNIT = 2.0**-22
"""Largest error of three float32 sums of products (scan, rescoring, the search that is matched),
relative to dim x norm x norm: 2**-24 each, rounded up."""


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

    A widened top-k is found among the 16-bit vectors, its members are scored again in 32 bits
    from `exact`, and a bound on the error of the scan certifies that no row outside could belong
    to the top k. Queries without a certificate (rare: near-ties) are searched in 32 bits.

    With q~, x~ the rounded vectors, q.x - q~.x~ = (q - q~).x + q~.(x - x~); the scan's own sum
    is off by float32 errors and one rounding to bfloat16.

    Args:
        queries: in 32 bits.
        scan: the vectors rounded to bfloat16.
        exact: the same in float32; only the widened top-k is touched.
        k: how many.
        max_norm: largest norm of a row of `exact`.
        max_rounding: largest norm of a row of `exact - scan`.

    Raises:
        ValueError: k is not between 1 and the number of passages.
    """
    check_k(k, len(scan))
    widened = max(4 * k, k + 32)
    if 2 * widened >= len(scan):
        return search(queries, exact, k)
    scanned, rows = search(queries, scan, widened)
    best, rows = in_order(rescore(queries, exact, rows), rows)
    best, rows = best[:, :k].clone(), rows[:, :k].clone()
    rounded = queries.to(scan.dtype).float()
    error = (
        (queries - rounded).norm(dim=-1) * max_norm
        + rounded.norm(dim=-1) * max_rounding
        + scanned[:, -1].abs() * BF16_UNIT
        + queries.shape[1] * FLOAT32_UNIT * queries.norm(dim=-1) * max_norm
    )
    doubtful = (best[:, -1] <= scanned[:, -1] + error).nonzero()[:, 0]
    if len(doubtful):
        best[doubtful], rows[doubtful] = search(queries[doubtful], exact, k)
    return best, rows


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
