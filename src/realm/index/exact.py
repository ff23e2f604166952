"""Exact maximum inner product search by chunked matrix products and a running top-k."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

CHUNK_ROWS = 1 << 16
"""Rows scored at once: peak memory is queries x CHUNK_ROWS scores, whatever the corpus."""
BF16_UNIT = 2.0**-8
"""Relative error of one rounding to bfloat16 (8 bits of significand), doubled to be safe."""


def search(
    queries: Float[Tensor, "queries dim"],
    passages: Shaped[Tensor, "passages dim"],
    k: int,
    *,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return the k largest inner products of each query and their rows, best first.

    Products are taken in the passages' dtype (bfloat16 or float32); scores come back in 32 bits.

    Raises:
        ValueError: k is larger than the number of passages.
    """
    if k > len(passages):
        raise ValueError(f"k={k} but the index holds {len(passages)} passages")
    queries = queries.to(passages.dtype)
    best = torch.empty((len(queries), 0))
    rows = torch.empty((len(queries), 0), dtype=torch.long)
    for start in range(0, len(passages), chunk_rows):
        scores = (queries @ passages[start : start + chunk_rows].T).float()
        chunk_best, chunk_found = scores.topk(min(k, scores.shape[1]), dim=-1)
        merged = torch.cat([best, chunk_best], dim=-1)
        best, kept = merged.topk(min(k, merged.shape[1]), dim=-1)
        rows = torch.cat([rows, chunk_found + start], dim=-1).gather(-1, kept)
    return best, rows


def search_exactly(
    queries: Float[Tensor, "queries dim"],
    scan: Shaped[Tensor, "passages dim"],
    exact: Float[Tensor, "passages dim"],
    k: int,
    *,
    max_norm: float,
    max_rounding: float,
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return what a float32 search returns, at the price of a 16-bit scan.

    A widened top-k is found among the 16-bit vectors, its members are scored again in 32 bits
    from `exact`, and a bound on the error of the scan certifies that no row outside could belong
    to the top k. Queries without a certificate (rare: near-ties) are searched in 32 bits.

    Args:
        queries: in 32 bits.
        scan: the vectors rounded to bfloat16.
        exact: the same in float32; only the widened top-k is touched.
        k: how many.
        max_norm: largest norm of a row of `exact`.
        max_rounding: largest norm of a row of `exact - scan`.

    Raises:
        ValueError: k is larger than the number of passages.
    """
    widened = min(len(scan), max(4 * k, k + 32))
    if 2 * widened >= len(scan):
        return search(queries, exact, k)
    scanned, rows = search(queries, scan, widened)
    rescored = torch.einsum("qd,qkd->qk", queries, exact[rows])
    # Sorted by row first, so that equal scores come in the order of their rows.
    by_row = rows.argsort(dim=-1)
    rows, rescored = rows.gather(-1, by_row), rescored.gather(-1, by_row)
    order = rescored.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    best, rows = rescored.gather(-1, order), rows.gather(-1, order)
    query_error = (queries - queries.to(scan.dtype).float()).norm(dim=-1)
    error = (
        query_error * max_norm
        + queries.norm(dim=-1) * max_rounding
        + scanned[:, -1].abs() * BF16_UNIT
        + 1e-4
    )
    doubtful = (best[:, -1] < scanned[:, -1] + error).nonzero()[:, 0]
    if len(doubtful):
        best[doubtful], rows[doubtful] = search(queries[doubtful], exact, k)
    return best, rows
