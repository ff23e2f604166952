"""The Haystack components, alone and in Haystack's own pipelines."""

import asyncio
import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported
pytest.importorskip("haystack", reason="needs the extra: haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.dataclasses import ExtractedAnswer
from haystack.document_stores.in_memory import InMemoryDocumentStore

import realm
from realm.adapters.haystack import RealmReader, RealmRetriever
from realm.errors import ConfigError, RealmError

Make = Callable[..., Any]
LIBRARY = (
    "# The town library\n\n"
    "The town library stands on Mill Street.\n"
    "It closes at seven in the evening, on Saturdays at noon.\n"
)
BRIDGE = "The old bridge was built by Maria Keller in 1887. It crosses the river near the mill."
QUESTION = "Who built the old bridge?"


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "library.md").write_text(LIBRARY)
    (folder / "bridge.txt").write_text(BRIDGE)
    return folder


@pytest.fixture
def model(make_packed: Make) -> str:
    return str(make_packed())


@pytest.fixture(scope="module")
def reader() -> RealmReader:
    """The model that ships, opened once."""
    return RealmReader()


def test_the_retriever_returns_passages_and_where_they_stand(docs: Path, model: str) -> None:
    retriever = RealmRetriever(docs=str(docs), model=model, top_k=2)
    found = retriever.run("the old bridge")["documents"]
    with realm.load(Path(model), docs=docs) as opened:
        hits = opened.search("the old bridge", num_passages=2).hits
    assert [document.content for document in found] == [hit.passage.text for hit in hits]
    assert [document.id for document in found] == [hit.passage.id for hit in hits]
    assert sum(document.score for document in found) == pytest.approx(1)
    for document in found:
        text = (docs / document.meta["document"]).read_text()
        assert text[document.meta["start"] : document.meta["end"]] == document.content
        assert document.meta["line"] == text.count("\n", 0, document.meta["start"]) + 1
    assert len(retriever.run("the old bridge", top_k=1)["documents"]) == 1


def test_answers_are_stretches_of_the_documents_given(reader: RealmReader) -> None:
    """In documents of any length, from wherever: here one that is cut into many passages."""
    long = " ".join(f"On day {number} nothing of note happened." for number in range(200))
    documents = [Document(content=f"{long} {BRIDGE} {long}"), Document(content=LIBRARY)]
    answers = reader.run(QUESTION, documents)["answers"]
    assert answers[0].data == "Maria Keller"
    assert len(answers) == 4
    for answer in answers[:-1]:
        assert answer.query == QUESTION
        assert answer.document in documents
        assert answer.document_offset
        assert answer.context_offset
        span = slice(answer.document_offset.start, answer.document_offset.end)
        assert answer.document.content[span] == answer.data
        span = slice(answer.context_offset.start, answer.context_offset.end)
        assert answer.context[span] == answer.data
        assert answer.context in answer.document.content


