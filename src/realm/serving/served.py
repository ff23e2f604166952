"""What a server needs of an opened model: the face of `realm.load`, as a protocol."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from realm.explaining import Explanation
from realm.records import Changes, Document, DocumentInfo, Progress


@runtime_checkable
class Told(Protocol):
    """A result that says itself as JSON."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        ...


@runtime_checkable
class Served(Protocol):
    """Answers while documents change; every method may be called from any thread."""

    def answer(
        self,
        questions: Sequence[str],
        *,
        num_answers: int = 3,
        num_passages: int | None = None,
        min_probability: float | None = None,
    ) -> Sequence[Told]:
        """Return the answers to each question."""
        ...

    def search(self, query: str, *, num_passages: int = 5) -> Told:
        """Return passages for a query."""
        ...

    def explain(
        self, sentence: str, *, answer: str | None = None, num_candidates: int = 8
    ) -> Explanation:
        """Return what each passage does for a blank."""
        ...

    def add_documents(
        self, documents: Document | Iterable[Document], *, progress: Progress | None = None
    ) -> Changes:
        """Add or replace documents, durably."""
        ...

    def remove_documents(
        self, ids: str | Iterable[str], *, waiting: Callable[[], object] = lambda: None
    ) -> Changes:
        """Remove documents, durably."""
        ...

    def documents(self) -> list[DocumentInfo]:
        """Return the listing."""
        ...

    def document(self, id: str) -> Document:  # noqa: A002 - what a document calls it
        """Return one document."""
        ...

    def status(self) -> dict[str, Any]:
        """Return model, snapshot, staleness and counts."""
        ...
