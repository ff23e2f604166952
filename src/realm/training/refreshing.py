"""What the stages set up alike whose Embed_doc learns: towers, threads, refresher, last index."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from realm.config import FinetuneConfig, IndexConfig, PretrainConfig, TrainConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.errors import ConfigError
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.ranks import ALONE, Ranks
from realm.records import Progress
from realm.refresh.housekeeping import remove_what_is_old
from realm.refresh.refresher import Refresher, open_refresher
from realm.refresh.sync import build_together

C = TypeVar("C", PretrainConfig, FinetuneConfig)


def index_config(config: PretrainConfig | FinetuneConfig, num_passages: int) -> IndexConfig:
    """Return how a run's passages are embedded."""
    shard_rows = config.refresh.shard_rows or min(65_536, max(1_024, -(-num_passages // 16)))
    return IndexConfig(
        passage_wordpieces=config.passage_wordpieces,
        batch_tokens=embedded_tokens(config),
        autocast=config.autocast,
        shard_rows=shard_rows,
    )


def embedded_tokens(config: TrainConfig) -> int:
    """Return how many wordpieces are embedded at once for the index of a run.

    At least as many as its training holds for a backward pass: a GPU for which that was raised
    would spend its time on the start of small forward passes.
    """
    return max(IndexConfig().batch_tokens, config.batch_tokens)


def refresher_of(
    run: Path,
    store: PassageStore,
    config: PretrainConfig | FinetuneConfig,
    *,
    start: Snapshot | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> Refresher:
    """Return what keeps a run's index fresh; nothing is written yet.

    Args:
        run: the run's folder.
        store: the passages.
        config: of the stage.
        start: a snapshot whose vectors the first one takes over where it is of the same embedder.
        progress: called while the trainer builds the index.
        tell: called with a sentence when something happens.
        ranks: the processes that train together.
    """
    return open_refresher(
        run,
        store,
        config=config.refresh,
        index=index_config(config, len(store)),
        num_steps=config.steps,
        start=start,
        progress=progress,
        tell=tell,
        ranks=ranks,
        device=choose_device(config.device),
    )


def towers_as_asked(towers: Towers, share_towers: bool | None, start: Path) -> Towers:  # noqa: FBT001
    """Return the towers tied or untied as `share_towers` says; None: as they are.

    Raises:
        ConfigError: two towers cannot be made one.
    """
    if share_towers is True and not towers.shared:
        raise ConfigError(
            f"share_towers=true, but {start} has two towers; expected one made with "
            "share_towers=true"
        )
    return towers.untied() if share_towers is False else towers


def with_threads(config: C) -> C:
    """Leave the builders that the trainer starts some of the cores.

    Those that torch would take: all that this process may use, or as many as OMP_NUM_THREADS says,
    which is how ranks on one machine part its cores.
    """
    refresh = config.refresh
    if config.threads or refresh.mode != "async":
        return config
    left = torch.get_num_threads() - refresh.builders * refresh.builder_threads
    return config.model_copy(update={"threads": max(1, left)})


def keep_last_index(
    run: Path,
    towers: Towers,
    refresher: Refresher,
    config: PretrainConfig | FinetuneConfig,
    *,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Leave a snapshot of the last parameters, so that the finished run answers by itself.

    The refresher is closed: no builder works beside, and what only it needed goes.
    """
    refresher.close()
    store = refresher.store
    index = index_config(config, len(store))
    towers.passage.eval()
    build_together(
        run, towers.passage, store, config.steps, config=index, progress=progress, ranks=ranks
    )
    ranks.from_first(partial(remove_what_is_old, run, in_use=config.steps, keep_snapshots=1))
