"""A library: a folder that holds documents durably, and shows every change at once.

LIBRARY/
    head.json               names the segments and what was removed from them; replaced in one step
    segments/segment-N/     some documents each, see `segment.py`

A change writes a segment with what is new, fsyncs it, and then replaces head.json: until that
moment the library is what it was, from then on what it is to be, whenever the power goes. What a
killed writer left that no head names is removed by the next one. Small segments are joined as they
add up, so that there are never many.
"""

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from realm.corpus.documents import only_documents
from realm.errors import ArtifactError, ConfigError
from realm.library.adding import Tally, batches, groups, new_documents
from realm.library.compaction import segments_to_join
from realm.library.edition import Edition
from realm.library.head import HEAD, Head, SegmentState, read_head, write_head
from realm.library.indexing import CutDocument, Indexer
from realm.library.segment import Segment, SegmentContent, join_segments, write_segment
from realm.records import Changes, Document, Progress
from realm.storage import locked, sync

SEGMENTS = "segments"
RANDOM_DIGITS = 9
"""Of a segment's name, behind its version."""
PATIENCE_SECONDS = 600.0
"""How long to wait for another writer; its lock ends with it."""
LOOK_SECONDS = 0.1
"""How often to look whether another thread still writes."""
SETTLED_NANOSECONDS = 100_000_000
"""Age from which on a head is known by its time and size."""
NUM_TRIES = 20
"""How often a reader looks again when a writer has just removed what it was to open."""
Waiting = Callable[[], object]
"""Called while another writer is waited for."""


