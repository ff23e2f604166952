"""Passages -> masked examples, each sentence with its masks as one row (section 3.4)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from realm.config import MaskConfig
from realm.errors import MaskingError
from realm.masking.masker import Masker
from realm.masking.store import KIND, ExampleStore, ExampleWriter, to_batch
from realm.masking.taggers import Tagger, make_tagger
from realm.records import Passage, Progress, Skipped
from realm.storage import Request, is_done, open_folder, publish, write_json
from realm.tokenizer import WordpieceTokenizer
from realm.workers import check_processes, in_order, worker_pool

__all__ = ["ExampleStore", "MaskReport", "PassageSource", "mask"]

PASSAGES_PER_BATCH = 256


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
    skipped = Skipped()
    labels: Counter[str] = Counter()
    num_passages = 0
    with publish(out, request, replace=rebuild) as partial:
        with ExampleWriter(partial, source.tokenizer) as writer:
            for batch in _masked_batches(source, config, tagger, num_processes, progress):
                writer.add(batch.examples)
                skipped.join(batch.skipped)
                labels.update(batch.labels)
                num_passages += batch.num_masked
        if not writer.num_rows:
            raise MaskingError(_why_nothing(len(source), skipped))
        content: dict[str, Any] = {
            "num_examples": writer.num_rows,
            "num_passages": num_passages,
            "spans_by_label": dict(labels.most_common()),
            "skipped": {"counts": skipped.counts, "examples": skipped.examples},
        }
        write_json(partial / "extra.json", content)
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
        f"found nothing to mask in {num_passages:,} passages ({reasons or 'the store is empty'}); "
        "expected at least one example. Look at the passages, or try another tagger, "
        "a smaller min_sentence_wordpieces or a larger query_wordpieces"
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """What came out of some passages."""

    num_passages: int
    num_masked: int
    """Passages with an example."""
    examples: Any
    """As columns, see `to_batch`."""
    labels: Counter[str]
    skipped: Skipped


def _masked_batches(
    source: PassageSource,
    config: MaskConfig,
    tagger: Tagger | None,
    num_processes: int,
    progress: Progress | None,
) -> Iterator[_Batch]:
    """Yield the examples of all passages, in their order."""
    total, done = len(source), 0
    tasks = [
        range(first, min(first + PASSAGES_PER_BATCH, total))
        for first in range(0, total, PASSAGES_PER_BATCH)
    ]
    for batch in _batches(source, config, tagger, num_processes, tasks):
        yield batch
        done += batch.num_passages
        if progress is not None:
            progress(done, total)


def _batches(
    source: PassageSource,
    config: MaskConfig,
    tagger: Tagger | None,
    num_processes: int,
    tasks: Sequence[range],
) -> Iterator[_Batch]:
    if num_processes == 1:
        yield from (_mask_batch(source, config, tagger, rows) for rows in tasks)
        return
    with worker_pool(
        "mask", num_processes, start=_remember, with_arguments=(source, config, tagger)
    ) as pool:
        yield from in_order(pool, num_processes, _mask_remembered, tasks)


def _mask_batch(
    source: PassageSource, config: MaskConfig, tagger: Tagger | None, rows: range
) -> _Batch:
    skipped = Skipped()
    masker = Masker(source.tokenizer, config, skipped)
    passages = [source[row] for row in rows]
    found = list(
        masker.random(passages)
        if tagger is None
        else masker.salient(passages, list(tagger.tag(passages, skipped)))
    )
    examples = [example for mine in found for example in mine]
    return _Batch(
        num_passages=len(rows),
        num_masked=sum(map(bool, found)),
        examples=to_batch(examples, source.tokenizer.vocab_size),
        labels=Counter(example.label for example in examples),
        skipped=skipped,
    )


_remembered: list[tuple[PassageSource, MaskConfig, Tagger | None]] = []
"""In a worker: what all its tasks share."""


def _remember(source: PassageSource, config: MaskConfig, tagger: Tagger | None) -> None:
    _remembered[:] = [(source, config, tagger)]


def _mask_remembered(rows: range) -> _Batch:
    return _mask_batch(*_remembered[0], rows)
