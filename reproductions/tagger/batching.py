"""Sentences as tensors: batches of about equal length, padded."""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from data import Sentence
from torch import Tensor


def batches(
    lengths: Sequence[int], *, words: int, rng: random.Random | None
) -> Iterator[list[int]]:
    """Yield numbers of sentences of about equal length, `words` words a batch with the padding.

    Args:
        lengths: Words of each sentence.
        words: Size of a batch.
        rng: Shuffles the batches, and who shares one; None: longest first.
    """
    noise = [rng.uniform(0.8, 1.25) if rng else 1.0 for _ in lengths]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i] * noise[i])
    groups: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if not groups or longest * (len(groups[-1]) + 1) > words:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    if rng:
        rng.shuffle(groups)
    yield from groups


def gold_batches(
    gold: Sequence[Sentence],
    tags: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    words: int,
    nameless: float,
    rng: random.Random,
) -> list[tuple[str, list[int]]]:
    """Return the batches of an epoch, each of one convention: its name, numbers of sentences.

    Args:
        gold: All sentences.
        tags: Of each.
        lengths: Of each.
        words: Size of a batch.
        nameless: Share of the sentences without a name that the epoch has.
        rng: Draws them, and shuffles.
    """
    some = [i for i, row in enumerate(tags) if any(row) or rng.random() < nameless]
    epoch: list[tuple[str, list[int]]] = []
    for convention in dict.fromkeys(sentence.convention for sentence in gold):
        part = [i for i in some if gold[i].convention == convention]
        groups = batches([lengths[i] for i in part], words=words, rng=rng)
        epoch += [(convention, [part[j] for j in group]) for group in groups]
    return epoch


def padded(rows: Sequence[Sequence[int]], value: int = 0) -> Tensor:
    """Return the rows as one tensor, `value` behind the end of the shorter ones."""
    longest = max(len(row) for row in rows)
    table = np.full((len(rows), longest), value, np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def padded_floats(rows: Sequence[np.ndarray]) -> Tensor:
    """Return [rows, longest, width] with zeros behind the shorter ones."""
    longest = max(len(row) for row in rows)
    table = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def tell(**numbers: Any) -> None:  # noqa: ANN401 - whatever is to be told
    """Print a line of JSON, numbers to four places."""
    short = {k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}
    sys.stdout.write(json.dumps(short) + "\n")
    sys.stdout.flush()