class Library:
    """Documents in a folder; any number of readers, one writer at a time.

    Every process that has the library open sees a change at its next call of `current`. Adding and
    removing are durable when they return. Threads may share a library.
    """

    def __init__(self, folder: Path) -> None:
        """Open the library in `folder`.

        Raises:
            ArtifactError: there is none, or it is damaged.
        """
        self.folder = folder
        self._writing_thread = threading.Lock()
        self._loading = threading.Lock()
        self._opened: dict[str, Segment] = {}
        self._stamp: tuple[int, ...] = ()
        self._edition = Edition(folder, Head(made_with={"dim": 1}), [])
        self.current()

    @classmethod
    def create(cls, folder: Path, indexer: Indexer) -> "Library":
        """Open the library in `folder`; make an empty one for this model where there is none.

        Raises:
            ArtifactError: something else is there, or it is damaged or cannot be written.
            ConfigError: it was made with another embedder.
        """
        if not (folder / HEAD).is_file():
            _start(folder, Head(made_with=indexer.made_with, model=indexer.model_name))
        library = cls(folder)
        library.check(indexer)
        return library

    def check(self, indexer: Indexer) -> None:
        """Refuse a model that cannot read the library's passages and vectors.

        Raises:
            ConfigError: it was made with another embedder, tokenizer or way to cut.
        """
        head = self.current().head
        if head.made_with != indexer.made_with:
            keys = head.made_with.keys() | indexer.made_with.keys()
            other = sorted(k for k in keys if head.made_with.get(k) != indexer.made_with.get(k))
            raise ConfigError(
                f"{self.folder} was made with the model {head.model!r}, and {indexer.model_name!r} "
                f"differs in {', '.join(other)}; expected the same model, or make it over: "
                f"realm docs reindex {self.folder} --model RUN"
            )

    def current(self) -> Edition:
        """Return the library as it is now, whoever has changed it.

        Raises:
            ArtifactError: it is gone or damaged.
        """
        if _stamp(self.folder) != self._stamp:
            self._refresh()
        return self._edition

    def _refresh(self) -> Edition:
        """Read the head, whether or not it looks as it did, and return the library."""
        with self._loading:
            stamp = _stamp(self.folder)
            if read_head(self.folder) != self._edition.head:
                self._edition = self._read()
            # Two heads may look the same that were written within one tick of the clock.
            is_settled = time.time_ns() - stamp[1] > SETTLED_NANOSECONDS
            self._stamp = stamp if is_settled else ()
            return self._edition

    def add(
        self,
        documents: Document | Iterable[Document],
        indexer: Indexer,
        *,
        progress: Progress | None = None,
    ) -> Changes:
        """Add documents, or replace those of the same ids; durable when it returns.

        Each document is there as it was or as it is to be, never in part. Of many, those before
        the last group are there already when a later one fails.

        Args:
            documents: of one id several times, the last counts.
            indexer: of the model that the library was made with.
            progress: called with (passages that have their vectors, passages), also while another
                writer is waited for; what it raises ends that.

        Raises:
            CorpusError: a document that no library can hold.
            ConfigError: the library was made with another model.
            ArtifactError: it cannot be written.
        """
        self.check(indexer)
        tally = Tally(progress)
        for batch in batches(only_documents(documents)):
            fresh = new_documents(batch, self.current(), tally)
            cuts = indexer.cut(fresh, tally.skipped)
            tally.expect(sum(len(cut.passages) for cut in cuts))
            for group in groups(cuts):
                content, num_embedded = indexer.content(group, self._known, tally.advance)
                tally.num_embedded += num_embedded
                self._commit(group, content, indexer, tally)
        return tally.changes()

    def remove(self, ids: str | Iterable[str], *, waiting: Waiting = lambda: None) -> Changes:
        """Remove documents, all or none; no later answer comes from them.

        Args:
            ids: of the documents.
            waiting: see `alone`.

        Raises:
            UnknownDocumentError: an id that no document has; nothing is removed.
            ArtifactError: the library cannot be written.
        """
        wanted = dict.fromkeys([ids] if isinstance(ids, str) else ids)
        with self._writing(waiting) as edition:
            for document_id in wanted:
                if document_id not in edition.held:
                    raise edition.unknown(document_id)
            if wanted:
                self._publish(_without(edition, wanted))
        return Changes(removed=tuple(wanted))

    def reindex(self, indexer: Indexer, *, progress: Progress | None = None) -> Changes:
        """Cut and embed all documents again for another model; the library is switched at the end.

        Raises:
            ArtifactError: it cannot be written.
        """
        tally = Tally(progress)
        with self._writing() as edition:
            version = edition.head.version
            states: list[SegmentState] = []
            cuts = [
                indexer.cut([edition.document(document_id)], tally.skipped)[0]
                for document_id in edition.held
            ]
            tally.expect(sum(len(cut.passages) for cut in cuts))
            for group in groups(cuts):
                content, num_embedded = indexer.content(group, lambda _: None, tally.advance)
                tally.num_embedded += num_embedded
                version += 1
                states.append(SegmentState(name=self._write(version, content).name))
                tally.replaced += [cut.info.id for cut in group]
            self._publish(
                Head(
                    version=version + 1,
                    made_with=indexer.made_with,
                    model=indexer.model_name,
                    segments=tuple(states),
                )
            )
        return tally.changes()

    def _known(self, passage_hash: bytes) -> Float[Tensor, " dim"] | None:
        for segment in self._edition.segments:
            row = segment.row_of_hash.get(passage_hash)
            if row is not None:
                return segment.exact[row]
        return None

    def _commit(
        self,
        group: Sequence[CutDocument],
        content: SegmentContent,
        indexer: Indexer,
        tally: Tally,
    ) -> None:
        ids = [cut.info.id for cut in group]
        with self._writing(lambda: tally.advance(0)) as edition:
            self.check(indexer)  # nobody has made it over for another model meanwhile
            old = [document_id for document_id in ids if document_id in edition.held]
            name = self._write(edition.head.version + 1, content).name
            head = _without(edition, dict.fromkeys(old))
            self._publish(
                Head(
                    version=head.version,
                    made_with=head.made_with,
                    model=head.model,
                    segments=(*head.segments, SegmentState(name=name)),
                )
            )
        tally.replaced += old
        tally.added += [document_id for document_id in ids if document_id not in set(old)]

    @contextmanager
    def alone(self, waiting: Waiting = lambda: None) -> Generator[None]:
        """Keep other writers out, of this process and of every other.

        Args:
            waiting: called again and again while one is waited for; what it raises ends the wait.

        Raises:
            LockedError: one does not come to its end.
        """
        while not self._writing_thread.acquire(timeout=LOOK_SECONDS):
            waiting()
        try:
            with locked(
                self.folder / "library",
                wait_seconds=PATIENCE_SECONDS,
                make_parent=False,
                waiting=waiting,
            ):
                yield
        finally:
            self._writing_thread.release()

    @contextmanager
    def _writing(self, waiting: Waiting = lambda: None) -> Generator[Edition]:
        """Keep other writers out; yield the library as it is."""
        with self.alone(waiting):
            edition = self._refresh()
            try:
                yield edition
                with suppress(ArtifactError, OSError):  # the change itself is done
                    self._join_small()
            finally:
                with suppress(ArtifactError, OSError):
                    self._sweep()

    def _write(self, version: int, content: SegmentContent) -> Segment:
        """Write a segment that no head names yet, under a name that nobody uses again.

        Who knows a segment by its name has what is in it, also where the head that was to name it
        could not be written, or the library was made anew in the same place.
        """
        name = f"segment-{version:08d}{secrets.randbelow(10**RANDOM_DIGITS):0{RANDOM_DIGITS}d}"
        segment = write_segment(self.folder / SEGMENTS / name, content)
        self._opened[name] = segment
        return segment

    def _publish(self, head: Head) -> None:
        """Make the head what the library is, in this process from now on, on disk for ever."""
        write_head(self.folder, head)
        self._refresh()

    def _join_small(self) -> None:
        """Join small segments where there are many, and rewrite those that are mostly gone."""
        while joined := segments_to_join(self._edition):
            edition = self._edition
            there = [(edition.segments[n], edition.there[n]) for n in joined]
            content = join_segments(there)
            name = self._write(edition.head.version + 1, content).name
            kept = [state for n, state in enumerate(edition.head.segments) if n not in joined]
            self._publish(edition.head.changed([*kept, SegmentState(name=name)]))

    def _sweep(self) -> None:
        """Remove what no head names: replaced segments, and what a writer left that failed.

        Where a head could not be synced, the one before it may be back after a power cut.
        """
        heads = self._edition.head, read_head(self.folder)
        named = {state.name for head in heads for state in head.segments}
        self._opened = {segment.name: segment for segment in self._edition.segments}
        for entry in (self.folder / SEGMENTS).iterdir():
            if entry.is_file():
                entry.unlink()
            elif entry.name not in named:
                shutil.rmtree(entry, ignore_errors=True)  # open elsewhere: the next one does it

    def _read(self) -> Edition:
        for left in range(NUM_TRIES, -1, -1):
            head = read_head(self.folder)
            try:
                segments = [self._segment(state.name) for state in head.segments]
            except (ArtifactError, OSError, RuntimeError):  # or a file went while it was mapped
                if not left or read_head(self.folder).version == head.version:
                    raise
                continue  # a writer has just replaced it
            self._opened = {segment.name: segment for segment in segments}
            return Edition(self.folder, head, segments)
        raise AssertionError  # the last turn returns or raises

    def _segment(self, name: str) -> Segment:
        segment = self._opened.get(name)
        if segment is None:
            segment = self._opened[name] = Segment(self.folder / SEGMENTS / name)
        return segment


