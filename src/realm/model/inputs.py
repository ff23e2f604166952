"""Wordpiece sequences -> tensors: padded in groups of like length, or packed without padding."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from realm.device import send

PADDING_TOKENS = 64
PADDING_SHARE = 0.06
"""How much padding a group may hold. MiniLM reads 4 x 128 wordpieces as fast as 24 x 160 on a CPU
(per wordpiece); without these bounds 43 % of what a fine-tuning step reads would be padding."""

PACK_MULTIPLE = 64
"""Wordpieces of a pack come to a multiple of this: the kernel library keeps what it compiles for
each shape, so that memory would grow with every new one."""

TokenSequence = tuple[list[int], list[int]]
"""One input: (wordpiece ids with [CLS] and [SEP], segment ids)."""


class Inputs(NamedTuple):
    """What a BERT tower reads."""

    ids: Int[Tensor, "rows length"]
    segments: Int[Tensor, "rows length"]
    token_is_real: Bool[Tensor, "rows length"]
    is_padded: bool = True
    """Whether any row is shorter than the longest; else attention needs no mask."""

    def to(self, device: torch.device) -> "Inputs":
        """Return the same on a device."""
        return Inputs(*(send(one, device) for one in self[:3]), is_padded=self.is_padded)


class Pack(NamedTuple):
    """Sequences that stand one after the other in a single row: nothing is padded.

    What a BERT reads of one does not depend on those beside it (`QuickBert`).
    """

    ids: Int[Tensor, "1 length"]
    segments: Int[Tensor, "1 length"]
    lengths: tuple[int, ...]
    """Of each sequence, and at the end of what is read for nothing (see PACK_MULTIPLE)."""
    num_sequences: int

    def to(self, device: torch.device) -> "Pack":
        """Return the same on a device."""
        return self._replace(ids=self.ids.to(device), segments=self.segments.to(device))

    def places(
        self, rows: Int[Tensor, " some"], positions: Int[Tensor, " some"]
    ) -> Int[Tensor, " some"]:
        """Return where positions of some sequences stand in the pack."""
        starts = [0, *accumulate(self.lengths[:-1])]
        return torch.tensor(starts, device=rows.device)[rows] + positions

    def split(self, values: Float[Tensor, "1 length width"]) -> tuple[Tensor, ...]:
        """Return the values at each sequence's wordpieces (its length, width)."""
        return values[0].split(list(self.lengths))[: self.num_sequences]


def pad(sequences: Sequence[TokenSequence], pad_id: int) -> Inputs:
    """Return the sequences as tensors in main memory, padded to the longest of them."""
    lengths = torch.tensor([len(ids) for ids, _ in sequences])
    is_real = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.full(is_real.shape, pad_id, dtype=torch.long)
    segments = torch.zeros(is_real.shape, dtype=torch.long)
    total = int(lengths.sum())
    ids[is_real] = _joined((pieces for pieces, _ in sequences), total)
    segments[is_real] = _joined((kinds for _, kinds in sequences), total)
    return Inputs(ids, segments, is_real, is_padded=not bool(is_real.all()))


def pack(sequences: Sequence[TokenSequence], pad_id: int) -> Pack:
    """Return the sequences one after the other, in main memory."""
    lengths = [len(ids) for ids, _ in sequences]
    if rest := -sum(lengths) % PACK_MULTIPLE:
        lengths.append(rest)
    ids = torch.full((1, sum(lengths)), pad_id)
    segments = torch.zeros_like(ids)
    total = sum(lengths) - rest
    ids[0, :total] = _joined((pieces for pieces, _ in sequences), total)
    segments[0, :total] = _joined((kinds for _, kinds in sequences), total)
    return Pack(ids, segments, tuple(lengths), len(sequences))


def in_packs(lengths: Iterable[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the numbers of as many sequences as fit a budget, in their order.

    One that is longer than the budget stands alone.
    """
    numbers: list[int] = []
    size = 0
    for number, length in enumerate(lengths):
        if numbers and size + length > batch_tokens:
            yield numbers
            numbers, size = [], 0
        numbers.append(number)
        size += length
    if numbers:
        yield numbers


def _joined(lists: Iterable[list[int]], total: int) -> Int[Tensor, " total"]:
    """Return lists one after the other; by numpy, which reads them ten times as fast as torch."""
    return torch.from_numpy(np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=total))


def group_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return groups of indices, longest first, each at most `batch_tokens` when padded.

    Sequences of like length stand together, and a group ends where padding would be more than
    PADDING_SHARE of it (or PADDING_TOKENS, in small ones): short sequences are not worth padding
    to long ones to save a forward pass. A sequence longer than the budget stands alone.
    """
    groups: list[list[int]] = []
    current: list[int] = []
    longest = padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = longest or lengths[index]
        padding += longest - lengths[index]
        size = longest * (len(current) + 1)
        if current and (size > batch_tokens or padding > max(PADDING_TOKENS, PADDING_SHARE * size)):
            groups.append(current)
            current, longest, padding = [], lengths[index], 0
        current.append(index)
    return [*groups, current] if current else groups
