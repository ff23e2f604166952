"""Where passages stand in the files of a folder: file and line, beside the passages.

places.arrow has a row for each passage: the file it comes from, the line of its first character,
and whether its lines are the file's (a text) or stand in one line of it (a record of JSON lines).
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from realm.corpus.reading import Found, Place
from realm.errors import ArtifactError
from realm.records import Passage
from realm.storage import native_name, not_read

PLACES = "places.arrow"
COLUMNS = pa.schema(
    [
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("line", pa.int64()),
        ("is_text", pa.bool_()),
    ]
)


@dataclass(slots=True)
class PlaceNotes:
    """Remembers where the lines of articles begin, while they are read."""

    _articles: dict[str, tuple[Place, Shaped[np.ndarray, " ends"] | None]] = field(
        default_factory=dict[str, tuple[Place, Shaped[np.ndarray, " ends"] | None]]
    )
    """Place of the first character and, for a text, where its lines end."""

    def note(self, found: Found, *, is_text: bool) -> None:
        """Remember an article.

        Args:
            found: with the place of its first character.
            is_text: its lines are lines of the file.
        """
        text = found.article.text
        letters = np.frombuffer(text.encode("utf-32-le"), np.uint32) if is_text else None
        ends = None if letters is None else np.flatnonzero(letters == ord("\n")).astype(np.int32)
        self._articles[found.article.id] = found.place, ends

    def write(self, folder: Path, article_ids: Sequence[str], starts: Sequence[int]) -> None:
        """Write the places of passages, row by row.

        Args:
            folder: the passages' folder.
            article_ids: of each passage's article.
            starts: each passage's first character in it.
        """
        files: list[str] = []
        lines: list[int] = []
        are_text: list[bool] = []
        for article_id, start in zip(article_ids, starts, strict=True):
            place, ends = self._articles[article_id]
            files.append(place.file)
            lines.append(place.line + (0 if ends is None else int(np.searchsorted(ends, start))))
            are_text.append(ends is not None)
        table = pa.table(
            [pa.array(files).dictionary_encode(), pa.array(lines), pa.array(are_text)],
            schema=COLUMNS,
        )
        path = native_name(folder / PLACES)
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, COLUMNS) as to:
            to.write_table(table.combine_chunks())


class Places:
    """The places of a folder's passages, memory-mapped."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    @classmethod
    def open(cls, folder: Path, *, num_passages: int) -> "Places":
        """Open what `PlaceNotes` wrote beside passages.

        Raises:
            ArtifactError: missing, damaged, or of other passages.
        """
        path = folder / PLACES
        try:
            reader = pa.ipc.open_file(pa.memory_map(native_name(path)))
            batch = reader.get_batch(0)
        except (OSError, ValueError) as error:
            raise not_read(path, error, remedy="make its folder again") from None
        if not batch.schema.equals(COLUMNS) or batch.num_rows != num_passages:
            raise ArtifactError(f"{path} is not about these passages")
        return cls(batch)

    def of(self, passage: Passage, start: int) -> Place:
        """Return the file and the line, from 1, of a character of the article.

        Args:
            passage: one that holds the character.
            start: the character's place in the article's text.
        """
        file, line, is_text = (self._batch.column(n)[passage.row].as_py() for n in range(3))
        within = passage.text.count("\n", 0, start - passage.start) if is_text else 0
        return Place(file, line + within)
