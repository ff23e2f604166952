"""Wordpiece sequences -> padded tensors, grouped by length under a token budget."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

TokenSequence = tuple[list[int], list[int]]
"""One input: (wordpiece ids with [CLS] and [SEP], segment ids)."""


class Inputs(NamedTuple):
    """What a BERT tower reads."""

    ids: Int[Tensor, "rows length"]
    segments: Int[Tensor, "rows length"]
    token_is_real: Bool[Tensor, "rows length"]


def pad(
    sequences: Sequence[TokenSequence], pad_id: int, device: torch.device | str = "cpu"
) -> Inputs:
    """Return the sequences as tensors, padded to the longest of them."""
    longest = max(len(ids) for ids, _ in sequences)
    ids = torch.full((len(sequences), longest), pad_id, dtype=torch.long)
    segments = torch.zeros((len(sequences), longest), dtype=torch.long)
    is_real = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for row, (pieces, kinds) in enumerate(sequences):
        ids[row, : len(pieces)] = torch.tensor(pieces)
        segments[row, : len(pieces)] = torch.tensor(kinds)
        is_real[row, : len(pieces)] = True
    return Inputs(ids.to(device), segments.to(device), is_real.to(device))


def group_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return groups of indices, longest first, each at most `batch_tokens` when padded.

    Sequences of like length stand together, so that little is padded. A sequence longer than
    the budget stands alone.
    """
    groups: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = longest or lengths[index]
        if current and longest * (len(current) + 1) > batch_tokens:
            groups.append(current)
            current, longest = [], lengths[index]
        current.append(index)
    return [*groups, current] if current else groups
