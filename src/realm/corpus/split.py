"""Articles -> a published passages folder, shard by shard, resumed where it was killed."""
# pyright: reportUnknownVariableType=false

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from realm.config import SplitConfig
from realm.corpus.articles import check_input, find_articles, no_articles
from realm.corpus.passages import keep_whole
from realm.corpus.reading import NUM_PLACES, Found, OnError, Place
from realm.corpus.shards import REMEDY, SKIPPED, TOKENIZER, open_shard, read_manifest, shard_path
from realm.corpus.workers import Cutter, Task, cut_groups, split_here, split_in_processes
from realm.errors import CorpusError
from realm.records import Article, Progress, Skipped
from realm.storage import (
    Request,
    check_files,
    fingerprint,
    is_done,
    not_read,
    open_folder,
    publish,
    write_json,
)
from realm.tokenizer import WordpieceTokenizer
from realm.workers import check_processes

SHARD_ARTICLES = 10_000
SHARD_CHARACTERS = 1 << 25
"""A shard is full at so many articles or characters: all of Wikipedia makes some 700 shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """What `split` made, or found already made."""

    num_articles: int
    """Articles that gave at least one passage."""
    num_passages: int
    num_wordpieces: int
    """Wordpieces of the passages' texts, titles aside."""
    skipped: Skipped
    already_done: bool


def split(
    inputs: Sequence[Path],
    out: Path,
    *,
    config: SplitConfig,
    tokenizer: WordpieceTokenizer,
    num_processes: int = 1,
    on_error: OnError = "skip",
    rebuild: bool = False,
    progress: Progress | None = None,
) -> SplitReport:
    """Split articles into passages and publish them as the folder `out`.

    The inputs are read in the order of their names. The folder's bytes depend on inputs, settings
    and tokenizer only: neither on `num_processes` nor on whether a killed run was resumed.

    Args:
        inputs: Files and folders of articles, see `read_articles`.
        out: The passages folder; if it was made from the same inputs, nothing is done.
        config: How to cut.
        tokenizer: Measures and fills the passages; saved in the folder.
        num_processes: Worker processes; with 1 this process works alone, tokenising in threads.
        on_error: What to do with a malformed record: count it, or raise at the first.
        rebuild: Replace a folder that was made from something else.
        progress: Called with the number of articles split so far, and 0.

    Returns:
        How many articles and passages `out` holds, and what was left out by reason.

    Raises:
        CorpusError: an input cannot be read, or gives no passage; nothing is published.
        ArtifactError: `out` was made from other inputs or settings, or cannot be written.
        ConfigError: `num_processes` is less than 1.
    """
    check_processes(num_processes)
    if not inputs:
        raise CorpusError(no_articles(inputs, Skipped()))
    for path in inputs:
        check_input(path)
    named = _name_inputs(inputs)
    prints = {name: hashed for name, (_, hashed) in named.items()}
    request = Request(
        kind="passages",
        settings=config.as_dict(),
        inputs={**prints, "tokenizer": tokenizer.fingerprint},
    )
    if is_done(out, request, rebuild=rebuild):
        return _read_report(out)
    with publish(out, request, resume=True, replace=rebuild) as scratch:
        for stale in scratch.glob(".*.partial"):
            stale.unlink()
        tokenizer.save(scratch / TOKENIZER)
        skipped = Skipped(keep=NUM_PLACES)
        paths = [path for path, _ in named.values()]
        found = find_articles(
            paths, drop_titles=config.drop_titles, on_error=on_error, skipped=skipped
        )
        cutter = Cutter(tokenizer=tokenizer, config=config, on_error=on_error)
        num_shards = _write_shards(scratch, found, cutter, num_processes, progress)
        report = _finish(scratch, num_shards, skipped)
        if not report.num_passages:
            shutil.rmtree(scratch)  # nothing in it to go on from
            raise CorpusError(no_articles(inputs, report.skipped))
    return report


def store_whole(
    articles: Iterable[Article],
    out: Path,
    *,
    source: str,
    source_fingerprint: str,
    config: SplitConfig,
    tokenizer: WordpieceTokenizer,
    num_processes: int = 1,
    progress: Progress | None = None,
) -> SplitReport:
    """Publish articles as passages, one each and in their order: texts that come ready cut.

    A killed call goes on after its finished shards, as long as the source is the same.

    Args:
        articles: read once, never held together.
        out: The passages folder; if it was made from the same source, nothing is done.
        source: Name of the file that they come from.
        source_fingerprint: Hash of that file.
        config: Language of the sentences, room for the titles.
        tokenizer: Fills the passages; saved in the folder.
        num_processes: Worker processes; with 1 this process works alone, tokenising in threads.
        progress: Called with the number of passages stored so far, and 0.

    Raises:
        ArtifactError: `out` was made from something else, or cannot be written.
        ConfigError: `num_processes` is less than 1.
    """
    check_processes(num_processes)
    request = Request(
        kind="passages",
        settings=config.as_dict(),
        inputs={source: source_fingerprint, "tokenizer": tokenizer.fingerprint},
    )
    if is_done(out, request):
        return _read_report(out)
    with publish(out, request, resume=True) as scratch:
        tokenizer.save(scratch / TOKENIZER)
        found = (Found(article, Place(source, row)) for row, article in enumerate(articles, 1))
        cutter = Cutter(tokenizer=tokenizer, config=config, rule=keep_whole)
        num_shards = _write_shards(scratch, found, cutter, num_processes, progress)
        return _finish(scratch, num_shards, Skipped())


