"""A server in a thread of the test, around a model that only counts words."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from realm.errors import (
    AnsweringError,
    NoEncoderError,
    QuestionTooLongError,
    UnknownDocumentError,
)
from realm.records import Changes, Document, DocumentInfo, Progress
from realm.serving.app import build_app
from realm.serving.server import address_of, bind, make_server
from realm.serving.service import Service
from realm.serving.settings import Access, Batching, Limits

MAX_WORDS = 20
Serve = Callable[..., httpx.Client]


class Told(dict[str, Any]):
    """A result that says itself as JSON."""

    def as_dict(self) -> dict[str, Any]:
        return dict(self)


@dataclass
class WordModel:
    """Answers with the longest word that question and a document share; counts what it is asked."""

    kept: dict[str, Document] = field(default_factory=dict[str, Document])
    batches: list[list[str]] = field(default_factory=list[list[str]])
    pause_seconds: float = 0.0
    is_free: threading.Event = field(default_factory=threading.Event)
    """Cleared, every question waits."""

    def __post_init__(self) -> None:
        self.is_free.set()

    def answer(
        self,
        questions: Sequence[str],
        *,
        num_answers: int = 3,
        num_passages: int | None = None,
        min_probability: float | None = None,
    ) -> list[Told]:
        for question in questions:
            if len(question.split()) > MAX_WORDS:
                raise QuestionTooLongError(f"found {len(question.split())} words, expected fewer")
            if "crash" in question:
                raise ZeroDivisionError("a secret of the server")
            if "nothing" in question:
                raise AnsweringError("found no word that the model knows")
        self.batches.append(list(questions))
        assert self.is_free.wait(30)
        time.sleep(self.pause_seconds)
        return [self._answer(q, num_answers, num_passages, min_probability) for q in questions]

    def _answer(
        self, question: str, num_answers: int, num_passages: int | None, least: float | None
    ) -> Told:
        asked = set(re.findall(r"\w+", question.lower()))
        found = sorted(
            (-len(word), word, document)
            for document in self.kept.values()
            for word in re.findall(r"\w+", document.text.lower())
            if word in asked
        )[:num_answers]
        answers = [
            {
                "text": word,
                "probability": 0.5,
                "raw_probability": 0.5,
                "start": document.text.lower().index(word),
                "end": document.text.lower().index(word) + len(word),
                "document": document.id,
                "line": 1,
                "passage": _passage(document) | {"probability": 1.0},
                "same_text": [_mention(other, word) for other in self._copies(document)],
            }
            for _, word, document in found
        ]
        is_said = bool(answers) and (least or 0.0) <= 0.5
        read = list(self.kept.values())[: num_passages or 5]
        return Told(
            question=question,
            answer=answers[0]["text"] if is_said else None,
            probability=0.5 if answers else None,
            min_probability=least or 0.0,
            calibrated=False,
            why_inexact=None,
            answers=answers,
            passages=[
                _passage(document) | {"probability": 1.0, "document": document.id, "line": 1}
                for document in read
            ],
        )

    def _copies(self, document: Document) -> list[Document]:
        others = (other for other in list(self.kept.values()) if other.id != document.id)
        return [other for other in others if other.text == document.text]

    def search(self, query: str, *, num_passages: int = 5) -> Told:
        hits = [
            {
                "score": 1.0,
                "probability": 0.5,
                "document": d.id,
                "line": 1,
                "passage": _passage(d),
            }
            for d in list(self.kept.values())[:num_passages]
        ]
        return Told(query=query, hits=hits)

    def explain(self, sentence: str, **_: object) -> Any:
        raise NoEncoderError(f"no encoder for {sentence}")

    def add_documents(
        self, documents: Document | Iterable[Document], *, progress: Progress | None = None
    ) -> Changes:
        added, replaced, unchanged = list[str](), list[str](), list[str]()
        for document in [documents] if isinstance(documents, Document) else documents:
            before = self.kept.get(document.id)
            kind = added if before is None else unchanged if before == document else replaced
            kind.append(document.id)
            self.kept[document.id] = document
            if progress:
                progress(1, 1)
        return Changes(added=tuple(added), replaced=tuple(replaced), unchanged=tuple(unchanged))

    def remove_documents(
        self, ids: str | Iterable[str], *, waiting: Callable[[], object] = lambda: None
    ) -> Changes:
        waiting()
        ids = [ids] if isinstance(ids, str) else list(ids)
        for one in ids:
            if one not in self.kept:
                raise UnknownDocumentError(f"found no document {one!r}")
            del self.kept[one]
        return Changes(removed=tuple(ids))

    def documents(self) -> list[DocumentInfo]:
        return [
            DocumentInfo(
                id=d.id,
                title=d.title,
                format=d.format,
                num_characters=len(d.text),
                num_passages=1,
                sha256=hashlib.sha256(d.text.encode()).hexdigest(),
                added_at="2026-01-01T00:00:00Z",
            )
            for d in list(self.kept.values())
        ]

    def document(self, id: str) -> Document:  # noqa: A002 - what the contract calls it
        if id not in self.kept:
            raise UnknownDocumentError(f"found no document {id!r}")
        return self.kept[id]

    def status(self) -> dict[str, Any]:
        return {
            "model": "words",
            "num_documents": len(self.kept),
            "num_passages": len(self.kept),
            "has_encoder": False,
        }


def _mention(document: Document, word: str) -> dict[str, Any]:
    start = document.text.lower().index(word)
    passage = _passage(document)
    del passage["text"]
    return {
        "start": start,
        "end": start + len(word),
        "document": document.id,
        "line": 1,
        "passage": passage,
    }


def _passage(document: Document) -> dict[str, Any]:
    return {
        "id": f"{document.id}#0",
        "article_id": document.id,
        "title": document.title,
        "text": document.text,
        "start": 0,
        "end": len(document.text),
    }


@pytest.fixture
def model() -> WordModel:
    document = Document(id="a.txt", text="the library closes at eight")
    return WordModel(kept={"a.txt": document})


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server around a model; return a client of it."""
    running: list[tuple[Any, threading.Thread, httpx.Client]] = []

    def start(
        model: Any,
        *,
        access: Access | None = None,
        limits: Limits | None = None,
        batching: Batching | None = None,
        runs: Sequence[Any] = (),
    ) -> httpx.Client:
        service = Service(model, limits=limits, batching=batching, runs=runs)
        ready = threading.Event()
        bound = bind("127.0.0.1", 0)
        server = make_server(build_app(service, access=access), service, on_ready=ready.set)
        thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
        thread.start()
        assert ready.wait(20)
        client = httpx.Client(base_url=address_of(bound), timeout=30)
        running.append((server, thread, client))
        return client

    yield start
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
