"""Embed every passage with Embed_doc and publish the snapshot; or publish vectors as they come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, CorpusError
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot, shard_names
from realm.model.embedder import Embedder, MeanEmbedder
from realm.model.inputs import TokenSequence, group_by_length, pad
from realm.records import Progress
from realm.storage import EXTRA, Request, is_done, publish, sync, write_json


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
    progress: Progress | None = None,
) -> Snapshot:
    """Publish the snapshot of a passage store under one embedder, and open it.

    A killed build continues after its last finished shard.

    Raises:
        ArtifactError: `out` was made from something else.
        CorpusError: the store is empty.
    """
    if not len(store):
        raise CorpusError(f"{store.folder} holds no passages")
    settings = {**config.as_dict(), "step": version.step}
    inputs = {"passages": store.fingerprint, "embedder": version.model_hash}
    request = Request(kind="index", settings=settings, inputs=inputs)
    if is_done(out, request, rebuild=rebuild):
        return Snapshot.open(out)
    was_training = tower.training
    tower.eval()
    try:
        publish_vectors(
            lambda rows: _embed_rows(tower, store, rows, config=config, progress=progress),
            out,
            request,
            num_passages=len(store),
            dim=tower.dim,
            replace=rebuild,
        )
    finally:
        tower.train(was_training)
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
    size = int(request.settings["shard_rows"])
    shards = [range(i, min(i + size, num_passages)) for i in range(0, num_passages, size)]
    with publish(out, request, resume=True, replace=replace) as scratch:
        norms = [
            _finished(scratch, number, len(rows), dim)
            or _write_shard(scratch, number, vectors(rows))
            for number, rows in enumerate(shards)
        ]
        content = {
            "step": request.settings["step"],
            "model_hash": request.inputs["embedder"],
            "dim": dim,
            "num_passages": num_passages,
            "shard_rows": [len(rows) for rows in shards],
            "max_norm": max(norm for norm, _ in norms),
            "max_rounding": max(rounding for _, rounding in norms),
        }
        write_json(scratch / EXTRA, content)


def embed_sequences(
    tower: Embedder | MeanEmbedder,
    sequences: list[TokenSequence],
    *,
    pad_id: int,
    batch_tokens: int,
    autocast: Literal["bfloat16", "none"] = "none",
) -> Iterator[tuple[list[int], Float[Tensor, "rows dim"]]]:
    """Yield (indices, embeddings) of groups of like length, without gradients."""
    device = next(tower.parameters()).device
    for group in group_by_length([len(ids) for ids, _ in sequences], batch_tokens):
        # Left before each yield, so that the caller's own code does not run in these modes.
        with torch.no_grad(), autocast_to(autocast, device):
            vectors = tower(pad([sequences[i] for i in group], pad_id, device)).float()
        yield group, vectors


def autocast_to(kind: Literal["bfloat16", "none"], device: torch.device) -> Any:  # noqa: ANN401
    """Return the context in which matrix products run in this dtype."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == "bfloat16")


def _finished(scratch: Path, number: int, num_rows: int, dim: int) -> tuple[float, float] | None:
    """Return what `_write_shard` returned, if it came to its end before the build was killed."""
    scan, exact = (scratch / name for name in shard_names(number))
    if not scan.is_file():  # written last
        return None
    try:
        scans = MappedRows.open([scan], [num_rows], dim, torch.bfloat16)
        exacts = MappedRows.open([exact], [num_rows], dim, torch.float32)
    except ArtifactError:
        return None
    everything = torch.arange(num_rows)
    return _norms(scans[everything], exacts[everything])


def _embed_rows(
    tower: Embedder | MeanEmbedder,
    store: PassageStore,
    rows: range,
    *,
    config: IndexConfig,
    progress: Progress | None,
) -> Float[Tensor, "rows dim"]:
    tokenizer = store.tokenizer
    sequences = [
        tokenizer.passage_input(
            store.title_wordpieces(row).tolist(),
            store.wordpieces(row).tolist(),
            min(config.passage_wordpieces, tower.max_length),
        )
        for row in rows
    ]
    exact = torch.empty((len(rows), tower.dim))
    done = rows.start
    for group, vectors in embed_sequences(
        tower,
        sequences,
        pad_id=tokenizer.pad_id,
        batch_tokens=config.batch_tokens,
        autocast=config.autocast,
    ):
        exact[group] = vectors.cpu()
        done += len(group)
        if progress:
            progress(done, len(store))
    return exact


def _write_shard(
    scratch: Path, number: int, exact: Float[Tensor, "rows dim"]
) -> tuple[float, float]:
    """Write one shard, whole or absent; return (largest norm, largest rounding)."""
    scan = exact.to(torch.bfloat16)
    scan_name, exact_name = shard_names(number)
    for name, tensor in ((exact_name, exact), (scan_name, scan)):
        partial = scratch / f".{name}.partial"
        tensor.view(torch.uint8).numpy().tofile(partial)
        sync(partial)
        partial.replace(scratch / name)
    return _norms(scan, exact)


def _norms(
    scan: Shaped[Tensor, "rows dim"], exact: Float[Tensor, "rows dim"]
) -> tuple[float, float]:
    """Return the largest norm of a row of `exact`, and of `exact - scan`."""
    return float(exact.norm(dim=-1).max()), float((exact - scan.float()).norm(dim=-1).max())
