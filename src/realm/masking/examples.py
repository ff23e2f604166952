"""Passages -> masked examples, each sentence with its masks as one row (section 3.4)."""

import shutil
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from realm.config import MaskConfig
from realm.errors import MaskingError
from realm.masking.masker import Masker
from realm.masking.pieces import Masked, Pieces
from realm.masking.store import EXAMPLES_FILE, KIND, ExampleStore, ExampleWriter, to_batch
from realm.masking.taggers import Tagger, make_tagger
from realm.readable import counted
from realm.records import Passage, Progress, Skipped
from realm.storage import (
    EXTRA,
    Request,
    is_done,
    open_folder,
    publish,
    read_json,
    sync,
    write_json,
)
from realm.tokenizer import WordpieceTokenizer
from realm.workers import check_processes, in_order, worker_pool

__all__ = ["ExampleStore", "MaskReport", "PassageSource", "mask"]

PASSAGES_PER_BATCH = 256
BATCHES_PER_PIECE = 16
"""A killed run loses what it has done of one piece: seconds of a core, with the rules."""


@runtime_checkable
class PassageSource(Protocol):
    """The passages X that are masked; a passage store is one."""

    @property
    def fingerprint(self) -> str:
        """Hash of the passages."""
        ...

    @property
    def tokenizer(self) -> WordpieceTokenizer:
        """What cut the passages, and cuts the queries."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Passage: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskReport:
    """What one run of `mask` made."""

    num_examples: int
    num_passages: int
    """Passages that have at least one example."""
    spans_by_label: dict[str, int]
    """Examples by the label of their span (or by the scheme)."""
    skipped: Skipped
    already_done: bool
    """The folder was there, made from equal inputs and settings; nothing was computed."""


def mask(
    source: PassageSource,
    out: Path,
    *,
    config: MaskConfig,
    tagger: Tagger | None = None,
    rebuild: bool = False,
    num_processes: int = 1,
    progress: Progress | None = None,
) -> MaskReport:
    """Write the masked examples of every passage to the folder `out`; return what was made.

    salient: every distinct span of a passage is one example, whose query is the one sentence
    that holds it, so that a uniform draw from a passage's rows is the paper's draw. token and
    span: `config.examples_per_passage` random draws, each from a sentence of the passage.

    A killed run goes on after its last whole piece; the folder's bytes depend neither on that nor
    on `num_processes`.

    Args:
        source: The passages X.
        out: Folder to publish.
        config: Scheme, lengths, rates.
        tagger: Instead of the one that `config.tagger` names (salient only).
        rebuild: Replace a folder that was made from something else.
        num_processes: Workers that tag and mask; the output is the same.
        progress: Called with (passages done, passages).

    Raises:
        MaskingError: not one example came out, or the tagger's spans cannot be used.
        ArtifactError: `out` holds something else.
        ConfigError: the tagger or a setting is impossible.
    """
    check_processes(num_processes)
    settings = config.as_dict()
    tagger = (tagger or make_tagger(config.tagger)) if config.scheme == "salient" else None
    if tagger is not None:
        settings |= {"tagger": tagger.name, "tagger_fingerprint": tagger.fingerprint}
    request = Request(kind=KIND, settings=settings, inputs={"passages": source.fingerprint})
    if is_done(out, request, rebuild=rebuild):
        return _report(open_folder(out, KIND)["content"], already_done=True)
    with publish(out, request, resume=True, replace=rebuild) as partial:
        pieces = Pieces(partial, vocab_size=source.tokenizer.vocab_size)
        if not (partial / EXTRA).is_file():  # else a killed run has joined them already
            try:
                found = _write_missing(pieces, source, config, tagger, num_processes, progress)
                content = _join(pieces, found, partial, source.tokenizer)
            except MaskingError:
                shutil.rmtree(partial)  # nothing in it to go on from
                raise
            write_json(partial / EXTRA, content)
        content = read_json(partial / EXTRA)
        pieces.remove()
    return _report(content, already_done=False)


def _report(content: dict[str, Any], *, already_done: bool) -> MaskReport:
    return MaskReport(
        num_examples=content["num_examples"],
        num_passages=content["num_passages"],
        spans_by_label=content["spans_by_label"],
        skipped=Skipped(**content["skipped"]),
        already_done=already_done,
    )


def _why_nothing(num_passages: int, skipped: Skipped) -> str:
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in skipped.counts.items())
    return (
        f"found nothing to mask in {counted(num_passages, 'passage')} "
        f"({reasons or 'the store is empty'}); "
        "expected at least one example. Look at the passages, or try another tagger, "
        "a smaller min_sentence_wordpieces or a larger query_wordpieces"
    )


def _write_missing(
    pieces: Pieces,
    source: PassageSource,
    config: MaskConfig,
    tagger: Tagger | None,
    num_processes: int,
    progress: Progress | None,
) -> list[range]:
    """Mask the passages of all pieces that are not there yet; return the rows of each piece."""
    total = len(source)
    groups = _cut(range(total), PASSAGES_PER_BATCH * BATCHES_PER_PIECE)
    missing = [rows for rows in groups if not pieces.has(rows)]
    done = total - sum(map(len, missing))

    def advance(part: Masked) -> Masked:
        nonlocal done
        done += part.num_passages
        if progress is not None:
            progress(done, total)
        return part

    batches = [_cut(rows, PASSAGES_PER_BATCH) for rows in missing]
    tasks = [batch for of_piece in batches for batch in of_piece]
    with closing(_masked(source, config, tagger, num_processes, tasks)) as masked:
        for rows, of_piece in zip(missing, batches, strict=True):
            pieces.write(rows, map(advance, islice(masked, len(of_piece))))
    return groups


def _cut(rows: range, size: int) -> list[range]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _join(
    pieces: Pieces, groups: Sequence[range], folder: Path, tokenizer: WordpieceTokenizer
) -> dict[str, Any]:
    """Write the examples of all pieces as one file; return what there is in it.

    Raises:
        MaskingError: not one.
    """
    whole = Masked()
    with ExampleWriter(folder, tokenizer) as writer:
        for rows in groups:
            piece = pieces.read(rows)
            for batch in piece.batches:
                writer.add(batch)
            piece.batches.clear()
            whole.join(piece)
    if not writer.num_rows:
        raise MaskingError(_why_nothing(whole.num_passages, whole.skipped))
    sync(folder / EXAMPLES_FILE)
    return {
        "num_examples": writer.num_rows,
        "num_passages": whole.num_masked,
        "spans_by_label": dict(whole.labels.most_common()),
        "skipped": {"counts": whole.skipped.counts, "examples": whole.skipped.examples},
    }


def _masked(
    source: PassageSource,
    config: MaskConfig,
    tagger: Tagger | None,
    num_processes: int,
    tasks: Sequence[range],
) -> Generator[Masked]:
    """Yield what comes out of some passages after the other, in their order."""
    if num_processes == 1 or not tasks:
        yield from (_mask_batch(source, config, tagger, rows) for rows in tasks)
        return
    with worker_pool(
        "mask", num_processes, start=_remember, with_arguments=(source, config, tagger)
    ) as pool:
        yield from in_order(pool, num_processes, _mask_remembered, tasks)


def _mask_batch(
    source: PassageSource, config: MaskConfig, tagger: Tagger | None, rows: range
) -> Masked:
    skipped = Skipped()
    masker = Masker(source.tokenizer, config, skipped)
    passages = [source[row] for row in rows]
    found = list(
        masker.random(passages)
        if tagger is None
        else masker.salient(passages, list(tagger.tag(passages, skipped)))
    )
    examples = [example for mine in found for example in mine]
    return Masked(
        num_passages=len(rows),
        num_masked=sum(map(bool, found)),
        batches=[to_batch(examples, source.tokenizer.vocab_size)],
        labels=Counter(example.label for example in examples),
        skipped=skipped,
    )


_remembered: list[tuple[PassageSource, MaskConfig, Tagger | None]] = []
"""In a worker: what all its tasks share."""


def _remember(source: PassageSource, config: MaskConfig, tagger: Tagger | None) -> None:
    _remembered[:] = [(source, config, tagger)]


def _mask_remembered(rows: range) -> Masked:
    return _mask_batch(*_remembered[0], rows)
