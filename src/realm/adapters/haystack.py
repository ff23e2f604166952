"""Components for Haystack pipelines: a retriever and an extractive reader; extra: haystack.

Both go through YAML with their pipeline; reading it, Haystack wants to be told that this module is
trusted (`allowed_modules`). Haystack calls a passage a document: `Document` here is Haystack's.
"""

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path, PurePath
from threading import Lock

from haystack import Document, component
from haystack.dataclasses import ExtractedAnswer

from realm import load, records
from realm.errors import ConfigError
from realm.library.face import Realm
from realm.library.results import Answered, PlacedAnswer, ReadPassage
from realm.mini import NAME


@component
class RealmRetriever:
    """Finds the passages of a folder, a library or a run that fit a query."""

    def __init__(
        self,
        docs: str | None = None,
        library: str | None = None,
        model: str = "realm-mini",
        top_k: int = 5,
        device: str = "auto",
    ) -> None:
        """Say what to look in; it is opened at the first query, or by `warm_up`.

        Args:
            docs: folder of .txt, .md and .jsonl files.
            library: folder of a library, instead. Without both, a run has its own passages.
            model: realm-mini, a fine-tuned run, or a packed model.
            top_k: passages to return.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.

        Raises:
            ConfigError: `top_k` is less than 1; both docs and library; or neither, and the model is
                realm-mini, which has no passages.
        """
        _check(top_k)
        _check_sources(docs, library, model)
        self.docs, self.library, self.model = docs, library, model
        self.top_k, self.device = top_k, device
        self._realm: Realm | None = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """Open the model and what it looks in; done once.

        Raises:
            RealmError: see `realm.load`.
        """
        self._opened()

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """Return passages, best first.

        `score` is p(z|x), the share among the passages returned. `meta` says where a passage
        stands: `document` and `line`, `start` and `end` (characters of the document's text), and
        its `title`; `retrieval_score` is the score on the retriever's own scale.

        Args:
            query: in words.
            top_k: passages to return; None: as told before.

        Returns:
            {"documents": passages}.

        Raises:
            RealmError: the query is empty, or longer than the model reads.
        """
        found = self._opened().search(
            query, num_passages=_check(self.top_k if top_k is None else top_k)
        )
        return {"documents": [_as_document(hit) for hit in found.hits]}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """Do the same in a thread, and return it; see `run`.

        Args:
            query: see there.
            top_k: see there.
        """
        return await asyncio.to_thread(self.run, query, top_k)

    def _opened(self) -> Realm:
        with self._lock:
            if self._realm is None:
                self._realm = load(
                    self.model,
                    docs=_path(self.docs),
                    library=_path(self.library),
                    device=self.device,
                )
            return self._realm


