"""Masked examples on disk: one Arrow file, memory-mapped, rows of a passage side by side."""

import importlib
from collections.abc import Callable, Sequence
from operator import index
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from realm.errors import ConfigError
from realm.records import MaskedExample
from realm.storage import check_files, native_name, not_read, open_folder
from realm.tokenizer import WordpieceTokenizer

KIND = "examples"
EXAMPLES_FILE = "examples.arrow"
TOKENIZER_FILE = "tokenizer.json"
ROWS_PER_BATCH = 4_096


def examples_schema(vocab_size: int) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the columns: every field of MaskedExample except the row."""
    pa = arrow()
    ids = pa.list_(pa.uint16() if vocab_size <= 1 << 16 else pa.uint32())
    return pa.schema(
        {
            "origin": pa.int64(),
            "origin_sha256": pa.binary(32),
            "article_id": pa.string(),
            "sentence": pa.string(),
            "span_start": pa.int32(),
            "span_end": pa.int32(),
            "label": pa.string(),
            "original_ids": ids,
            "query_ids": ids,
            "positions": pa.list_(pa.uint16()),
            "target_ids": ids,
        }
    )


def to_batch(examples: Sequence[MaskedExample], vocab_size: int) -> Any:  # noqa: ANN401
    """Return examples as columns."""
    pa = arrow()
    columns = {
        name: [getattr(example, name) for example in examples]
        for name in examples_schema(vocab_size).names
    }
    columns["origin_sha256"] = [bytes.fromhex(text) for text in columns["origin_sha256"]]
    return pa.record_batch(columns, schema=examples_schema(vocab_size))


class ExampleWriter:
    """Writes batches of examples one after another, so many rows together as reading likes."""

    def __init__(self, folder: Path, tokenizer: WordpieceTokenizer) -> None:
        tokenizer.save(folder / TOKENIZER_FILE)
        schema = examples_schema(tokenizer.vocab_size)
        self._waiting: Any = schema.empty_table()
        self._file: Any = arrow().OSFile(native_name(folder / EXAMPLES_FILE), "wb")
        self._writer: Any = arrow().ipc.new_file(self._file, schema)
        self.num_rows = 0

    def add(self, batch: Any) -> None:  # noqa: ANN401 - pyarrow has no types
        """Append what `to_batch` returned; the first row must be the next one."""
        pa = arrow()
        self.num_rows += batch.num_rows
        self._waiting = pa.concat_tables([self._waiting, pa.Table.from_batches([batch])])
        while self._waiting.num_rows >= ROWS_PER_BATCH:
            self._write(self._waiting.slice(0, ROWS_PER_BATCH))
            self._waiting = self._waiting.slice(ROWS_PER_BATCH)

    def __enter__(self) -> "ExampleWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._waiting.num_rows:
                self._write(self._waiting)
        finally:
            self._writer.close()
            self._file.close()

    def _write(self, rows: Any) -> None:  # noqa: ANN401 - pyarrow has no types
        for batch in rows.combine_chunks().to_batches():
            self._writer.write_batch(batch)


class ExampleStore:
    """A published folder of masked examples; rows are read from the memory map."""

    def __init__(
        self, folder: Path, manifest: dict[str, Any], tokenizer: WordpieceTokenizer
    ) -> None:
        self.folder, self.manifest, self.tokenizer = folder, manifest, tokenizer
        self.fingerprint: str = manifest["fingerprint"]
        self.passages_fingerprint: str = manifest["inputs"]["passages"]
        """Of the passage store X that was masked."""
        self.scheme: str = manifest["settings"]["scheme"]
        self._batches = _map_batches(folder / EXAMPLES_FILE)
        self._views: dict[int, _View] = {}
        sizes = [batch.num_rows for batch in self._batches]
        self._first_rows = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.origin = np.concatenate(
            [np.empty(0, np.int64), *(batch.column("origin").to_numpy() for batch in self._batches)]
        )
        """Row of the passage of X that each example came from."""
        starts = np.flatnonzero(np.diff(self.origin, prepend=-1))
        self._groups = np.append(starts, len(self.origin))

    @classmethod
    def open(cls, folder: Path) -> "ExampleStore":
        """Open a published examples folder.

        Raises:
            ArtifactError: it is missing, unfinished, damaged or of another kind.
        """
        manifest = open_folder(folder, KIND)
        check_files(folder, manifest, remedy="make it again with `realm mask` and --rebuild")
        return cls._map(folder, manifest)

    @classmethod
    def _reopen(cls, folder: Path) -> "ExampleStore":
        """Open what another process has checked."""
        return cls._map(folder, open_folder(folder, KIND))

    @classmethod
    def _map(cls, folder: Path, manifest: dict[str, Any]) -> "ExampleStore":
        return cls(folder, manifest, WordpieceTokenizer.load(folder / TOKENIZER_FILE))

    def check_tokenizer(self, tokenizer: WordpieceTokenizer, passages: Path) -> None:
        """Refuse passages that were cut with another tokenizer.

        Raises:
            ConfigError: they were.
        """
        if self.tokenizer.fingerprint != tokenizer.fingerprint:
            raise ConfigError(
                f"{self.folder} was cut with another tokenizer than the passages in "
                f"{passages}; split both corpora with the same --tokenizer"
            )

    @property
    def num_groups(self) -> int:
        """How many passages have examples."""
        return len(self._groups) - 1

    def __reduce__(self) -> tuple[Callable[[Path], "ExampleStore"], tuple[Path]]:
        return ExampleStore._reopen, (self.folder,)  # a worker process maps the file itself

    def group(self, number: SupportsIndex) -> range:
        """Return the rows of one passage's examples: training draws one of them per pass."""
        number = index(number)
        if not 0 <= number < self.num_groups:
            raise IndexError(f"group {number} of {self.num_groups}")
        return range(int(self._groups[number]), int(self._groups[number + 1]))

    def group_article(self, number: SupportsIndex) -> str:
        """Return the article id of one passage's examples."""
        view, row = self._locate(self.group(number).start)
        return view.article_id.read(row)

    def sentence(self, row: SupportsIndex) -> str:
        """Return the sentence of one example as written, without reading the rest of it."""
        view, inner = self._locate(index(row))
        return view.sentence.read(inner)

    def sentences(self) -> list[list[int]]:
        """Return, for each masked sentence, the rows of its examples: one for each of its spans.

        A sentence that stands twice in a passage counts once.
        """
        found: list[list[int]] = []
        for number in range(self.num_groups):
            rows: dict[str, list[int]] = {}
            for row in self.group(number):
                rows.setdefault(self.sentence(row), []).append(row)
            found += rows.values()
        return found

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, row: SupportsIndex) -> MaskedExample:
        row = index(row)
        view, inner = self._locate(row)
        return MaskedExample(
            row=row,
            origin=int(self.origin[row]),
            origin_sha256=view.origin_sha256[32 * inner : 32 * inner + 32].tobytes().hex(),
            article_id=view.article_id.read(inner),
            sentence=view.sentence.read(inner),
            span_start=int(view.span_start[inner]),
            span_end=int(view.span_end[inner]),
            label=view.label.read(inner),
            original_ids=view.original_ids.read(inner),
            query_ids=view.query_ids.read(inner),
            positions=view.positions.read(inner),
            target_ids=view.target_ids.read(inner),
        )

    def _locate(self, row: int) -> tuple["_View", int]:
        """Return the batch that holds a row, and the row's place in it."""
        if not 0 <= row < len(self.origin):
            raise IndexError(f"example {row} of {len(self.origin)}")
        number = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        view = self._views.get(number)
        if view is None:
            view = self._views[number] = _View.of(self._batches[number])
        return view, row - int(self._first_rows[number])


