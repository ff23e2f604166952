"""f(x, z) of a block of rows by the product that is quickest where they lie, and its error.

Every product scores rows that were rounded to bfloat16, and sums in 32 bits. What that changes is
bounded for each query by what is known of all rows: the largest norm, the largest rounding.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from realm.device import CPU, has_quick_bfloat16
from realm.index.mapped import MappedRows

BF16_UNIT = 2.0**-8
"""Largest relative error of one rounding to bfloat16, which has 8 bits of significand."""
FLOAT32_UNIT = 2.0**-22
"""Largest error of three float32 sums of products (scan, rescoring, the search that is matched),
relative to dim x norm x norm: 2**-24 each, rounded up."""
LOWER_HALF_UNIT = 2.0**-7
"""Most by which 16 more bits of significand behind a bfloat16 change it, relative to it."""
PAIR_DIMS = range(66, 161)
"""Where `OneQuery` is used. Measured against a product with one column: 32 against 42 ms at 128
dimensions (256 MB), but 47 against 30 at 384 (230 MB) and 5.9 against 3.1 at 64 (38 MB). The ends
are set between these, not measured. Without instructions for 16-bit products `Widened` takes its
place: 38 against 45 ms at 128 dimensions."""
WIDE_ROWS = 1 << 12
"""Rows that `Widened` converts at once: 2 MiB for 128 dimensions."""
COLUMN_QUERIES = range(2, 14)
"""How many queries `Widened` writes one after the other: 4 of 131,072 rows take 10 instead of 21
ms at 128 dimensions, 33 instead of 65 at 384, 12 take 13 and 18; 16 take 17 and 16."""
FEWEST_COLUMNS = 4
"""Fewer are multiplied with as many: 2 and 3 alone take as long as by rows."""
PAIR_ROWS = 1 << 12
"""Rows of which `OneQuery` unpacks a half at once: 1 MiB for 128 dimensions."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a scanned score s may lie from the true one: absolute + relative x |s|."""

    absolute: Float[Tensor, " queries"]
    relative: float

    def floor(self, kth: Float[Tensor, " queries"]) -> Float[Tensor, " queries"]:
        """Return below which scan no row of the true top k lies, of the k-th best scan so far.

        The k rows at or above it have true scores of at least kth - error; a row that beats
        them, s + error >= that. Solved for s, with 1 / (1 +- u) bounded by 1 -+ 2u.
        """
        least = kth - 2 * self.absolute - self.relative * kth.abs()
        return least - 2 * self.relative * least.abs()


class ManyQueries:
    """Scores as one matrix product, rounded to bfloat16."""

    dtype = torch.bfloat16
    by_columns = False

    def __init__(self, queries: Float[Tensor, "queries dim"]) -> None:
        self.queries = queries.bfloat16().T.contiguous()

    def score(self, chunk: Shaped[Tensor, "rows dim"], out: Shaped[Tensor, "rows queries"]) -> None:
        """Write the scores of a block."""
        torch.mm(chunk, self.queries, out=out)

    def errors(
        self, queries: Float[Tensor, "queries dim"], max_norm: float, max_rounding: float
    ) -> Errors:
        """Return the bound: rounding of queries, of rows, of sums, of the result."""
        return Errors(_common_error(queries, max_norm, max_rounding), BF16_UNIT)


