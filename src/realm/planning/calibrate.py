"""Measure a machine in half a minute: what its encoder, its search, its text and its disk reach.

Seconds of computing are CPU seconds of the process divided by its threads, or those of one thread
where only one works, so that work beside it does not count: a plan says what an undisturbed machine
would take.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from realm.checkpoint.folders import load_tokenizer
from realm.config import MaskConfig, SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.device import CPU, has_quick_bfloat16
from realm.encyclopedia import articles_file
from realm.errors import ConfigError
from realm.index.builder import embed_sequences
from realm.index.exact import search_exactly
from realm.index.writing import largest_norms
from realm.masking.examples import mask
from realm.memory import peak_memory_bytes
from realm.model.embedder import Embedder, Towers
from realm.model.inputs import TokenSequence
from realm.planning.encoders import BACKWARD, EncoderShape
from realm.planning.machine import (
    Calibration,
    MachineRates,
    processor_name,
    usable_memory_bytes,
)
from realm.planning.probes import (
    draw_lengths,
    new_encoder,
    new_tower,
    step_flops,
    take_step,
)
from realm.readable import counted
from realm.records import Progress
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

EMBED_SECONDS = 4.0
TRAIN_SECONDS = 4.0
QUERIES, CANDIDATES, MAX_STEPS = 3, 8, 30
BATCH_TOKENS = 8_192
ROWS_AT_ONCE = 64
COPIES, TIMED_COPIES = 3, 16
"""Times that the encyclopedia is split: to be masked and embedded; to be timed, some seconds."""
SEARCHED_ROWS = 1 << 19
SEARCH_BATCH = 64
STREAMED = 1 << 25
WRITTEN_BYTES = 128 << 20
NETWORK_BYTES = 10e9 / 8
"""Between CPU machines, if nobody says otherwise: 10 Gbit/s."""
STAGES = ("split", "mask", "embed", "train", "search", "memory", "disk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """What embedding a passage costs."""

    flops: float
    """FLOP/s of the encoder."""
    passage_seconds: float
    """Seconds a passage besides."""


def calibrate(
    shape: EncoderShape, *, dim: int, threads: int, progress: Progress | None = None
) -> Calibration:
    """Measure this machine with random weights of the encoder's shape; at most half a minute.

    Args:
        shape: the encoder that the plan is for.
        dim: width of the embeddings.
        threads: CPU threads of a process.
        progress: called with (measurements done, measurements).
    """
    began = time.perf_counter()
    before = torch.get_num_threads()
    base = float(peak_memory_bytes())
    told = _Teller(progress)
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(prefix="realm-plan-") as folder:
            store, split_rate = _measure_split(Path(folder))
            told.next()
            mask_rate = _measure_mask(store, Path(folder))
            told.next()
            embedding = measure_embedding(shape, store, dim=dim)
            told.next()
            train_flops = measure_training(shape, embedding.flops, dim=dim)
            told.next()
            scan_bytes, scan_flops = measure_search(dim)
            told.next()
            stream = measure_stream()
            told.next()
            written = _measure_disk(Path(folder))
            told.next()
    finally:
        torch.set_num_threads(before)
    rates = MachineRates(
        is_measured=True,
        source=f"{processor_name()}, {counted(threads, 'thread')}, measured with {shape.name}",
        embed_flops=embedding.flops,
        embed_passage_seconds=embedding.passage_seconds,
        train_flops=train_flops,
        scan_bytes=scan_bytes,
        scan_flops=scan_flops,
        stream_bytes=stream,
        split_wordpieces=split_rate,
        mask_wordpieces=mask_rate,
        disk_write_bytes=written,
        network_bytes=NETWORK_BYTES,
        memory_bytes=usable_memory_bytes(),
        base_memory_bytes=base,
        has_quick_bfloat16=has_quick_bfloat16(CPU),
    )
    return Calibration(
        rates=rates,
        encoder=shape.name,
        threads=threads,
        hardware=f"{processor_name()}, {counted(os.cpu_count() or 1, 'core')}",
        versions={name: version(name) for name in ("torch", "transformers", "tokenizers")},
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        seconds=time.perf_counter() - began,
    )


def measure_embedding(shape: EncoderShape, store: PassageStore, *, dim: int) -> Embedding:
    """Embed passages as the index builder does, for some seconds."""
    tower = new_tower(shape, dim).eval()
    began = time.thread_time()  # this thread alone makes them, however many torch has
    sequences = [_sequence(store, row) for row in range(len(store))]
    passage_seconds = (time.thread_time() - began) / len(store)
    _embed(tower, sequences[:2], store)  # kernels are made
    is_large = shape.forward_flops(100.0) * ROWS_AT_ONCE > 1e12
    flops, seconds = 0.0, 0.0
    for chosen in _of_like_length(sequences, 8 if is_large else ROWS_AT_ONCE):
        seconds += _timed(lambda some=chosen: _embed(tower, some, store))
        flops += sum(shape.embed_flops(float(len(ids)), dim) for ids, _ in chosen)
        if seconds > EMBED_SECONDS:
            break
    return Embedding(flops=flops / seconds, passage_seconds=passage_seconds)


def measure_training(shape: EncoderShape, embed_flops: float, *, dim: int) -> float:
    """Return FLOP/s of joint steps whose lengths differ; of fewer layers where they take long."""

    def planned(layers: int, queries: int) -> float:
        lengths, cut = draw_lengths(queries, CANDIDATES, 0), replace(shape, layers=layers)
        flops = step_flops(cut, lengths, dim=dim, candidates=CANDIDATES) * (1 + BACKWARD)
        return flops / (embed_flops / 2)

    queries = QUERIES if planned(1, QUERIES) < TRAIN_SECONDS / 4 else 1
    fitting = [n for n in range(1, shape.layers + 1) if planned(n, queries) < TRAIN_SECONDS / 4]
    shape = replace(shape, layers=max(fitting, default=1))
    towers, encoder = Towers(new_tower(shape, dim)), new_encoder(shape)
    flops, seconds = 0.0, 0.0
    for number in range(MAX_STEPS):
        lengths = draw_lengths(queries, CANDIDATES, number)
        elapsed = _timed(
            lambda drawn=lengths: take_step(towers, encoder, drawn, candidates=CANDIDATES)
        )
        if number == 0:
            continue  # the libraries' own start
        seconds += elapsed
        flops += step_flops(shape, lengths, dim=dim, candidates=CANDIDATES) * (1 + BACKWARD)
        if seconds > TRAIN_SECONDS * 3 / 4:
            break
    return flops / seconds


def measure_search(dim: int) -> tuple[float, float]:
    """Return (bytes/s for one query, FLOP/s for many) of exact search for the best eight."""
    exact = torch.randn(SEARCHED_ROWS, dim)
    rows = exact.to(torch.bfloat16)
    queries = torch.randn(SEARCH_BATCH, dim)
    norm, rounding = largest_norms(rows, exact)

    def find(queries: Tensor) -> None:
        search_exactly(queries, rows, exact, 8, max_norm=norm, max_rounding=rounding)

    find(queries[:1])
    one = min(_timed(lambda: find(queries[:1])) for _ in range(5))
    many = min(_timed(lambda: find(queries)) for _ in range(3))
    each = max(1e-9, (many - one) / (SEARCH_BATCH - 1))
    return rows.numel() * 2 / max(1e-9, one - each), rows.numel() * 2 / each


def measure_stream() -> float:
    """Return bytes/s of memory: two vectors read, one written."""
    a, b, c = torch.zeros(3, STREAMED).unbind()
    seconds = min(_timed(lambda: torch.add(a, b, out=c)) for _ in range(4))
    return 3 * a.numel() * 4 / seconds


class _Teller:
    """Counts the measurements done."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = -1
        self.next()

    def next(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, len(STAGES))


