"""Class Realm: a model and documents in one object, for scripts, notebooks and the server."""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from realm.answering import Answerer
from realm.errors import AnsweringError, NoEncoderError, ReadOnlyError
from realm.explaining import Explainer, Explanation
from realm.fine_tuned import AnsweringLengths, FineTuned
from realm.library.edition import Edition
from realm.library.indexing import Indexer
from realm.library.library import Library, Waiting
from realm.library.results import Answered, SearchResult, found
from realm.library.view import View
from realm.library.watching import FolderWatcher, OnChange, OnError
from realm.readable import counted
from realm.records import Changes, Document, DocumentInfo, Progress, Skipped

ExplainerOver = Callable[[Answerer], Explainer]
"""Returns what fills blanks from the passages of an answerer."""


class Realm:
    """Answers from documents that may change meanwhile; made by `realm.load`.

    Threads may share it: an answer sees the documents as they were when it began, and whatever
    begins after a change has returned sees the change.
    """

    def __init__(
        self,
        tuned: FineTuned,
        *,
        library: Library | None = None,
        answerer: Answerer | None = None,
        explainer: ExplainerOver | None = None,
        skipped: Skipped | None = None,
        finally_do: ExitStack | None = None,
    ) -> None:
        """Put a model and passages together.

        Args:
            tuned: the model.
            library: documents that may change.
            answerer: or passages that do not: those of a run.
            explainer: what fills blanks, where there is an encoder.
            skipped: what was left out of the files that the documents were read from.
            finally_do: closed with this.
        """
        self._tuned = tuned
        self._library = library
        self._indexer = Indexer(tuned) if library is not None else None
        self._explainer_over = explainer
        self._explainer: tuple[View, Explainer] | None = None
        self.skipped = skipped or Skipped()
        """What was left out of `docs` when they were read, by reason."""
        self._fixed = None if answerer is None else View(answerer, None)
        self._view: View | None = self._fixed
        self._making = threading.Lock()
        self._closing = finally_do or ExitStack()
        self.view()

    def __enter__(self) -> "Realm":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching folders; remove a temporary library."""
        self._closing.close()

    def __repr__(self) -> str:
        told = self.status()
        what = where = ""
        if self._library is not None:
            what = f"{counted(told['num_documents'], 'document')}, "
            where = f" in {self._library.folder}"
        return f"Realm({self.model_name}: {what}{counted(told['num_passages'], 'passage')}{where})"

    @property
    def model_name(self) -> str:
        """The name of the model's folder."""
        return self._tuned.name

    @property
    def lengths(self) -> AnsweringLengths:
        """Longest question, and passages read, unless the caller says otherwise."""
        return self._tuned.lengths

    @property
    def library_folder(self) -> Path | None:
        """Where the documents are kept; None: a run's own passages."""
        return None if self._library is None else self._library.folder

    @property
    def can_explain(self) -> bool:
        """Whether there is an encoder that fills blanks."""
        return self._explainer_over is not None

    def view(self) -> View:
        """Return the model over the passages as they are now.

        Raises:
            ArtifactError: the library is gone or damaged.
            ConfigError: somebody has made the library over for another model.
        """
        if self._library is None:
            assert self._view is not None  # noqa: S101 - one of the two is there
            return self._view
        edition = self._library.current()
        view = self._view
        if view is None or view.edition is not edition:
            with self._making:
                edition = self._library.current()
                view = self._view
                if view is None or view.edition is not edition:
                    view = self._view = View(self._over(edition), edition)
                    self._explainer = None  # it holds the documents as they were
        return view

    def _over(self, edition: Edition) -> Answerer:
        assert self._library is not None and self._indexer is not None  # noqa: S101, PT018
        self._library.check(self._indexer)
        return Answerer.over(
            self._tuned,
            edition.passages(self._tuned.model.tokenizer),
            edition.snapshot,
            lambda: edition.words,
        )

    @overload
    def answer(  # pyright: ignore[reportOverlappingOverload] - a string is a sequence of strings
        self,
        questions: str,
        *,
        num_answers: int = 3,
        num_passages: int | None = None,
        min_probability: float | None = None,
    ) -> Answered: ...

    @overload
    def answer(
        self,
        questions: Sequence[str],
        *,
        num_answers: int = 3,
        num_passages: int | None = None,
        min_probability: float | None = None,
    ) -> list[Answered]: ...

    def answer(
        self,
        questions: str | Sequence[str],
        *,
        num_answers: int = 3,
        num_passages: int | None = None,
        min_probability: float | None = None,
    ) -> Answered | list[Answered]:
        """Answer a question, or many, which is faster together.

        Args:
            questions: in words.
            num_answers: distinct strings to return.
            num_passages: passages to read; None: as many as the model was trained with.
            min_probability: below it "no answer" is said; None: the calibration's threshold.

        Returns:
            One result for a string, a list for a sequence.

        Raises:
            AnsweringError: an empty question, or one longer than the model reads.
            ConfigError: no passages are to be read, or no answers to be returned.
            ArtifactError: the library is gone or damaged.
        """
        view = self.view()
        records = view.answerer.answer(
            [questions] if isinstance(questions, str) else list(questions),
            num_answers=num_answers,
            num_passages=num_passages,
            min_probability=min_probability,
        )
        answered = [view.answered(record) for record in records]
        return answered[0] if isinstance(questions, str) else answered

    def search(self, query: str, *, num_passages: int = 5) -> SearchResult:
        """Return the passages that fit a question best.

        Raises:
            AnsweringError: an empty query, or one longer than the model reads.
            ConfigError: no passages are to be found.
            ArtifactError: the library is gone or damaged.
        """
        view = self.view()
        rows, scores, probabilities = view.answerer.search(query, num_passages)
        passages = [view.answerer.store[row] for row in rows]
        places = [view.place(passage, passage.start) for passage in passages]
        return SearchResult(query=query, hits=found(passages, probabilities, places, scores))

    def explain(
        self, sentence: str, *, answer: str | None = None, num_candidates: int = 8
    ) -> Explanation:
        """Fill the blanks of a sentence, and say which passages helped (Table 3).

        Args:
            sentence: with one or more literal [MASK].
            answer: what stands in the blank; None: the model's own prediction.
            num_candidates: passages read, the null passage included; fewer where there are fewer.

        Returns:
            The predictions without and with retrieval, and what each candidate does for them.

        Raises:
            NoEncoderError: there is no encoder.
            AnsweringError: there is no passage yet.
            MaskingError: no [MASK], or a sentence that is too long.
        """
        if self._explainer_over is None:
            raise NoEncoderError(
                f"{self.model_name} has no encoder to fill a [MASK] with; load it with a run that "
                "has one: `--encoder RUN`, in Python encoder=RUN, from `realm pretrain`"
            )
        view = self.view()
        if not len(view.answerer.store):
            raise AnsweringError("found no passage to explain with; add documents first")
        explainer = self._explainer_of(view)
        return explainer.explain(
            sentence,
            answers=() if answer is None else (answer,),
            num_candidates=max(2, min(num_candidates, len(view.answerer.store) + 1)),
        )

    def _explainer_of(self, view: View) -> Explainer:
        known = self._explainer
        if known is None or known[0] is not view:
            assert self._explainer_over is not None  # noqa: S101
            known = self._explainer = view, self._explainer_over(view.answerer)
        return known[1]

    def add_documents(
        self, documents: Document | Iterable[Document], *, progress: Progress | None = None
    ) -> Changes:
        """Add documents, or replace those of the same ids; on disk when this returns.

        Only passages that the library does not know are embedded.

        Args:
            documents: one or many.
            progress: called with (passages that have their vectors, passages).

        Raises:
            CorpusError: a document that no library can hold.
            ReadOnlyError: a run's own passages are asked.
            ArtifactError: the library cannot be written.
        """
        library, indexer = self._writable()
        return library.add(documents, indexer, progress=progress)

    def remove_documents(
        self, ids: str | Iterable[str], *, waiting: Waiting = lambda: None
    ) -> Changes:
        """Remove documents, all or none; no answer that begins afterwards comes from them.

        Args:
            ids: of the documents.
            waiting: called again and again while another writer is waited for; what it raises
                ends the wait.

        Returns:
            The ids removed.

        Raises:
            UnknownDocumentError: an id that no document has; nothing is removed.
            ReadOnlyError: a run's own passages are asked.
            ArtifactError: the library cannot be written.
        """
        return self._writable()[0].remove(ids, waiting=waiting)

    def documents(self) -> list[DocumentInfo]:
        """Return what there is, by id; nothing where a run's own passages are asked."""
        return [] if self._library is None else self._library.current().infos()

    def document(self, id: str) -> Document:  # noqa: A002 - as the record names it
        """Return a document with its whole text.

        Raises:
            UnknownDocumentError: there is none of this id.
            ReadOnlyError: a run's own passages are asked.
        """
        return self._writable()[0].current().document(id)

    def watch(
        self,
        folder: str | Path,
        *,
        every_seconds: float = 1.0,
        on_change: OnChange | None = None,
        on_error: OnError | None = None,
    ) -> FolderWatcher:
        """Keep the documents as the files of a folder are, until the watcher or this is closed.

        The folder is read once before this returns. Other documents stay as they are.

        Args:
            folder: with .txt, .md and .jsonl files at any depth.
            every_seconds: how often to look.
            on_change: called with each change, in the watcher's thread.
            on_error: called there with what could not be done, once in a row of the same; it is
                tried again at every look.

        Raises:
            CorpusError: there is no such folder.
            ReadOnlyError: a run's own passages are asked.
        """
        library, indexer = self._writable()
        watcher = FolderWatcher(
            library,
            indexer,
            Path(folder),
            every_seconds=every_seconds,
            on_change=on_change,
            on_error=on_error,
            keeping=self,
        )
        self._closing.callback(watcher.close)
        watcher.start()
        return watcher

    def status(self) -> dict[str, Any]:
        """Return model, fingerprints, counts, and how old the index is, in steps."""
        view = self.view()
        return {
            "model": self.model_name,
            "model_fingerprint": self._tuned.fingerprint,
            "corpus_fingerprint": view.answerer.corpus_fingerprint,
            "num_documents": 0 if view.edition is None else len(view.edition),
            "num_passages": len(view.answerer.store),
            "snapshot": view.snapshot_step,
            "staleness": 0,  # a model that does not learn leaves its index as fresh as it was
            "version": 0 if view.edition is None else view.edition.head.version,
            "library": None if self._library is None else str(self._library.folder),
            "calibrated": view.answerer.why_uncalibrated is None,
            "retriever": view.answerer.retriever.name,
            "can_explain": self.can_explain,
        }

    def _writable(self) -> tuple[Library, Indexer]:
        if self._library is None or self._indexer is None:
            raise ReadOnlyError(
                f"{self.model_name} answers from the passages that it was trained with, which do "
                "not change; expected documents: load it with docs=FOLDER or library=FOLDER"
            )
        return self._library, self._indexer
