"""A 16-bit scan that keeps every row that could be among the k best in 32 bits, and few others.

Scanned scores differ from true ones by a known bound (`Errors`). So whoever belongs to the true
top k scored at least the k-th best scan minus twice the bound: that is a query's floor, and the
rows at or above it survive. Nothing has to be searched again, however close the scores lie.

What costs is not the matrix product but picking from its result. Three things keep that small:
scores are looked at while a cache holds them, a block at a time; the block is folded to the
maxima of its slabs first (row r of a block belongs to place r modulo the slab's size, so
neighbours, often of one article, do not share a place); and the floor, which only rises, is taken
anew whenever the rows seen have doubled, so that ever fewer places hold a row above it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from realm.device import CPU, has_quick_bfloat16
from realm.index.mapped import MappedRows

BLOCK_SCORES = 1 << 21
"""Scores (queries x rows) of one block on a CPU: 4 MiB, a share of its last cache."""
GPU_BLOCK_SCORES = 1 << 26
"""The same on a GPU, for which a small block would be no work."""
BLOCK_ROWS = 1 << 17
"""Most rows of a block."""
MOST_SLABS = 64
"""Rows that are folded into one place, at most."""
NO_ROW = torch.iinfo(torch.long).max
"""Fills lines up; behind all rows."""
SURVIVORS_OF_K = 64
"""A query of which more than so many times k rows (and `FEWEST_GIVEN_UP`) survive is given up."""
FEWEST_GIVEN_UP = 4_096
BF16_UNIT = 2.0**-8
"""Largest relative error of one rounding to bfloat16, which has 8 bits of significand."""
FLOAT32_UNIT = 2.0**-22
"""Largest error of three float32 sums of products (scan, rescoring, the search that is matched),
relative to dim x norm x norm: 2**-24 each, rounded up."""
LOWER_HALF_UNIT = 2.0**-7
"""Most by which 16 more bits of significand behind a bfloat16 change it, relative to it."""
PAIR_DIMS = range(66, 161)
"""Where `_OneQuery` is used. Measured against a product with one column: 32 against 42 ms at 128
dimensions (256 MB), but 47 against 30 at 384 (230 MB) and 5.9 against 3.1 at 64 (38 MB). The ends
are set between these, not measured. Without instructions for 16-bit products `_Widened` takes its
place: 38 against 45 ms at 128 dimensions."""
WIDE_ROWS = 1 << 12
"""Rows that `_Widened` converts at once: 2 MiB for 128 dimensions."""
COLUMN_QUERIES = range(2, 14)
"""How many queries `_Widened` writes one after the other: 4 of 131,072 rows take 10 instead of 21
ms at 128 dimensions, 33 instead of 65 at 384, 12 take 13 and 18; 16 take 17 and 16."""
FEWEST_COLUMNS = 4
"""Fewer are multiplied with as many: 2 and 3 alone take as long as by rows."""
PAIR_ROWS = 1 << 12
"""Rows of which `_OneQuery` unpacks a half at once: 1 MiB for 128 dimensions."""


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


@dataclass(frozen=True, slots=True)
class Survivors:
    """Rows that may be among the k best of each query, in no order."""

    rows: Int[Tensor, "queries most"]
    """Filled up with NO_ROW."""
    counts: Int[Tensor, " queries"]
    """How many each query has. Fewer than k: it was given up, because too many rows are nearly
    equal, or a number is not finite."""


def surviving_rows(
    queries: Float[Tensor, "queries dim"],
    scan: Shaped[Tensor, "passages dim"] | MappedRows,
    k: int,
    *,
    max_norm: float,
    max_rounding: float,
) -> Survivors:
    """Return at least the true k best rows of each query, in main memory.

    Args:
        queries: in 32 bits; a few hundred at once, at least one.
        scan: the vectors rounded to bfloat16, wherever they lie.
        k: how many, at most the number of passages.
        max_norm: largest norm of a true row.
        max_rounding: largest norm of a true row minus the scanned one.
    """
    rows = MappedRows([scan]) if isinstance(scan, Tensor) else scan
    here = queries.to(rows.device)
    return _Scan(here, rows, k, max_norm=max_norm, max_rounding=max_rounding).run()


class _Pairs(NamedTuple):
    """Rows that are not below the floor, one entry a (query, row), grouped by query."""

    query: Int[Tensor, " pairs"]
    row: Int[Tensor, " pairs"]
    scan: Float[Tensor, " pairs"]


class _Scan:
    """One pass over the rows for some queries."""

    def __init__(
        self,
        queries: Float[Tensor, "queries dim"],
        rows: MappedRows,
        k: int,
        *,
        max_norm: float,
        max_rounding: float,
    ) -> None:
        self.rows, self.k, self.num_queries = rows, k, len(queries)
        self.block_rows, self.slabs = _block_shape(len(queries), k, rows.device.type)
        self.product = _product(len(queries), rows)(queries)
        self.errors = self.product.errors(queries, max_norm, max_rounding)
        self.floor = torch.full((len(queries),), -math.inf, device=rows.device)
        self.most = max(SURVIVORS_OF_K * k, FEWEST_GIVEN_UP)
        self.kept: list[_Pairs] = []

    def run(self) -> Survivors:
        """Return who survives."""
        buffer = self._buffer()
        seen, due, pending = 0, 0, 0
        most_pending = 2 * self.most * self.num_queries
        for start, chunk in self.rows.chunks(self.block_rows):
            kept = self._of_block(chunk, start, buffer)
            self.kept.append(kept)
            seen, pending = seen + len(chunk), pending + len(kept)
            if seen >= due or pending > most_pending:
                due = 2 * seen
                pending = self._raise_floor()
        self._raise_floor()
        _, rows, counts = self._table()
        return Survivors(rows.to(CPU), counts.to(CPU))

    def _buffer(self) -> Shaped[Tensor, "block queries"]:
        """Return room for the scores of a block, in the order in which the product writes them."""
        shape = (self.block_rows, self.num_queries)
        if self.product.by_columns:
            shape = shape[::-1]
        room = torch.empty(shape, dtype=self.product.dtype, device=self.rows.device)
        return room.T if self.product.by_columns else room

    def _of_block(
        self,
        chunk: Shaped[Tensor, "rows dim"],
        start: int,
        buffer: Shaped[Tensor, "block queries"],
    ) -> _Pairs:
        """Return the rows of one block that are not below the floor."""
        places = -(-len(chunk) // self.slabs)
        scores = buffer[: places * self.slabs]
        scores[len(chunk) :] = -math.inf
        self.product.score(chunk, scores[: len(chunk)])
        # [slabs, places, queries]: row r lies in slab r // places, at place r % places
        folded = scores.view(self.slabs, places, self.num_queries)
        if self.product.by_columns:  # along the memory: the other way takes 30 times as long
            maxima = folded.permute(2, 0, 1).amax(dim=1).T
        else:
            maxima = folded.amax(dim=0)
        hits = maxima >= _rounded_up(self.floor, maxima.dtype)
        if places >= self.k and int(hits.sum()) > hits.numel() // 8:
            # at the start, and where rows come in the order of their scores
            kth = maxima.T.contiguous().topk(self.k, dim=-1).values[:, -1].float()
            self._lift(kth)
            hits = maxima >= _rounded_up(self.floor, maxima.dtype)
        query, place = hits.T.nonzero(as_tuple=True)
        strips = folded[:, place, query].T  # [hits, slabs]
        floor = _rounded_up(self.floor, strips.dtype)[query]
        hit, slab = (strips >= floor[:, None]).nonzero(as_tuple=True)
        row = start + slab * places + place[hit]
        return _Pairs(query[hit], row, strips[hit, slab].float())

    def _lift(self, kth: Float[Tensor, " queries"]) -> None:
        """Raise the floor, given lower bounds of each query's k-th best scan, or -inf."""
        floor = self.errors.floor(kth)
        self.floor = torch.where(floor > self.floor, floor, self.floor)

    def _raise_floor(self) -> int:
        """Take the floor from the k-th best so far, drop who is below; return how many remain."""
        scans, rows, counts = self._table()
        if scans.shape[1] >= self.k:
            self._lift(scans.topk(self.k, dim=-1).values[:, -1])
        kept = scans >= self.floor[:, None]
        kept &= torch.arange(scans.shape[1], device=kept.device) < counts[:, None]
        self.floor[kept.sum(dim=-1) > self.most] = math.inf  # given up
        kept &= self.floor[:, None] < math.inf
        query = kept.nonzero()[:, 0]
        self.kept = [_Pairs(query, rows[kept], scans[kept])]
        return len(query)

    def _table(
        self,
    ) -> tuple[Float[Tensor, "queries most"], Int[Tensor, "queries most"], Int[Tensor, " queries"]]:
        """Return (scans, rows, how many): what was kept, a line for each query."""
        device = self.rows.device
        total = torch.zeros(self.num_queries, dtype=torch.long, device=device)
        columns: list[Tensor] = []
        for query, _, _ in self.kept:
            counts = query.bincount(minlength=self.num_queries)
            shift = total - (counts.cumsum(0) - counts)  # a group's first column less its place
            columns.append(torch.arange(len(query), device=device) + shift[query])
            total += counts
        query, row, scan = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        column = torch.cat(columns)
        shape = (self.num_queries, int(total.max()))
        scans = torch.full(shape, -math.inf, device=device)
        rows = torch.full(shape, NO_ROW, device=device)
        scans[query, column], rows[query, column] = scan, row
        return scans, rows, total


