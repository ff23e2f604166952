"""Masked examples on disk piece by piece: a killed run goes on after its last whole piece.

What is published is one file (`store`). The pieces lie beside it until all of them are joined, each
as a file of examples and a record: what there is in it, and its checksum. The record is written
last.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realm.masking.store import arrow, examples_schema
from realm.records import Skipped
from realm.storage import (
    check_file,
    fingerprint,
    native_name,
    not_read,
    passing_over_damage,
    read_json,
    write_json,
)

PIECES = "pieces"
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
        """Return whether a killed run wrote the piece of these passages, and it is whole.

        Raises:
            UnreadableError: it cannot be read, and may be whole.
        """
        if not self._record(rows).exists():
            return False
        with passing_over_damage():
            checksum = str(read_json(self._record(rows)).get("sha256"))
            check_file(self._examples(rows), checksum, remedy=_REMEDY)
            return True
        return False

    def write(self, rows: range, parts: Iterable[Masked]) -> None:
        """Write what came out of these passages, whole or not at all, also after a power cut."""
        piece = Masked()
        for part in parts:
            piece.join(part)
        self.folder.mkdir(exist_ok=True)
        path = self._examples(rows)
        with path.open("wb") as stream:
            with arrow().ipc.new_file(stream, self._columns) as writer:
                for batch in piece.batches:
                    writer.write_batch(batch)
            stream.flush()
            os.fsync(stream.fileno())
        record = {
            "sha256": fingerprint(path),
            "num_passages": piece.num_passages,
            "num_masked": piece.num_masked,
            "labels": piece.labels,
            "skipped": {"counts": piece.skipped.counts, "examples": piece.skipped.examples},
        }
        write_json(self._record(rows), record)

    def read(self, rows: range) -> Masked:
        """Return what came out of these passages, the examples memory-mapped.

        Args:
            rows: of a piece that was written or that `has` has looked at.

        Raises:
            ArtifactError: it is missing or damaged.
            UnreadableError: it cannot be read.
        """
        path, pa = self._examples(rows), arrow()
        record = read_json(self._record(rows), remedy=_REMEDY)
        try:
            reader = pa.ipc.open_file(pa.memory_map(native_name(path), "r"))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, ValueError) as error:
            raise not_read(path, error, remedy=_REMEDY) from None
        return Masked(
            num_passages=int(record["num_passages"]),
            num_masked=int(record["num_masked"]),
            batches=batches,
            labels=Counter(record["labels"]),
            skipped=Skipped(**record["skipped"]),
        )

    def remove(self) -> None:
        """Remove all of them, once they are joined."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _examples(self, rows: range) -> Path:
        return self.folder / f"passages-{rows.start}-{rows.stop}.arrow"

    def _record(self, rows: range) -> Path:
        return self._examples(rows).with_suffix(".json")