def arrow() -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return pyarrow, imported at first use: it takes longer than all the rest."""
    return importlib.import_module("pyarrow")


class _Strings(NamedTuple):
    offsets: np.ndarray
    data: np.ndarray

    def read(self, row: int) -> str:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    @classmethod
    def of(cls, column: Any) -> "_Strings":  # noqa: ANN401 - pyarrow has no types
        _, offsets, data = column.buffers()
        return cls(
            np.frombuffer(offsets, np.int32),
            np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8),
        )


class _Lists(NamedTuple):
    offsets: np.ndarray
    values: np.ndarray

    def read(self, row: int) -> tuple[int, ...]:
        return tuple(self.values[self.offsets[row] : self.offsets[row + 1]].tolist())

    @classmethod
    def of(cls, column: Any) -> "_Lists":  # noqa: ANN401 - pyarrow has no types
        return cls(column.offsets.to_numpy(), column.values.to_numpy())


class _View(NamedTuple):
    """One batch of rows as numpy views on the memory map: no copies, no Arrow scalars."""

    origin_sha256: np.ndarray
    article_id: _Strings
    sentence: _Strings
    label: _Strings
    span_start: np.ndarray
    span_end: np.ndarray
    original_ids: _Lists
    query_ids: _Lists
    positions: _Lists
    target_ids: _Lists

    @classmethod
    def of(cls, batch: Any) -> "_View":  # noqa: ANN401 - pyarrow has no types
        return cls(
            origin_sha256=np.frombuffer(batch.column("origin_sha256").buffers()[1], np.uint8),
            article_id=_Strings.of(batch.column("article_id")),
            sentence=_Strings.of(batch.column("sentence")),
            label=_Strings.of(batch.column("label")),
            span_start=batch.column("span_start").to_numpy(),
            span_end=batch.column("span_end").to_numpy(),
            original_ids=_Lists.of(batch.column("original_ids")),
            query_ids=_Lists.of(batch.column("query_ids")),
            positions=_Lists.of(batch.column("positions")),
            target_ids=_Lists.of(batch.column("target_ids")),
        )


def _map_batches(path: Path) -> Sequence[Any]:
    pa = arrow()
    try:
        reader = pa.ipc.open_file(pa.memory_map(native_name(path), "r"))
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (OSError, pa.ArrowInvalid) as error:
        raise not_read(path, error, remedy="make its folder again") from None