class Widened:
    """Scores as matrix products of rows in 32 bits, for a processor without instructions for 16.

    There a product in 16 bits takes up to 60 times as long (the AVX2 of a laptop). Few queries are
    written one after the other (`by_columns`).
    """

    dtype = torch.float32

    def __init__(self, queries: Float[Tensor, "queries dim"]) -> None:
        self.by_columns = len(queries) in COLUMN_QUERIES
        missing = max(0, FEWEST_COLUMNS - len(queries)) if self.by_columns else 0
        self.queries = nn.functional.pad(queries, (0, 0, 0, missing)).T.contiguous()
        self.wide = torch.empty((WIDE_ROWS, queries.shape[1]))
        self.few = torch.empty((FEWEST_COLUMNS, WIDE_ROWS)).T if missing else None

    def score(self, chunk: Shaped[Tensor, "rows dim"], out: Shaped[Tensor, "rows queries"]) -> None:
        """Write the scores of a block."""
        for rows, scores in zip(chunk.split(WIDE_ROWS), out.split(WIDE_ROWS), strict=True):
            wide = self.wide[: len(rows)].copy_(rows)
            if self.few is None:
                torch.mm(wide, self.queries, out=scores)
            else:
                few = torch.mm(wide, self.queries, out=self.few[: len(rows)])
                scores.copy_(few[:, : scores.shape[1]])

    def errors(
        self, queries: Float[Tensor, "queries dim"], max_norm: float, max_rounding: float
    ) -> Errors:
        """Return the bound: rounding of queries, which are not, of rows, of sums."""
        return Errors(_common_error(queries, max_norm, max_rounding), 0.0)


class OneQuery:
    """Scores of one query, in 32 bits: a product with one column is slow at 128 dimensions.

    Two neighbouring bfloat16 read as one float32 are the second of them, with the first as further
    bits of its significand; moved up by 16 bits they are the first. So two float32 products of
    half the length take the place of a conversion. The further bits are an error, which is bounded.
    """

    dtype = torch.float32
    by_columns = False

    def __init__(self, queries: Float[Tensor, "one dim"]) -> None:
        rounded = queries[0].bfloat16().float()
        self.first, self.second = rounded[0::2].contiguous(), rounded[1::2].contiguous()
        self.by = torch.tensor(16, dtype=torch.int32)  # a Python number would take longer
        self.shifted = torch.empty((PAIR_ROWS, len(self.first)), dtype=torch.int32)

    def score(self, chunk: Shaped[Tensor, "rows dim"], out: Shaped[Tensor, "rows one"]) -> None:
        """Write the scores of a block."""
        parts = (chunk.view(torch.int32), chunk.view(torch.float32), out[:, 0])
        for words, rows, scores in zip(*(part.split(PAIR_ROWS) for part in parts), strict=True):
            torch.mv(rows, self.second, out=scores)
            shifted = self.shifted[: len(words)]
            torch.bitwise_left_shift(words, self.by, out=shifted)
            scores.addmv_(shifted.view(torch.float32), self.first)

    def errors(
        self, queries: Float[Tensor, "one dim"], max_norm: float, max_rounding: float
    ) -> Errors:
        """Return the bound: rounding of the query, of rows, of sums, the further bits."""
        further = LOWER_HALF_UNIT * self.second.norm() * (max_norm + max_rounding)
        return Errors(_common_error(queries, max_norm, max_rounding) + further, 0.0)


def quickest_product(
    num_queries: int, rows: MappedRows
) -> type[ManyQueries] | type[Widened] | type[OneQuery]:
    """Return how rows are scored soonest where they lie."""
    if rows.dtype == torch.bfloat16 and not has_quick_bfloat16(rows.device):
        return Widened
    by_pairs = num_queries == 1 and rows.dim in PAIR_DIMS and _can_be_split(rows)
    return OneQuery if by_pairs else ManyQueries


def _common_error(
    queries: Float[Tensor, "queries dim"], max_norm: float, max_rounding: float
) -> Float[Tensor, " queries"]:
    """Bound the error of a scan that sums in 32 bits.

    With q~, x~ the rounded vectors, q.x - q~.x~ = (q - q~).x + q~.(x - x~).
    """
    rounded = queries.bfloat16().float()
    return (
        (queries - rounded).norm(dim=-1) * max_norm
        + rounded.norm(dim=-1) * max_rounding
        + queries.shape[1] * FLOAT32_UNIT * queries.norm(dim=-1) * max_norm
    )


def _can_be_split(rows: MappedRows) -> bool:
    """Whether rows lie in main memory as pairs of 16-bit numbers, one behind the other."""
    return rows.device == CPU and rows.dtype == torch.bfloat16 and rows.lies_in_pairs
