"""A 16-bit scan that keeps every row that could be among the k best in 32 bits, and few others.

Scanned scores differ from true ones by a known bound (`realm.index.scoring`). So whoever belongs
to the true top k scored at least the k-th best scan minus twice the bound: that is a query's floor,
and the rows at or above it survive. Nothing has to be searched again, however close the scores lie.

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
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from realm.device import CPU
from realm.index.mapped import MappedRows
from realm.index.scoring import quickest_product

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
        self.product = quickest_product(len(queries), rows)(queries)
        self.errors = self.product.errors(queries, max_norm, max_rounding)
        is_bounded = self.errors.absolute.isfinite()  # else given up: no floor could be told
        self.floor = torch.where(is_bounded, -math.inf, math.inf)
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
        hits = self._hits(maxima)
        if places >= self.k and int(hits.sum()) > hits.numel() // 8:
            # at the start, and where rows come in the order of their scores
            kth = maxima.T.contiguous().topk(self.k, dim=-1).values[:, -1].float()
            self._lift(kth)
            hits = self._hits(maxima)
        query, place = hits.T.nonzero(as_tuple=True)
        strips = folded[:, place, query].T  # [hits, slabs]
        floor = _rounded_up(self.floor, strips.dtype)[query]
        hit, slab = (~(strips < floor[:, None])).nonzero(as_tuple=True)
        row = slab * places + place[hit]
        if len(scores) > len(chunk):  # while there is no floor, what fills up is not below it
            is_row = row < len(chunk)
            hit, slab, row = hit[is_row], slab[is_row], row[is_row]
        return _Pairs(query[hit], start + row, strips[hit, slab].float())

    def _hits(self, maxima: Float[Tensor, "places queries"]) -> Bool[Tensor, "places queries"]:
        """Return which places may hold a row that survives: what is no number is in doubt."""
        is_open = self.floor < math.inf
        return ~(maxima < _rounded_up(self.floor, maxima.dtype)) & is_open

    def _lift(self, kth: Float[Tensor, " queries"]) -> None:
        """Raise the floor, given lower bounds of each query's k-th best scan, or -inf."""
        floor = self.errors.floor(kth)
        self.floor = torch.where(floor > self.floor, floor, self.floor)

    def _raise_floor(self) -> int:
        """Take the floor from the k-th best so far, drop who is below; return how many remain."""
        scans, rows, counts = self._table()
        if scans.shape[1] >= self.k:
            self._lift(scans.topk(self.k, dim=-1).values[:, -1])
        kept = ~(scans < self.floor[:, None])
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


def _block_shape(num_queries: int, k: int, device: str) -> tuple[int, int]:
    """Return (rows of a block, slabs it is folded to): at least 4k places where there is room."""
    scores = BLOCK_SCORES if device == "cpu" else GPU_BLOCK_SCORES
    wanted = min(scores // num_queries, BLOCK_ROWS)
    rows = 1 << max(wanted, 8 * k).bit_length() - 1
    slabs = min(MOST_SLABS, max(1, rows // (4 * k)))
    return rows, 1 << slabs.bit_length() - 1


def _rounded_up(floor: Float[Tensor, " queries"], dtype: torch.dtype) -> Float[Tensor, " queries"]:
    """Return the smallest values of a type that are not below: they part its values equally."""
    rounded = floor.to(dtype)
    above = torch.nextafter(rounded, torch.full_like(rounded, math.inf))
    return torch.where(rounded.float() < floor, above, rounded)