def store_found(
    found: Iterator[Found],
    out: Path,
    *,
    inputs: Mapping[str, str],
    skipped: Skipped,
    finish: Callable[[Path, SplitReport], None],
    config: SplitConfig,
    tokenizer: WordpieceTokenizer,
    progress: Progress | None = None,
) -> SplitReport:
    """Split articles that come from elsewhere, and publish their passages with what `finish` adds.

    Args:
        found: read once, also where a killed call is resumed.
        out: The passages folder; must not exist.
        inputs: Fingerprints of what they come from.
        skipped: Filled while they are read.
        finish: Called with the unpublished folder, all passages in it, and the report; whatever
            it raises gives the folder up.
        config: How to cut.
        tokenizer: Measures and fills the passages; saved in the folder.
        progress: Called with the number of articles split so far, and 0.

    Raises:
        CorpusError: what `finish` raises; nothing is published.
        ArtifactError: `out` cannot be written.
    """
    request = Request(
        kind="passages",
        settings=config.as_dict(),
        inputs={**inputs, "tokenizer": tokenizer.fingerprint},
    )
    with publish(out, request, resume=True) as scratch:
        tokenizer.save(scratch / TOKENIZER)
        cutter = Cutter(tokenizer=tokenizer, config=config)
        num_shards = _write_shards(scratch, found, cutter, 1, progress)
        report = _finish(scratch, num_shards, skipped)
        try:
            finish(scratch, report)
        except CorpusError:
            shutil.rmtree(scratch)  # nothing in it to go on from
            raise
    return report


def _write_shards(
    scratch: Path,
    found: Iterable[Found],
    cutter: Cutter,
    num_processes: int,
    progress: Progress | None,
) -> int:
    tasks = (
        Task(folder=scratch, number=number, articles=articles)
        for number, articles in enumerate(cut_groups(found, SHARD_ARTICLES, SHARD_CHARACTERS))
    )
    if num_processes == 1:
        return split_here(tasks, cutter, progress)
    return split_in_processes(tasks, cutter, num_processes, progress, tokenizer=scratch / TOKENIZER)


def _finish(scratch: Path, num_shards: int, skipped: Skipped) -> SplitReport:
    """Add up the shards and write what stands beside them."""
    num_articles = num_passages = num_wordpieces = 0
    for number in range(num_shards):
        _, counts = open_shard(shard_path(scratch, number))
        num_articles += counts.num_articles
        num_passages += counts.num_passages
        num_wordpieces += counts.num_wordpieces
        skipped.join(counts.skipped)
    places = [
        {"file": file, "line": int(line), "reason": reason}
        for reason in sorted(skipped.examples)
        for file, _, line in (place.rpartition(":") for place in skipped.examples[reason])
    ]
    with (scratch / SKIPPED).open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(place, ensure_ascii=False) + "\n" for place in places)
    counted = {
        "num_articles": num_articles,
        "num_passages": num_passages,
        "num_wordpieces": num_wordpieces,
    }
    extra = {**counted, "num_shards": num_shards, "skipped": dict(sorted(skipped.counts.items()))}
    write_json(scratch / "extra.json", extra)
    return SplitReport(**counted, skipped=skipped, already_done=False)


def _read_report(out: Path) -> SplitReport:
    """Return the report of a folder that is already made.

    Raises:
        DamagedError: its list of what was left out is not what was written.
        UnreadableError: the list cannot be read.
    """
    manifest = read_manifest(out)
    skipped = Skipped(counts=manifest.skipped_counts, keep=NUM_PLACES)
    check_files(out, open_folder(out, "passages"), names=[SKIPPED], remedy=REMEDY)
    try:
        for line in (out / SKIPPED).read_text(encoding="utf-8").split("\n")[:-1]:
            at = json.loads(line)
            skipped.examples.setdefault(at["reason"], []).append(f"{at['file']}:{at['line']}")
    except (OSError, KeyError, TypeError, ValueError) as error:  # of a release without checksums
        raise not_read(out / SKIPPED, error, remedy=REMEDY) from None
    return SplitReport(
        num_articles=manifest.num_articles,
        num_passages=manifest.num_passages,
        num_wordpieces=manifest.num_wordpieces,
        skipped=skipped,
        already_done=True,
    )


def _name_inputs(inputs: Sequence[Path]) -> dict[str, tuple[Path, str]]:
    """Return name -> (path, fingerprint), in the order in which the inputs are read.

    Names, not paths: where the files lie and in which order they are given changes nothing.
    """
    try:
        prints = sorted((path.resolve().name, fingerprint(path), path) for path in inputs)
    except OSError as error:
        raise CorpusError(
            f"cannot read {error.filename}: {error.strerror}; mend its permissions"
        ) from None
    named: dict[str, tuple[Path, str]] = {}
    for name, hashed, path in prints:
        taken = {*named, "tokenizer"}
        free = next(n for k in count(1) if (n := name if k == 1 else f"{name} ({k})") not in taken)
        named[free] = (path, hashed)
    return named
