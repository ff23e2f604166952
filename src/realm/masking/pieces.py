"""Masked examples on disk piece by piece: a killed run goes on after its last whole piece.

What is published is one file (`store`). The pieces lie beside it until all of them are joined.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realm.errors import ArtifactError, DamagedError
from realm.masking.store import arrow, examples_schema
from realm.records import Skipped
from realm.storage import not_read, passing_over_damage

PIECES = "pieces"
COUNTS = b"realm"
"""Key of a piece's counts in the schema's metadata."""
_REMEDY = "run the same `realm mask` again, it is made again"


@dataclass(slots=True)
class Masked:
    """What came out of some passages."""

    num_passages: int = 0
    num_masked: int = 0
    """Passages with an example."""
    batches: list[Any] = field(default_factory=list[Any])
    """The examples as columns, see `to_batch`."""
    labels: Counter[str] = field(default_factory=Counter[str])
    """Examples by their label."""
    skipped: Skipped = field(default_factory=Skipped)

    def join(self, other: "Masked") -> None:
        """Add what came out of the passages after these."""
        self.num_passages += other.num_passages
        self.num_masked += other.num_masked
        self.batches += other.batches
        self.labels.update(other.labels)
        self.skipped.join(other.skipped)


class Pieces:
    """The pieces of one folder of examples."""

    def __init__(self, folder: Path, *, vocab_size: int) -> None:
        self.folder = folder / PIECES
        self._columns: Any = examples_schema(vocab_size)

    def has(self, rows: range) -> bool:
        """Return whether a killed run wrote the piece of these passages; a damaged one is removed.

        Raises:
            UnreadableError: it cannot be read, and may be whole.
        """
        if not self._path(rows).exists():
            return False
        with passing_over_damage():
            self.read(rows)
            return True
        self._path(rows).unlink()
        return False

    def write(self, rows: range, parts: Iterable[Masked]) -> None:
        """Write what came out of these passages, whole or not at all, also after a power cut."""
        piece = Masked()
        for part in parts:
            piece.join(part)
        counts = {
            "num_passages": piece.num_passages,
            "num_masked": piece.num_masked,
            "labels": piece.labels,
            "skipped": {"counts": piece.skipped.counts, "examples": piece.skipped.examples},
        }
        columns = self._columns.with_metadata({COUNTS: json.dumps(counts).encode()})
        path = self._path(rows)
        partial = path.with_name(f".{path.name}.partial")
        self.folder.mkdir(exist_ok=True)
        with partial.open("wb") as stream:
            with arrow().ipc.new_file(stream, columns) as writer:
                for batch in piece.batches:
                    writer.write_batch(batch)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)

    def read(self, rows: range) -> Masked:
        """Return what came out of these passages, the examples memory-mapped.

        Raises:
            ArtifactError: it is missing or damaged.
            UnreadableError: it cannot be read.
        """
        path, pa = self._path(rows), arrow()
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
            counts = json.loads((reader.schema.metadata or {})[COUNTS])
            if not reader.schema.equals(self._columns):
                raise DamagedError(f"{path} has other columns than a piece; {_REMEDY}")
            return Masked(
                num_passages=int(counts["num_passages"]),
                num_masked=int(counts["num_masked"]),
                batches=[reader.get_batch(i) for i in range(reader.num_record_batches)],
                labels=Counter(counts["labels"]),
                skipped=Skipped(**counts["skipped"]),
            )
        except ArtifactError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise not_read(path, error, remedy=_REMEDY) from None

    def remove(self) -> None:
        """Remove all of them, once they are joined."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _path(self, rows: range) -> Path:
        return self.folder / f"passages-{rows.start}-{rows.stop}.arrow"