class _ManyQueries:
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


class _Widened:
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


class _OneQuery:
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


def _product(
    num_queries: int, rows: MappedRows
) -> type[_ManyQueries] | type[_Widened] | type[_OneQuery]:
    """Return how rows are scored soonest where they lie."""
    if rows.dtype == torch.bfloat16 and not has_quick_bfloat16(rows.device):
        return _Widened
    by_pairs = num_queries == 1 and rows.dim in PAIR_DIMS and _can_be_split(rows)
    return _OneQuery if by_pairs else _ManyQueries


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


def _block_shape(num_queries: int, k: int, device: str) -> tuple[int, int]:
    """Return (rows of a block, slabs it is folded to): at least 4k places where there is room."""
    scores = BLOCK_SCORES if device == "cpu" else GPU_BLOCK_SCORES
    wanted = min(scores // num_queries, BLOCK_ROWS)
    rows = 1 << max(wanted, 8 * k).bit_length() - 1
    slabs = min(MOST_SLABS, max(1, rows // (4 * k)))
    return rows, 1 << slabs.bit_length() - 1


def _can_be_split(rows: MappedRows) -> bool:
    """Whether rows lie in main memory as pairs of 16-bit numbers, one behind the other."""
    return rows.device == CPU and rows.dtype == torch.bfloat16 and rows.lies_in_pairs


def _rounded_up(floor: Float[Tensor, " queries"], dtype: torch.dtype) -> Float[Tensor, " queries"]:
    """Return the smallest values of a type that are not below: they part its values equally."""
    rounded = floor.to(dtype)
    above = torch.nextafter(rounded, torch.full_like(rounded, math.inf))
    return torch.where(rounded.float() < floor, above, rounded)