def _measure_split(folder: Path) -> tuple[PassageStore, float]:
    """Return the encyclopedia's passages, and wordpieces/s of splitting many copies of it."""
    lines = [json.loads(line) for line in articles_file().read_text(encoding="utf-8").splitlines()]
    tokenizer = _tokenizer(lines)
    warm, timed, full = (folder / name for name in ("warm", "timed", "passages"))
    for out, copies in ((warm, 1), (full, COPIES)):
        split([_copied(lines, copies, out)], out, config=SplitConfig(), tokenizer=tokenizer)
    texts = _copied(lines, TIMED_COPIES, timed)
    began = time.perf_counter()
    report = split([texts], timed, config=SplitConfig(), tokenizer=tokenizer)
    seconds = time.perf_counter() - began
    return PassageStore.open(full), report.num_wordpieces / seconds


def _copied(lines: list[dict[str, str]], copies: int, out: Path) -> Path:
    """Write articles several times, each with an id of its own; return the file."""
    told = [{**one, "id": f"{one['id']}-{copy}"} for copy in range(copies) for one in lines]
    file = out.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(one) + "\n" for one in told), encoding="utf-8")
    return file


def _measure_mask(store: PassageStore, folder: Path) -> float:
    began = time.perf_counter()
    mask(store, folder / "examples", config=MaskConfig())
    return float(store.lengths().sum()) / (time.perf_counter() - began)


def _measure_disk(folder: Path) -> float:
    block = os.urandom(1 << 20)
    began = time.perf_counter()
    with (folder / "written").open("wb") as file:
        for _ in range(WRITTEN_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return WRITTEN_BYTES / (time.perf_counter() - began)


def _tokenizer(articles: list[dict[str, str]]) -> WordpieceTokenizer:
    """Return all-MiniLM's tokenizer where it is installed, else one with the articles' words."""
    try:
        return load_tokenizer("minilm")
    except ConfigError:
        words = sorted({word for one in articles for word in one["text"].lower().split()})
        letters = [chr(number) for number in range(33, 127)]
        pieces = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *words]
        return WordpieceTokenizer.from_vocabulary([*dict.fromkeys(pieces)])


def _sequence(store: PassageStore, row: int) -> TokenSequence:
    title, body = store.title_wordpieces(row).tolist(), store.wordpieces(row).tolist()
    return store.tokenizer.passage_input(title, body, 288)


def _of_like_length(sequences: list[TokenSequence], size: int) -> list[list[TokenSequence]]:
    """Return groups as the builder's, which sorts many more passages by length; in any order."""
    ordered = sorted(sequences, key=lambda sequence: len(sequence[0]))
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    return [groups[number] for number in order.tolist()]


def _embed(tower: Embedder, sequences: list[TokenSequence], store: PassageStore) -> None:
    settings = {"pad_id": store.tokenizer.pad_id, "batch_tokens": BATCH_TOKENS}
    lengths = [len(ids) for ids, _ in sequences]
    for _ in embed_sequences(
        tower, lengths, sequences.__getitem__, **settings, autocast="bfloat16"
    ):
        pass


def _busy_seconds() -> float:
    """Return CPU seconds of the process, an even share for each of torch's threads."""
    return time.process_time() / torch.get_num_threads()


def _timed(action: Callable[[], object]) -> float:
    began = _busy_seconds()
    action()
    return _busy_seconds() - began