def _start(folder: Path, head: Head) -> None:
    """Make an empty library.

    Raises:
        ArtifactError: something else is there, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; expected a library, or a new place for one")
    if folder.is_dir() and any(
        p.name != SEGMENTS and not p.name.startswith(".") for p in folder.iterdir()
    ):
        raise ArtifactError(
            f"{folder} holds other files and no library; expected a library, or a new place for "
            "one. To ask the files in a folder: realm ask --docs"
        )
    place = folder.absolute()
    new = [place, *(above for above in place.parents if not above.exists())]
    try:
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
        with locked(folder / "library", wait_seconds=PATIENCE_SECONDS, make_parent=False):
            if not (folder / HEAD).is_file():
                for made in new:
                    sync(made.parent)
                write_head(folder, head)
    except OSError as error:
        raise ArtifactError(
            f"cannot make {folder}: {error.strerror or error}; mend the permissions or choose "
            "another place"
        ) from error


def _stamp(folder: Path) -> tuple[int, ...]:
    """Return what changes whenever the head does."""
    try:
        found = os.stat(folder / HEAD)  # noqa: PTH116 - at every answer
    except OSError:
        raise ArtifactError(
            f"found no library at {folder} (it has no {HEAD}); expected one made by "
            f"`realm docs add {folder} FILE...`"
        ) from None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _without(edition: Edition, ids: Iterable[str]) -> Head:
    """Return the head after some documents are removed; segments that are left empty go."""
    gone: dict[int, list[int]] = {}
    for document_id in ids:
        segment, number = edition.where(document_id)
        gone.setdefault(segment, []).append(number)
    states: list[SegmentState] = []
    for place, state in enumerate(edition.head.segments):
        removed = tuple(sorted({*state.removed, *gone.get(place, ())}))
        if len(removed) < edition.segments[place].num_documents:
            states.append(SegmentState(name=state.name, removed=removed))
    return edition.head.changed(states)
