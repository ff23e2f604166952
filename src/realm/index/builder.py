"""Embed every passage with Embed_doc and publish the snapshot; or publish vectors as they come.

Several processes may build the same snapshot: each takes shards that nobody else has, and all
return once it is whole.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.errors import ArtifactError, CorpusError
from realm.index.snapshot import Snapshot
from realm.index.writing import is_shard_whole, snapshot_content, split_into_shards, write_shard
from realm.model.bert import evaluating, joining
from realm.model.embedder import Embedder, MeanEmbedder, in_16_bits
from realm.model.inputs import TokenSequence
from realm.readable import counted
from realm.records import Progress
from realm.storage import (
    EXTRA,
    PATIENCE_SECONDS,
    Request,
    claimed,
    finish_together,
    is_done,
    lock_touched,
    publish,
    start_together,
    touch_lock,
    write_json,
    writing,
)

POLL_SECONDS = 0.2
TOUCH_SECONDS = 2.0
"""Least time between two signs that a shard's embeddings move on."""
KnownVectors = Callable[[Sequence[int]], tuple[list[int], Float[Tensor, "known dim"]]]
"""Rows -> (places among them whose vectors are known, those vectors)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderVersion:
    """Which parameters a snapshot is built with."""

    model_hash: str
    step: int = 0


def build_index(
    tower: Embedder | MeanEmbedder,
    store: PassageStore,
    out: Path,
    *,
    version: EmbedderVersion,
    config: IndexConfig,
    rebuild: bool = False,
    share: tuple[int, int] = (0, 1),
    known: KnownVectors | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Publish the snapshot of a passage store under one embedder, and open it.

    A killed build continues after its last finished shard. Processes that build the same snapshot
    at the same time share its shards.

    Args:
        tower: Embed_doc.
        store: the passages.
        out: the snapshot's folder.
        version: which parameters these are.
        config: lengths, shards, dtype.
        rebuild: replace a snapshot made from something else.
        share: (number of this process, processes), where several build: each begins elsewhere.
        known: returns vectors that need not be computed.
        progress: called with (passages embedded, passages), those of other processes included;
            also while this one waits for them.

    Returns:
        The snapshot, opened; the one that stood there if it was made from the same.

    Raises:
        ArtifactError: `out` was made from something else, or cannot be written, or another
            process holds a shard and does not move on, or somebody took the unfinished folder away.
        CorpusError: the store is empty.
    """
    if not len(store):
        raise CorpusError(f"{store.folder} holds no passages")
    settings = {**config.as_dict(), "step": version.step}
    inputs = {"passages": store.fingerprint, "embedder": version.model_hash}
    request = Request(kind="index", settings=settings, inputs=inputs)
    if is_done(out, request, rebuild=rebuild):
        return Snapshot.open(out)
    embed = PassageEmbedder(tower, store, config, known)
    with evaluating(tower):
        _build_together(embed, out, request, replace=rebuild, share=share, progress=progress)
    return Snapshot.open(out)


def publish_vectors(
    vectors: Callable[[range], Float[Tensor, "rows dim"]],
    out: Path,
    request: Request,
    *,
    num_passages: int,
    dim: int,
    replace: bool = False,
) -> None:
    """Publish a snapshot of the vectors that `vectors` returns for each run of rows, in 32 bits.

    Args:
        vectors: called for one shard at a time; shards that a killed build finished are kept.
        out: the snapshot's folder.
        request: of kind index, with `step` and `shard_rows` among the settings and the
            fingerprints of `passages` and `embedder` among the inputs.
        num_passages: rows in all.
        dim: width of a vector.
        replace: what stands in `out` stays until the new one is whole, and goes then.
    """
    shards = split_into_shards(num_passages, int(request.settings["shard_rows"]))
    with publish(out, request, resume=True, replace=replace) as scratch:
        for number, rows in enumerate(shards):
            if not is_shard_whole(scratch, number, len(rows), dim):
                write_shard(scratch, number, vectors(rows))
        write_json(scratch / EXTRA, snapshot_content(scratch, request, shards, dim))


class PassageEmbedder:
    """Embed_doc of passages by their rows, without gradients."""

    def __init__(
        self,
        tower: Embedder | MeanEmbedder,
        store: PassageStore,
        config: IndexConfig,
        known: KnownVectors | None = None,
    ) -> None:
        self.tower = tower
        self.store = store
        self.config = config
        self.known = known

    def __call__(
        self, rows: Sequence[int], on_group: Callable[[int], None] | None = None
    ) -> Float[Tensor, "rows dim"]:
        """Return the rows' embeddings in 32 bits; the tower should be in evaluation mode.

        Args:
            rows: of the passage store, in any order.
            on_group: called with the number of passages just embedded.
        """
        exact = torch.empty((len(rows), self.tower.dim))
        if self.known is None:
            self._embed(rows, range(len(rows)), exact, on_group)
            return exact
        places, exact[places] = self.known(rows)
        if on_group:
            on_group(len(places))
        have = set(places)
        rest = [place for place in range(len(rows)) if place not in have]
        self._embed(rows, rest, exact, on_group)
        return exact

    def _embed(
        self,
        rows: Sequence[int],
        places: Sequence[int],
        exact: Float[Tensor, "rows dim"],
        on_group: Callable[[int], None] | None,
    ) -> None:
        """Write the embeddings of the rows at some places."""
        store, tokenizer = self.store, self.store.tokenizer
        longest = min(self.config.passage_wordpieces, self.tower.max_length)

        def sequence(number: int) -> TokenSequence:
            row = rows[places[number]]
            title, body = store.title_wordpieces(row), store.wordpieces(row)
            return tokenizer.passage_input(title.tolist(), body.tolist(), longest)

        for group, vectors in embed_sequences(
            self.tower,
            store.lengths([rows[place] for place in places]).clip(max=longest).tolist(),
            sequence,
            pad_id=tokenizer.pad_id,
            batch_tokens=self.config.batch_tokens,
            autocast=self.config.autocast,
        ):
            exact[[places[number] for number in group]] = vectors
            if on_group:
                on_group(len(group))


