"""A snapshot: the embeddings of a passage store by one embedder, immutable, memory-mapped.

step-500/
    scan-00000.bf16     rows x dim, bfloat16: what every search reads (256 bytes a passage)
    exact-00000.f32     the same in float32: read for the few rows that a scan cannot tell apart
    steps.i32           only of a rolling refresh: the training step of each row's parameters
    manifest.json       step, hashes of embedder and passages, checksum of each file, written last
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.errors import ArtifactError
from realm.index.exact import search_exactly
from realm.index.mapped import MappedRows
from realm.storage import MANIFEST, check_files, checksums, children, open_folder, remove

STEPS = "steps.i32"
_REMEDY = "remove the folder and build the index again with `realm index`"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """An opened snapshot."""

    folder: Path
    step: int
    """Training step of the embedder's parameters; of its oldest row in a rolling refresh."""
    model_hash: str
    passages_fingerprint: str
    scan: MappedRows
    """[passages, dim] bfloat16."""
    exact: MappedRows
    """[passages, dim] float32."""
    max_norm: float
    max_rounding: float
    row_steps: Int[Tensor, " passages"] | None = None
    """Training step of each row's parameters, where they differ."""

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> "Snapshot":
        """Map a snapshot, its checksums compared.

        Args:
            folder: as published.
            verify: compare them however large it is.

        Raises:
            ArtifactError: missing, unfinished, damaged.
        """
        manifest = open_folder(folder, "index")
        names = checksums(manifest) if verify else None
        check_files(folder, manifest, names=names, remedy=_REMEDY)
        try:
            return cls._map(folder, manifest["inputs"], manifest["content"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{folder / MANIFEST} is damaged ({error!r}); build the index again"
            ) from None

    @classmethod
    def _map(cls, folder: Path, inputs: dict[str, Any], content: dict[str, Any]) -> "Snapshot":
        dim = int(content["dim"])
        num_rows = [int(n) for n in content["shard_rows"]]
        names = [shard_names(number) for number, _ in enumerate(num_rows)]
        scans, exacts = [folder / scan for scan, _ in names], [folder / exact for _, exact in names]
        return cls(
            folder=folder,
            step=int(content["step"]),
            model_hash=str(content["model_hash"]),
            passages_fingerprint=str(inputs["passages"]),
            scan=MappedRows.open(scans, num_rows, dim, torch.bfloat16),
            exact=MappedRows.open(exacts, num_rows, dim, torch.float32),
            max_norm=float(content["max_norm"]),
            max_rounding=float(content["max_rounding"]),
            row_steps=_row_steps(folder, sum(num_rows)),
        )

    def __len__(self) -> int:
        return len(self.scan)

    @property
    def is_of_one_step(self) -> bool:
        """Whether all rows were made with the same parameters, those of `model_hash`."""
        return self.row_steps is None or bool((self.row_steps == self.step).all())

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (scores, rows) of each query, equal to a float32 search."""
        return search_exactly(
            queries.detach().float(),
            self.scan,
            self.exact,
            k,
            max_norm=self.max_norm,
            max_rounding=self.max_rounding,
        )

    def check_passages(self, passages_fingerprint: str) -> None:
        """Refuse a passage store that this snapshot was not built from.

        Raises:
            ArtifactError: another corpus.
        """
        if passages_fingerprint != self.passages_fingerprint:
            raise ArtifactError(
                f"{self.folder} was built from passages {self.passages_fingerprint[:12]}..., but "
                f"the passages given are {passages_fingerprint[:12]}...; pass the folder it was "
                "built from, or build an index for these with `realm index`"
            )


def _row_steps(folder: Path, num_rows: int) -> Int[Tensor, " passages"] | None:
    file = folder / STEPS
    if not file.is_file():
        return None
    return MappedRows.open([file], [num_rows], 1, torch.int32)[torch.arange(num_rows)][:, 0]


def shard_names(number: int) -> tuple[str, str]:
    """Return the file names (scan, exact) of one shard."""
    return f"scan-{number:05d}.bf16", f"exact-{number:05d}.f32"


def snapshot_folder(run: Path, step: int) -> Path:
    """Return where a run keeps its snapshot of this step."""
    return run / "index" / f"step-{step}"


def list_snapshots(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of a run's finished snapshots, oldest first; nothing is verified.

    Raises:
        UnreadableError: the folder that holds them cannot be listed.
    """
    return sorted(
        (int(match[1]), folder)
        for folder in children(run / "index")
        if (match := re.fullmatch(r"step-(\d+)", folder.name)) and (folder / MANIFEST).is_file()
    )


def remove_old_snapshots(run: Path, *, keep: set[int]) -> None:
    """Remove a run's snapshots of all steps but these."""
    for folder in (run / "index").glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", folder.name)
        if match and int(match[1]) not in keep:
            remove(folder)
