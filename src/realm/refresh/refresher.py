"""What keeps a training run's index fresh, whichever way (section 3.3)."""

from collections.abc import Callable
from pathlib import Path

import torch

from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.device import CPU
from realm.index.snapshot import Snapshot
from realm.ranks import ALONE, Ranks
from realm.records import Progress
from realm.refresh.asynchronous import AsyncRefresher
from realm.refresh.ranked import RankedRefresher
from realm.refresh.sync import SyncRefresher

Refresher = SyncRefresher | AsyncRefresher | RankedRefresher
"""Owns the index that a trainer searches: `advance` before each step, then `index.search`."""


def open_refresher(
    run: Path,
    store: PassageStore,
    *,
    config: RefreshConfig,
    index: IndexConfig,
    num_steps: int,
    start: Snapshot | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
    device: torch.device = CPU,
) -> Refresher:
    """Return the refresher of a run; nothing is written before its first `advance`.

    Args:
        run: the run's folder.
        store: the passages.
        config: mode and limits.
        index: how passages are embedded.
        num_steps: of the run.
        start: a snapshot whose vectors the first one takes over where it is of the same embedder.
        progress: called while the trainer builds the index.
        tell: called with a sentence when something happens.
        ranks: the processes that train together.
        device: where the index is scanned.
    """
    if config.mode != "async":
        return SyncRefresher(
            run,
            store,
            config=config,
            index=index,
            start=start,
            progress=progress,
            ranks=ranks,
            device=device,
        )
    first = (
        AsyncRefresher(
            run,
            store,
            config=config,
            index=index,
            num_steps=num_steps,
            start=start,
            progress=progress,
            tell=tell,
            device=device,
        )
        if ranks.is_first
        else None
    )
    if first is None or ranks.are_several:
        return RankedRefresher(first, store, ranks, device)
    return first
