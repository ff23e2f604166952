"""Shards of articles -> shards of passages: in this process, or spread over workers.

What a worker gets is a batch, not a shard, so that a corpus of one shard keeps all of them busy.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from realm.config import SplitConfig
from realm.corpus.articles import to_article
from realm.corpus.passages import ArticlePassages, split_articles
from realm.corpus.reading import NUM_PLACES, TOO_SHORT, UNPARSED, Found, OnError
from realm.corpus.shards import (
    ShardCounts,
    open_shard,
    schema,
    shard_path,
    to_batch,
    write_shard,
)
from realm.errors import ArtifactError
from realm.records import Article, Progress, Skipped
from realm.tokenizer import WordpieceTokenizer
from realm.workers import in_order, worker_pool

BATCH_ARTICLES = 500
"""Articles that are cut, and tokenised, at once."""
BATCH_CHARACTERS = 1 << 20
Rule = Callable[[Sequence[Article], WordpieceTokenizer, SplitConfig], list[ArticlePassages]]
"""`split_articles`, or `keep_whole` for texts that come ready cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One shard to write."""

    folder: Path
    number: int
    articles: list[Found]

    @property
    def path(self) -> Path:
        """Where the shard goes."""
        return shard_path(self.folder, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutter:
    """What is done to every batch of articles."""

    tokenizer: WordpieceTokenizer
    config: SplitConfig
    rule: Rule = split_articles
    """Where articles are cut."""
    on_error: OnError = "skip"
    """What becomes of wikitext that cannot be parsed."""

    def __call__(self, found: list[Found]) -> "Cut":
        """Return the articles' passages, and what was left out."""
        skipped = Skipped(keep=NUM_PLACES)
        readable = [
            (one.place, article)
            for one in found
            if (article := to_article(one, skipped, self.on_error))
        ]
        cut = self.rule([article for _, article in readable], self.tokenizer, self.config)
        for (place, _), pieces in zip(readable, cut, strict=True):
            for _ in range(pieces.num_too_short):
                skipped.add(TOO_SHORT, str(place))
        passages = [passage for pieces in cut for passage in pieces.passages]
        return Cut(
            batch=to_batch(passages, schema(self.tokenizer.vocab_size)),
            num_read=len(found),
            counts=ShardCounts(
                num_articles=sum(bool(pieces.passages) for pieces in cut),
                num_passages=len(passages),
                num_wordpieces=sum(len(passage.wordpieces) for passage in passages),
                skipped=skipped,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What became of a batch of articles."""

    batch: pa.RecordBatch
    num_read: int
    """Articles of the batch, the unreadable ones too."""
    counts: ShardCounts


def split_here(tasks: Iterable[Task], cutter: Cutter, progress: Progress | None) -> int:
    """Write the shards that are not there yet, and return how many there are now."""
    return _split(tasks, partial(map, cutter), cutter, progress)


def split_in_processes(
    tasks: Iterable[Task],
    cutter: Cutter,
    num_processes: int,
    progress: Progress | None,
    *,
    tokenizer: Path,
) -> int:
    """Do the same with worker processes, which read the tokenizer's file.

    Raises:
        ArtifactError: a worker died.
    """
    shared = (tokenizer, cutter.config, cutter.rule, cutter.on_error)
    with worker_pool("split", num_processes, start=_remember, with_arguments=shared) as pool:
        return _split(tasks, partial(in_order, pool, num_processes, _cut), cutter, progress)


def _split(
    tasks: Iterable[Task],
    cut_each: Callable[[Iterable[list[Found]]], Iterator[Cut]],
    cutter: Cutter,
    progress: Progress | None,
) -> int:
    """Write each shard when its last batch is cut; `cut_each` keeps the order of the batches."""
    num_shards = num_read = 0
    begun: deque[tuple[Path, int]] = deque()
    """Shards some of whose batches have been given out, and how many each has."""

    def advance(num_articles: int) -> None:
        nonlocal num_read
        num_read += num_articles
        if progress is not None:
            progress(num_read, 0)

    def batches() -> Iterator[list[Found]]:
        nonlocal num_shards
        for task in tasks:
            num_shards += 1
            if _is_finished(task.path, cutter.on_error):
                advance(len(task.articles))
                continue
            groups = list(cut_groups(task.articles, BATCH_ARTICLES, BATCH_CHARACTERS))
            begun.append((task.path, len(groups)))
            yield from groups

    columns = schema(cutter.tokenizer.vocab_size)
    all_cut = cut_each(batches())
    for first in all_cut:
        path, num_batches = begun.popleft()
        parts: list[Cut] = []
        for part in chain([first], islice(all_cut, num_batches - 1)):
            parts.append(part)
            advance(part.num_read)
        write_shard(
            path, [part.batch for part in parts], columns, _added([part.counts for part in parts])
        )
    return num_shards


def _added(parts: Sequence[ShardCounts]) -> ShardCounts:
    skipped = Skipped(keep=NUM_PLACES)
    for part in parts:
        skipped.join(part.skipped)
    return ShardCounts(
        num_articles=sum(part.num_articles for part in parts),
        num_passages=sum(part.num_passages for part in parts),
        num_wordpieces=sum(part.num_wordpieces for part in parts),
        skipped=skipped,
    )


def _is_finished(path: Path, on_error: OnError) -> bool:
    """Return whether a killed run wrote this shard; a damaged one is written again.

    So is one that left out what this run is to stop at.
    """
    if not path.exists():
        return False
    try:
        _, counts = open_shard(path)
    except ArtifactError:
        path.unlink()
        return False
    return on_error == "skip" or UNPARSED not in counts.skipped.counts


_remembered: list[Cutter] = []
"""In a worker: what it does to each batch."""


def _remember(tokenizer: Path, config: SplitConfig, rule: Rule, on_error: OnError) -> None:
    loaded = WordpieceTokenizer.load(tokenizer)
    _remembered[:] = [Cutter(tokenizer=loaded, config=config, rule=rule, on_error=on_error)]


def _cut(found: list[Found]) -> Cut:
    return _remembered[0](found)


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