def test_the_same_text_in_other_documents_is_in_the_meta(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.reading.NUM_SPANS", 10_000)
    documents = [
        Document(id="bridge.txt", content=BRIDGE, meta={"title": "The bridge"}),
        Document(id="copy.txt", content=BRIDGE, meta={"title": "The bridge"}),
        Document(id="library.md", content=LIBRARY),
    ]
    reader = RealmReader(model=model, top_k=999, num_passages=20, no_answer=False)
    others: set[tuple[str, ...]] = set()
    for answer in reader.run(QUESTION, documents)["answers"]:
        assert answer.document
        same = answer.meta["same_text"]
        others.add((answer.document.id, *(one["document"] for one in same)))
        for one in same:
            assert BRIDGE[one["start"] : one["end"]] == answer.data
    assert len(others) == 2
    assert ("library.md",) in others
    assert {"bridge.txt", "copy.txt"} in [set(names) for names in others]


def test_a_title_that_is_not_known_is_none_of_that_name(model: str) -> None:
    """Rows of a table come with `None` where a cell is empty."""
    reader = RealmReader(model=model)
    documents = [
        Document(id="bridge.txt", content=BRIDGE, meta={"title": None}),
        Document(id="library.md", content=LIBRARY, meta={"title": "A library"}),
    ]
    reader.run(QUESTION, documents)
    assert reader._realm is not None
    assert [info.title for info in reader._realm.documents()] == ["bridge", "A library"]


def test_a_title_is_the_files_name_and_never_a_hash(model: str) -> None:
    """Haystack hashes a document that has no id, and its converters note the file."""
    reader = RealmReader(model=model)
    documents = [
        Document(content=BRIDGE),
        Document(content=LIBRARY, meta={"file_path": "notes/town library.txt"}),
    ]
    reader.run(QUESTION, documents)
    assert reader._realm is not None
    titles = {info.id: info.title for info in reader._realm.documents()}
    assert [titles[document.id] for document in documents] == ["", "town library"]


def test_no_answer_stands_first_where_nothing_is_to_be_said(reader: RealmReader) -> None:
    known = reader.run(QUESTION, [Document(content=BRIDGE)])["answers"]
    assert known[0].data == "Maria Keller"
    assert known[-1].data is None
    assert known[-1].score == pytest.approx(1 - known[0].score)
    unknown = reader.run(QUESTION, [Document(content=LIBRARY)])["answers"]
    assert unknown[0].data is None
    assert unknown[0].score > 0.5
    assert reader.run(QUESTION, [])["answers"] == [
        ExtractedAnswer(query=QUESTION, score=1.0, data=None)
    ]
    without_text = [Document(content=None), Document(content=" \n")]
    assert reader.run(QUESTION, without_text)["answers"][0].data is None


def test_no_answer_can_be_left_out(model: str) -> None:
    reader = RealmReader(model=model, no_answer=False, top_k=2)
    answers = reader.run(QUESTION, [Document(content=BRIDGE)])["answers"]
    assert len(answers) == 2
    assert None not in [answer.data for answer in answers]
    assert len(reader.run(QUESTION, [Document(content=BRIDGE)], top_k=1)["answers"]) == 1


def test_a_reader_forgets_what_it_read_before(reader: RealmReader) -> None:
    reader.run(QUESTION, [Document(content=BRIDGE)])
    after = reader.run(QUESTION, [Document(content=LIBRARY)])["answers"]
    assert {one.document.content for one in after if one.document} == {LIBRARY}


def test_both_work_in_a_pipeline_that_went_through_yaml(docs: Path, model: str) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", RealmRetriever(docs=str(docs), model=model))
    pipeline.add_component("reader", RealmReader(model=model, top_k=1))
    pipeline.connect("retriever.documents", "reader.documents")
    asked = {"retriever": {"query": QUESTION}, "reader": {"query": QUESTION}}
    found = pipeline.run(asked)["reader"]["answers"]
    read = Pipeline.loads(pipeline.dumps(), allowed_modules=["realm.adapters.haystack"])
    again = read.run(asked)["reader"]["answers"]
    assert [one.to_dict() for one in again] == [one.to_dict() for one in found]
    assert isinstance(found[0], ExtractedAnswer)


def test_the_reader_reads_what_haystacks_own_retriever_found(reader: RealmReader) -> None:
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=BRIDGE), Document(content=LIBRARY)])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=2))
    pipeline.add_component("reader", reader)
    pipeline.connect("retriever.documents", "reader.documents")
    asked = {"retriever": {"query": QUESTION}, "reader": {"query": QUESTION}}
    assert pipeline.run(asked)["reader"]["answers"][0].data == "Maria Keller"


def test_they_can_be_awaited(docs: Path, model: str) -> None:
    retriever = RealmRetriever(docs=str(docs), model=model)
    reader = RealmReader(model=model)

    async def ask() -> Any:
        found = await retriever.run_async(QUESTION)
        return await asyncio.gather(*(reader.run_async(QUESTION, **found) for _ in range(3)))

    first, *others = asyncio.run(ask())
    assert others == [first, first]


def test_what_is_impossible_is_refused(model: str) -> None:
    for make in (RealmReader, RealmRetriever):
        with pytest.raises(ConfigError, match="found top_k=0"):
            make(top_k=0)
    for sources, told in (
        ({}, r"found nothing to look in; expected docs=FOLDER .*, library=FOLDER, or model=RUN"),
        ({"docs": "notes", "library": "l"}, "found docs='notes' and library='l', expected one"),
    ):
        with pytest.raises(ConfigError, match=told):
            RealmRetriever(**sources)
    reader = RealmReader(model=model)
    with pytest.raises(ConfigError, match="found top_k=-1"):
        reader.run(QUESTION, [Document(content=BRIDGE)], top_k=-1)
    with pytest.raises(RealmError, match="wordpieces"):
        reader.run("why " * 500, [Document(content=BRIDGE)])


def test_a_reader_leaves_nothing_behind(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    reader = RealmReader(model=model)
    reader.run(QUESTION, [Document(content=BRIDGE)])
    assert len([*(tmp_path / "temporary").iterdir()]) == 1
    del reader
    gc.collect()
    assert [*(tmp_path / "temporary").iterdir()] == []


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    retriever = RealmRetriever(docs=str(tmp_path / "nowhere"))
    with pytest.raises(RealmError, match="nowhere"):
        retriever.warm_up()