def embed_sequences(
    tower: Embedder | MeanEmbedder,
    lengths: Sequence[int],
    sequence: Callable[[int], TokenSequence],
    *,
    pad_id: int,
    batch_tokens: int,
    autocast: Literal["bfloat16", "none"] = "none",
) -> Iterator[tuple[list[int], Float[Tensor, "rows dim"]]]:
    """Yield (numbers, embeddings in main memory) of groups of texts, without gradients.

    On a CPU a group is a pack, which has no padding; on a GPU, texts of like length.

    Args:
        tower: what embeds.
        lengths: of each text, in wordpieces with [CLS] and [SEP].
        sequence: returns the text of a number; called group by group, so that not all of a corpus
            is in memory, and a GPU has work while the next group is prepared.
        pad_id: of [PAD].
        batch_tokens: wordpieces of a group, padding included.
        autocast: in how many bits.
    """
    device = device_of(tower)
    if device.type == "cuda" and autocast == "bfloat16":
        tower, autocast = in_16_bits(tower), "none"
    join, groups = joining(tower.bert)
    before: tuple[list[int], Tensor] | None = None
    for group in groups(lengths, batch_tokens):
        # Left before each yield, so that the caller's own code does not run in these modes.
        with torch.no_grad(), autocast_to(autocast, device):
            vectors = tower(join([sequence(i) for i in group], pad_id).to(device)).float()
        if before is not None:  # only now: a GPU works on one group while the next is padded
            yield before[0], before[1].cpu()
        before = group, vectors
    if before is not None:
        yield before[0], before[1].cpu()


def _build_together(
    embed: PassageEmbedder,
    out: Path,
    request: Request,
    *,
    replace: bool,
    share: tuple[int, int],
    progress: Progress | None,
) -> None:
    """Write the shards that nobody else writes, wait for the others', publish."""
    dim = embed.tower.dim
    shards = split_into_shards(len(embed.store), int(request.settings["shard_rows"]))
    scratch = start_together(out, request, replace=replace)
    if scratch is None:
        return
    first = share[0] * len(shards) // share[1]
    order = [*range(first, len(shards)), *range(first)]
    moved_on, signs = time.monotonic(), []
    while scratch.is_dir():  # gone: another process has published it
        missing = [n for n in order if not is_shard_whole(scratch, n, len(shards[n]), dim)]
        if not missing:
            finish_together(
                out,
                request,
                lambda folder: snapshot_content(folder, request, shards, dim),
                replace=replace,
            )
            return
        before, signs = signs, [(n, lock_touched(_shard_place(scratch, n))) for n in missing]
        if signs != before:  # a shard was finished, or whoever writes one moves on
            moved_on = time.monotonic()
        done = len(embed.store) - sum(len(shards[n]) for n in missing)
        if not any(_write_if_free(embed, scratch, n, shards[n], done, progress) for n in missing):
            if progress:
                progress(done, len(embed.store))
            _wait_for_others(out, len(missing), since=moved_on)


def _write_if_free(
    embed: PassageEmbedder,
    scratch: Path,
    number: int,
    rows: range,
    done: int,
    progress: Progress | None,
) -> bool:
    """Embed and write one shard unless another process does; return whether it was written.

    The scratch folder may go at any moment: another process has published it, or the trainer has
    given it up.
    """
    place, touched = _shard_place(scratch, number), time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, touched
        done += count
        if time.monotonic() - touched >= TOUCH_SECONDS:
            touched = time.monotonic()
            touch_lock(place)
        if progress:
            progress(done, len(embed.store))

    with claimed(place) as is_mine:
        if not is_mine:
            return False
        if not is_shard_whole(scratch, number, len(rows), embed.tower.dim):  # until just now
            vectors = embed(rows, advance)
            if scratch.is_dir():
                with writing(scratch, scratch):
                    write_shard(scratch, number, vectors)
        return True


def _shard_place(scratch: Path, number: int) -> Path:
    """Return what is claimed for a shard; nothing stands there but its lock."""
    return scratch / f"shard-{number:05d}"


def _wait_for_others(out: Path, num_missing: int, *, since: float) -> None:
    if time.monotonic() - since > PATIENCE_SECONDS:
        raise ArtifactError(
            f"{out}: another process holds the last {counted(num_missing, 'shard')} and has not "
            f"moved on for {PATIENCE_SECONDS:.0f} seconds; stop it and run the same command again, "
            "it goes on from the finished shards"
        )
    time.sleep(POLL_SECONDS)
