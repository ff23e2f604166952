"""Embed every passage with Embed_doc and publish the snapshot."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.index.snapshot import Snapshot, shard_names
from realm.model.embedder import Embedder, MeanEmbedder
from realm.model.inputs import TokenSequence, group_by_length, pad
from realm.records import Progress
from realm.storage import Request, is_done, publish, write_json


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
    starts = range(0, len(store), config.shard_rows)
    with publish(out, request, resume=True) as scratch:
        norms = [
            _write_shard(tower, store, scratch, number, config=config, progress=progress)
            for number, _ in enumerate(starts)
        ]
        content = {
            "step": version.step,
            "model_hash": version.model_hash,
            "dim": tower.dim,
            "num_passages": len(store),
            "shard_rows": [min(config.shard_rows, len(store) - start) for start in starts],
            "max_norm": max(norm for norm, _ in norms),
            "max_rounding": max(rounding for _, rounding in norms),
        }
        write_json(scratch / "extra.json", content)
        for number, _ in enumerate(starts):
            (scratch / f"norms-{number:05d}.json").unlink()
    return Snapshot.open(out)


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
    groups = group_by_length([len(ids) for ids, _ in sequences], batch_tokens)
    with torch.inference_mode(), autocast_to(autocast, device):
        for group in groups:
            yield group, tower(pad([sequences[i] for i in group], pad_id, device)).float()


def autocast_to(kind: Literal["bfloat16", "none"], device: torch.device) -> Any:  # noqa: ANN401
    """Return the context in which matrix products run in this dtype."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == "bfloat16")


def _write_shard(
    tower: Embedder | MeanEmbedder,
    store: PassageStore,
    scratch: Path,
    number: int,
    *,
    config: IndexConfig,
    progress: Progress | None,
) -> tuple[float, float]:
    """Embed one shard unless it is finished; return (largest norm, largest rounding)."""
    norms_file = scratch / f"norms-{number:05d}.json"
    first = number * config.shard_rows
    rows = range(first, min(first + config.shard_rows, len(store)))
    if norms_file.is_file():
        kept: list[float] = np.loadtxt(norms_file, delimiter=",").tolist()
        return kept[0], kept[1]
    tokenizer = store.tokenizer
    sequences = [
        tokenizer.passage_input(
            store.title_wordpieces(row).tolist(),
            store.wordpieces(row).tolist(),
            config.passage_wordpieces,
        )
        for row in rows
    ]
    exact = torch.empty((len(rows), tower.dim))
    done = first
    tower.eval()
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
    scan = exact.to(torch.bfloat16)
    for name, tensor in zip(shard_names(number), (scan, exact), strict=True):
        tensor.view(torch.uint8).numpy().tofile(scratch / name)
    norms = float(exact.norm(dim=-1).max()), float((exact - scan.float()).norm(dim=-1).max())
    np.savetxt(norms_file, [norms], delimiter=",")
    return norms
