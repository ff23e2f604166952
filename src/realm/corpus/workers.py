"""Shards of articles -> shards of passages: in this process, or spread over workers."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from realm.config import SplitConfig
from realm.corpus.articles import to_article
from realm.corpus.passages import keep_whole, split_articles
from realm.corpus.reading import NUM_PLACES, TOO_SHORT, Found
from realm.corpus.shards import (
    TOKENIZER,
    ShardCounts,
    open_shard,
    schema,
    shard_path,
    to_batch,
    write_shard,
)
from realm.errors import ArtifactError
from realm.records import Progress, Skipped
from realm.tokenizer import WordpieceTokenizer
from realm.workers import worker_pool

BATCH_ARTICLES = 500
"""Articles tokenised at once."""
BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One shard to write."""

    folder: Path
    number: int
    articles: list[Found]
    config: SplitConfig
    whole: bool = False
    """Keep each article as one passage."""

    @property
    def path(self) -> Path:
        """Where the shard goes."""
        return shard_path(self.folder, self.number)


class _Counter:
    """Adds up articles for a progress callback."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0

    def __call__(self, num_articles: int) -> None:
        self._done += num_articles
        if self._progress is not None:
            self._progress(self._done, 0)


def split_here(
    tasks: Iterable[Task], tokenizer: WordpieceTokenizer, progress: Progress | None
) -> int:
    """Write the shards that are not there yet, and return how many there are now."""
    advance = _Counter(progress)
    num_shards = 0
    for task in tasks:
        num_shards += 1
        if _is_finished(task.path):
            advance(len(task.articles))
        else:
            _split_shard(task, tokenizer, advance)
    return num_shards


def split_in_processes(tasks: Iterable[Task], num_processes: int, progress: Progress | None) -> int:
    """Do the same with worker processes; no more shards wait than keep them busy.

    Raises:
        ArtifactError: a worker died.
    """
    advance = _Counter(progress)
    num_shards = 0
    running: dict[Future[int], int] = {}
    with worker_pool("split", num_processes) as pool:
        for task in tasks:
            num_shards += 1
            if _is_finished(task.path):
                advance(len(task.articles))
                continue
            running[pool.submit(_work, task)] = task.number
            if len(running) > num_processes:
                _collect(running, advance)
        while running:
            _collect(running, advance)
    return num_shards


def _is_finished(path: Path) -> bool:
    """Return whether a killed run wrote this shard; a damaged one is written again."""
    if not path.exists():
        return False
    try:
        open_shard(path)
    except ArtifactError:
        path.unlink()
        return False
    return True


def _collect(running: dict[Future[int], int], advance: _Counter) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        del running[future]
        advance(future.result())


def _work(task: Task) -> int:
    _split_shard(task, _load_tokenizer(task.folder / TOKENIZER), lambda _: None)
    return len(task.articles)


@lru_cache(maxsize=1)
def _load_tokenizer(path: Path) -> WordpieceTokenizer:
    return WordpieceTokenizer.load(path)


def _split_shard(task: Task, tokenizer: WordpieceTokenizer, advance: Callable[[int], None]) -> None:
    columns = schema(tokenizer.vocab_size)
    skipped = Skipped(keep=NUM_PLACES)
    num_articles = num_passages = num_wordpieces = 0
    batches: list[pa.RecordBatch] = []
    cutter = keep_whole if task.whole else split_articles
    for some in _batch(task.articles):
        readable = [
            (found.place, article) for found in some if (article := to_article(found, skipped))
        ]
        cut = cutter([article for _, article in readable], tokenizer, task.config)
        for (place, _), pieces in zip(readable, cut, strict=True):
            for _ in range(pieces.num_too_short):
                skipped.add(TOO_SHORT, str(place))
        passages = [passage for pieces in cut for passage in pieces.passages]
        batches.append(to_batch(passages, columns))
        num_articles += sum(bool(pieces.passages) for pieces in cut)
        num_passages += len(passages)
        num_wordpieces += sum(len(passage.wordpieces) for passage in passages)
        advance(len(some))
    counts = ShardCounts(
        num_articles=num_articles,
        num_passages=num_passages,
        num_wordpieces=num_wordpieces,
        skipped=skipped,
    )
    write_shard(task.path, batches, columns, counts)


def _batch(found: Iterable[Found]) -> Iterator[list[Found]]:
    """Yield the articles of each batch of a shard."""
    return cut_groups(found, BATCH_ARTICLES, BATCH_CHARACTERS)


def cut_groups(
    found: Iterable[Found], max_articles: int, max_characters: int
) -> Iterator[list[Found]]:
    """Yield runs of articles, each full at so many articles or characters."""
    group: list[Found] = []
    num_characters = 0
    for one in found:
        group.append(one)
        num_characters += len(one.article.text)
        if len(group) >= max_articles or num_characters >= max_characters:
            yield group
            group, num_characters = [], 0
    if group:
        yield group
