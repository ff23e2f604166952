"""The trainer's live copy of the index: a snapshot, and rows embedded since (section 3.3).

The copy is in memory, page by page, only where it differs from the files: the snapshot's maps are
private. What every search scans may lie on a GPU instead; the few rows that are scored again in 32
bits come from main memory. Every row knows the training step of its parameters.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.device import CPU
from realm.index.exact import search_exactly
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot
from realm.index.writing import largest_norms


class LiveIndex:
    """Searches like a snapshot; rows may be replaced between two searches."""

    def __init__(self, snapshot: Snapshot, device: torch.device = CPU) -> None:
        """Take a snapshot over.

        Args:
            snapshot: opened for this index alone; its maps change where rows are replaced.
            device: where the 16-bit vectors are scanned (256 bytes a passage of 128 dimensions).
        """
        self._snapshot = snapshot
        self._device = device
        self._scan = snapshot.scan.to(device)
        self._base_steps = _steps_of(snapshot)
        self.row_steps = self._base_steps.clone()
        """Training step of each row's parameters."""
        self.max_norm, self.max_rounding = snapshot.max_norm, snapshot.max_rounding

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot below."""
        return self._snapshot

    @property
    def scan(self) -> MappedRows:
        """[passages, dim] bfloat16, of this moment."""
        return self._scan

    @property
    def exact(self) -> MappedRows:
        """[passages, dim] float32, of this moment."""
        return self._snapshot.exact

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (scores, rows) of each query, equal to a float32 search.

        Raises:
            ValueError: k is not between 1 and the number of passages.
        """
        return search_exactly(
            queries.detach().float(),
            self._scan,
            self._snapshot.exact,
            k,
            max_norm=self.max_norm,
            max_rounding=self.max_rounding,
        )

    def vectors(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Return a copy of some rows, in 32 bits."""
        return self._snapshot.exact[rows]

    def write(
        self,
        rows: Int[Tensor, " rows"],
        vectors: Float[Tensor, "rows dim"],
        steps: Int[Tensor, " rows"] | int,
    ) -> int:
        """Replace rows that were embedded with older parameters; return how many.

        Args:
            rows: distinct, or with equal vectors.
            vectors: their embeddings.
            steps: training step of the parameters that made them.
        """
        given = torch.as_tensor(steps, dtype=torch.int32).expand(len(rows))
        is_newer = given > self.row_steps[rows]
        rows, given, exact = rows[is_newer], given[is_newer], vectors[is_newer].detach().float()
        if not len(rows):
            return 0
        scan = exact.to(torch.bfloat16)
        self._snapshot.exact.put(rows, exact)
        self._scan.put(rows, scan)
        self.row_steps[rows] = given
        norm, rounding = largest_norms(scan, exact)
        self.max_norm = max(self.max_norm, norm)
        self.max_rounding = max(self.max_rounding, rounding)
        return len(rows)

    def swap(self, snapshot: Snapshot) -> None:
        """Go over to another snapshot; rows that are newer here than there are kept."""
        rows, vectors, steps = self.replaced()
        self.__init__(snapshot, self._device)
        self.write(rows, vectors, steps)

    def replaced(
        self,
    ) -> tuple[Int[Tensor, " rows"], Float[Tensor, "rows dim"], Int[Tensor, " rows"]]:
        """Return (rows, vectors, steps) of what differs from the snapshot."""
        rows = (self.row_steps > self._base_steps).nonzero()[:, 0]
        return rows, self.vectors(rows), self.row_steps[rows]

    def oldest_step(self) -> int:
        """Return the training step of the parameters of the oldest row."""
        return int(self.row_steps.min())

    def mean_staleness(self, step: int, rows: Int[Tensor, " rows"] | None = None) -> float:
        """Return the mean age of all rows, or of some, in training steps."""
        steps = self.row_steps if rows is None else self.row_steps[rows]
        return step - float(steps.double().mean()) if len(steps) else 0.0


def _steps_of(snapshot: Snapshot) -> Int[Tensor, " passages"]:
    if snapshot.row_steps is not None:
        return snapshot.row_steps
    return torch.full((len(snapshot),), snapshot.step, dtype=torch.int32)
