"""What each step trains on, as a pure function of (seed, step): a resume needs no state."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int


def step_rng(seed: int, step: int) -> np.random.Generator:
    """Return the random numbers of one step."""
    return np.random.default_rng([seed, step])


def batch_at(step: int, *, num_items: int, batch_size: int, seed: int) -> list[int]:
    """Return the items of one step: shuffled passes over all items, no item twice in a batch.

    A batch may span two passes; an item drawn by both is taken once, so the batch is shorter.
    """
    slots = slots_at(step, num_items=num_items, batch_size=batch_size, seed=seed)
    return list(dict.fromkeys(item for _, item in slots))


def slots_at(step: int, *, num_items: int, batch_size: int, seed: int) -> list[tuple[int, int]]:
    """Return (pass, item) of every place of one step's batch."""
    chosen: list[tuple[int, int]] = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, num_items)
        item = _permutation(epoch, num_items=num_items, seed=seed)[place]
        chosen.append((epoch, int(item)))
    return chosen


def is_held_out(key: str, share: float) -> bool:
    """Return whether an article (by title, or id) is kept out of training to measure on."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def sample(items: Sequence[int], count: int, seed: int) -> list[int]:
    """Return at most `count` items, drawn without replacement, in their order."""
    if len(items) <= count:
        return list(items)
    drawn = np.random.default_rng(seed).choice(len(items), size=count, replace=False)
    return [items[i] for i in sorted(drawn.tolist())]


@lru_cache(maxsize=4)
def _permutation(epoch: int, *, num_items: int, seed: int) -> Int[np.ndarray, " items"]:
    return np.random.default_rng([seed, epoch, num_items]).permutation(num_items)
