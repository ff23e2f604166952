"""Sizes of an IVF-PQ index: chosen by the number of passages, and what they cost; no FAISS here."""

import math
from dataclasses import asdict, dataclass

from realm.config import ApproximateConfig
from realm.errors import ConfigError
from realm.readable import counted

ROW_BYTES = 8
"""A passage's row number, beside its code."""
SAMPLES = 64
"""Training vectors for each list and for each code of a subquantizer (FAISS asks for 39)."""
DIMS_PER_CODE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An index of so many lists and codes."""

    lists: int
    subquantizers: int
    bits: int
    training_rows: int

    @property
    def passage_bytes(self) -> int:
        """Bytes a passage takes, in memory and on disk."""
        return math.ceil(self.subquantizers * self.bits / 8) + ROW_BYTES

    def index_bytes(self, num_passages: int, dim: int) -> int:
        """Bytes of codes, row numbers, centroids and code books."""
        books = (1 << self.bits) * dim * 4
        return num_passages * self.passage_bytes + self.lists * dim * 4 + books

    def as_dict(self) -> dict[str, int]:
        """Return plain values for a manifest."""
        return asdict(self)


def choose_layout(config: ApproximateConfig, *, num_passages: int, dim: int) -> Layout:
    """Return the sizes of an index of so many passages: as set, else by their number.

    Lists: the power of two next to 2 sqrt(passages), so that sorting a query into the lists and
    reading those it probes cost about the same; never so many that the training sample runs out.

    Raises:
        ConfigError: too few passages, or a width that the codes do not divide.
    """
    codes = 1 << config.bits
    if num_passages < 2 * codes:
        raise ConfigError(
            f"an approximate index with {config.bits} bits a code needs at least {2 * codes:,} "
            f"passages to be fitted to, found {num_passages:,}; search so few exactly, or pass "
            "`--set bits=4`"
        )
    lists = config.lists or 1 << round(math.log2(2 * math.sqrt(num_passages)))
    if lists > num_passages:
        raise ConfigError(
            f"found lists={lists:,} of {counted(num_passages, 'passage')}; expected at most so many"
        )
    subquantizers = config.subquantizers or max(1, dim // DIMS_PER_CODE)
    if dim % subquantizers:
        raise ConfigError(
            f"subquantizers={subquantizers} does not divide the vectors' width {dim}; expected "
            f"one of {[n for n in range(1, dim + 1) if dim % n == 0]}"
        )
    wanted = config.training_rows or SAMPLES * max(lists, codes)
    if wanted < max(lists, codes):
        raise ConfigError(
            f"training_rows={wanted:,} cannot fit {max(lists, codes):,} centres; expected more, "
            f"or fewer lists"
        )
    return Layout(
        lists=lists,
        subquantizers=subquantizers,
        bits=config.bits,
        training_rows=min(wanted, num_passages),
    )
