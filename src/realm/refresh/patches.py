"""Patches: some rows embedded anew, published as they come (rolling refresh).

patches/step-500.1a2b3c4d/
    rows.i64        which rows
    exact.f32       their vectors
    manifest.json   step, hashes of embedder and passages, checksums

Once a snapshot holds rows at least as new, a patch is of no more use.
"""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.errors import ArtifactError
from realm.index.builder import EmbedderVersion
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot
from realm.index.writing import write_matrix
from realm.storage import (
    EXTRA,
    MANIFEST,
    Request,
    check_files,
    children,
    open_folder,
    publish,
    read_json,
    write_json,
)

PATCHES = "patches"
ROWS, EXACT = "rows.i64", "exact.f32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Rows with their new vectors."""

    folder: Path
    step: int
    model_hash: str
    rows: Int[Tensor, " rows"]
    vectors: Float[Tensor, "rows dim"]


def publish_patch(
    run: Path,
    rows: Int[Tensor, " rows"],
    vectors: Float[Tensor, "rows dim"],
    *,
    version: EmbedderVersion,
    passages_fingerprint: str,
) -> Path:
    """Publish some rows.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    folder = run / PATCHES / f"step-{version.step}.{uuid.uuid4().hex[:8]}"
    request = Request(
        kind="patch",
        settings={"step": version.step},
        inputs={"passages": passages_fingerprint, "embedder": version.model_hash},
    )
    with publish(folder, request) as scratch:
        write_matrix(scratch / ROWS, rows.to(torch.int64))
        write_matrix(scratch / EXACT, vectors.float())
        content = {
            "num_rows": len(rows),
            "dim": vectors.shape[1],
        }
        write_json(scratch / EXTRA, content)
    return folder


def list_patches(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of the patches that lie ready, oldest first.

    Raises:
        UnreadableError: their folder cannot be listed.
    """
    return sorted(
        (int(match[1]), folder)
        for folder in children(run / PATCHES)
        if (match := re.fullmatch(r"step-(\d+)\.[0-9a-f]+", folder.name))
        and (folder / MANIFEST).is_file()
    )


def read_patch(folder: Path, passages_fingerprint: str) -> Patch:
    """Read a patch into memory, checksums compared.

    Raises:
        ArtifactError: it is damaged, of other passages, or was removed meanwhile.
    """
    manifest = open_folder(folder, "patch")
    try:
        content: dict[str, Any] = manifest["content"]
        num_rows, dim = int(content["num_rows"]), int(content["dim"])
        check_files(folder, manifest, names=(ROWS, EXACT), remedy="another one will come")
        everything = torch.arange(num_rows)
        rows = MappedRows.open([folder / ROWS], [num_rows], 1, torch.int64)[everything][:, 0]
        vectors = MappedRows.open([folder / EXACT], [num_rows], dim, torch.float32)[everything]
        inputs = manifest["inputs"]
        if inputs["passages"] != passages_fingerprint:
            raise ArtifactError(f"{folder} is of other passages than the run's")
        return Patch(
            folder=folder,
            step=int(manifest["settings"]["step"]),
            model_hash=str(inputs["embedder"]),
            rows=rows,
            vectors=vectors,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged ({error!r})") from None


def versions_of(snapshot: Snapshot) -> dict[int, str]:
    """Return step -> hash of all parameters that made a snapshot's rows.

    Raises:
        ArtifactError: its manifest is missing or damaged.
    """
    try:
        versions = read_json(snapshot.folder / MANIFEST)["content"].get("versions")
        if versions is None:
            return {snapshot.step: snapshot.model_hash}
        return {int(step): str(used) for step, used in versions.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{snapshot.folder / MANIFEST} is damaged ({error!r})") from None
