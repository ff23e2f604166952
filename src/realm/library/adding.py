"""What one call of adding does: which documents are new, what is cut and written together."""

from collections.abc import Iterable, Iterator, Sequence

from realm.corpus.documents import check_document, title_of
from realm.library.edition import Edition
from realm.library.indexing import CutDocument, text_hash
from realm.records import Changes, Document, DocumentInfo, Progress, Skipped

GROUP_PASSAGES = 2_048
"""Passages that become durable together: what a kill can cost at most."""
BATCH_CHARACTERS = 1 << 24
"""Characters cut before anything is embedded, so that the number of passages is known."""


class Tally:
    """What a call has done so far."""

    def __init__(self, progress: Progress | None) -> None:
        self.added: list[str] = []
        self.replaced: list[str] = []
        self.unchanged: list[str] = []
        self.num_embedded = 0
        self.skipped = Skipped()
        self._progress = progress
        self._done = self._total = 0

    def expect(self, num_passages: int) -> None:
        """Count passages that are to get their vectors."""
        self._total += num_passages
        self.advance(0)

    def advance(self, num_passages: int) -> None:
        """Count passages that have got them."""
        self._done += num_passages
        if self._progress:
            self._progress(self._done, self._total)

    def changes(self) -> Changes:
        """Return what was done."""
        return Changes(
            added=tuple(self.added),
            replaced=tuple(self.replaced),
            unchanged=tuple(self.unchanged),
            num_embedded=self.num_embedded,
            skipped=self.skipped,
        )


def new_documents(batch: Sequence[Document], edition: Edition, tally: Tally) -> list[Document]:
    """Return the documents that are not there as they are; the last one of each id.

    Raises:
        CorpusError: a document that no library can hold.
    """
    fresh: dict[str, Document] = {}
    for document in batch:
        check_document(document)
        fresh.pop(document.id, None)
        fresh[document.id] = document
    for document in list(fresh.values()):
        info = edition.info(document.id)
        if info is not None and _is_as(info, document):
            tally.unchanged.append(document.id)
            del fresh[document.id]
    return list(fresh.values())


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield documents, as many as are cut before anything is embedded."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def groups(cuts: Sequence[CutDocument]) -> Iterator[list[CutDocument]]:
    """Yield documents that become durable together."""
    group: list[CutDocument] = []
    size = 0
    for cut in cuts:
        group.append(cut)
        size += len(cut.passages)
        if size >= GROUP_PASSAGES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _is_as(info: DocumentInfo, document: Document) -> bool:
    return (
        info.format == document.format
        and info.num_characters == len(document.text)
        and info.title == title_of(document)
        and info.sha256 == text_hash(document.text)
    )