@component
class RealmReader:
    """Answers a question with the exact words of the documents that it is given, or not at all.

    It takes documents of any retriever and any length: they are cut into passages, embedded where
    the call before had others, and weighed by p(z|x) among themselves.
    """

    def __init__(
        self,
        model: str = "realm-mini",
        top_k: int = 3,
        num_passages: int | None = None,
        min_probability: float | None = None,
        no_answer: bool = True,  # noqa: FBT001, FBT002 - as in Haystack's readers
        device: str = "auto",
    ) -> None:
        """Say how to read; the model is opened at the first query, or by `warm_up`.

        Args:
            model: realm-mini, a fine-tuned run, or a packed model.
            top_k: answers to return, "no answer" aside.
            num_passages: passages to read; None: as many as the model was trained to.
            min_probability: "no answer" comes first where the best answer is less probable; None:
                the calibration's threshold.
            no_answer: whether "no answer" (an answer whose `data` is None) is returned, too.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.

        Raises:
            ConfigError: `top_k` is less than 1.
        """
        _check(top_k)
        self.model, self.top_k, self.num_passages = model, top_k, num_passages
        self.min_probability, self.no_answer, self.device = min_probability, no_answer, device
        self._realm: Realm | None = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """Open the model; done once.

        Raises:
            RealmError: see `realm.load`.
        """
        with self._lock:
            self._opened()

    @component.output_types(answers=list[ExtractedAnswer])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[ExtractedAnswer]]:
        """Return answers, best first, with the place of their words.

        `score` is the answer's probability. `document_offset` counts characters of the document's
        `content`: `content[start:end] == data`, always. `context` is the passage around, and
        `context_offset` counts its characters. `meta["same_text"]` says where the words stand in
        other documents with the same passage: `document` (its id), `start` and `end`. "No answer"
        has `data` None and as its score what the best answer lacks to 1; it comes first where
        nothing is to be said, else last.

        Args:
            query: a question in words.
            documents: what to read; those without text are left out.
            top_k: answers to return; None: as told before.

        Returns:
            {"answers": answers}.

        Raises:
            RealmError: the question is empty or too long, or a document cannot be read.
        """
        known = {one.id: one for one in documents if one.content and one.content.strip()}
        with self._lock:
            realm = self._opened()
            _hold(realm, list(known.values()))
            answered = realm.answer(
                query,
                num_answers=_check(self.top_k if top_k is None else top_k),
                num_passages=self.num_passages,
                min_probability=self.min_probability,
            )
        answers = [_as_answer(query, one, known[one.place.document]) for one in answered.answers]
        return {"answers": _with_no_answer(query, answered, answers) if self.no_answer else answers}

    @component.output_types(answers=list[ExtractedAnswer])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[ExtractedAnswer]]:
        """Do the same in a thread, and return it; see `run`.

        Args:
            query: see there.
            documents: see there.
            top_k: see there.
        """
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def _opened(self) -> Realm:
        if self._realm is None:
            folder = Path(tempfile.mkdtemp(prefix="realm-reader-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._realm = load(self.model, library=folder / "library", device=self.device)
        return self._realm


def _hold(realm: Realm, documents: Sequence[Document]) -> None:
    """Make a library hold these documents and no others; what it held before is not embedded."""
    wanted = {document.id for document in documents}
    if gone := [info.id for info in realm.documents() if info.id not in wanted]:
        realm.remove_documents(gone)
    realm.add_documents(
        records.Document(
            id=document.id,
            text=document.content or "",
            title=_title_of(document),
        )
        for document in documents
    )


def _title_of(document: Document) -> str:
    """Return its title, or its file's name, as Haystack's converters note it; '': none is known."""
    if title := document.meta.get("title"):
        return str(title)
    return PurePath(str(document.meta.get("file_path") or "")).stem


def _as_document(hit: ReadPassage) -> Document:
    passage = hit.passage
    meta = {
        "document": hit.place.document,
        "line": hit.place.line,
        "title": passage.title,
        "start": passage.start,
        "end": passage.end,
        "retrieval_score": hit.score,
    }
    return Document(id=passage.id, content=passage.text, score=hit.probability, meta=meta)


def _as_answer(query: str, answer: PlacedAnswer, document: Document) -> ExtractedAnswer:
    passage, span = answer.passage, ExtractedAnswer.Span
    return ExtractedAnswer(
        query=query,
        score=answer.probability,
        data=answer.text,
        document=document,
        document_offset=span(answer.start, answer.end),
        context=passage.text,
        context_offset=span(answer.start - passage.start, answer.end - passage.start),
        meta={
            "passage_probability": answer.passage_probability,
            "same_text": [
                {"document": one.place.document, "start": one.start, "end": one.end}
                for one in answer.same_text
            ],
        },
    )


def _with_no_answer(
    query: str, answered: Answered, answers: list[ExtractedAnswer]
) -> list[ExtractedAnswer]:
    """Return the answers with "no answer" at their head where nothing is to be said, else last."""
    best = answers[0].score if answers else 0.0
    nothing = ExtractedAnswer(query=query, score=1 - best, data=None)
    return [nothing, *answers] if answered.text is None else [*answers, nothing]


def _check(top_k: int) -> int:
    """Return it.

    Raises:
        ConfigError: it is less than 1.
    """
    if top_k < 1:
        raise ConfigError(f"found top_k={top_k}, expected 1 or more")
    return top_k


def _check_sources(docs: str | None, library: str | None, model: str) -> None:
    """Refuse a retriever that could only fail, or find nothing, at its first query.

    Raises:
        ConfigError: there is not one thing to look in.
    """
    if docs is not None and library is not None:
        raise ConfigError(
            f"found docs={docs!r} and library={library!r}, expected one of them: docs reads a "
            "folder of files, library holds documents that were added"
        )
    if docs is None and library is None and model == NAME:
        raise ConfigError(
            "found nothing to look in; expected docs=FOLDER (your own files), library=FOLDER, or "
            "model=RUN (a run with its own passages)"
        )


def _path(told: str | None) -> Path | None:
    return Path(told) if told is not None else None
