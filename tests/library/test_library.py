"""A library shows every change at once, keeps it, and does not remember how it came about."""

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import realm
from realm.answering import Answerer
from realm.corpus.documents import only_documents
from realm.errors import ArtifactError, ConfigError, CorpusError, UnknownDocumentError
from realm.fine_tuned import FineTuned
from realm.library import adding, compaction
from realm.library.edition import Edition
from realm.library.head import HEAD, Head, read_head, write_head
from realm.library.indexing import Indexer
from realm.library.library import SEGMENTS, Library
from realm.library.segment import Segment
from realm.records import Changes, Document
from realm.retrieval.bm25 import Bm25Retriever
from realm.storage import read_json, write_json

QUESTION = "where was fermat born"
SENTENCES = (
    "Fermat was born near the old harbour of Toulouse. ",
    "The family of Euler wanted a child to become a teacher. ",
    "The letters of Gauss changed number theory for ever.\n",
    "A street in Basel and a prize for graph theory are named after Euler. ",
    "Everybody still knows the house. ",
)


def asked(tuned: FineTuned, edition: Edition) -> Answerer:
    """Return what answers from an edition."""
    passages = edition.passages(tuned.model.tokenizer)
    return Answerer.over(tuned, passages, edition.snapshot, lambda: edition.words)


def texts(edition: Edition, indexer: Indexer) -> list[str]:
    return [passage.text for passage in edition.passages(indexer.tokenizer)]


def folders(library: Library) -> set[str]:
    return {path.name for path in (library.folder / SEGMENTS).iterdir()}


def test_added_replaced_and_removed_in_the_next_edition(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    changes = library.add(documents[:3], indexer)
    assert changes.added == ("p0", "p1", "p2")
    edition = library.current()
    assert list(edition.held) == ["p0", "p1", "p2"]
    assert changes.num_embedded == edition.num_passages == 9
    changed = replace(documents[1], text="Euler lived in Paris.")
    assert library.add([changed, documents[3]], indexer) == Changes(
        added=("p3",), replaced=("p1",), num_embedded=4
    )
    assert library.current().document("p1").text == "Euler lived in Paris."
    assert not [t for t in texts(library.current(), indexer) if "Basel" in t]
    assert library.remove(["p0", "p3"]) == Changes(removed=("p0", "p3"))
    assert list(library.current().held) == ["p1", "p2"]
    assert list(edition.held) == ["p0", "p1", "p2"]  # who still looks at it sees it whole
    assert len(texts(edition, indexer)) == 9


def test_only_passages_that_are_new_are_embedded(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    library.add(documents, indexer)
    before = {p.sha256: p.row for p in library.current().passages(indexer.tokenizer)}
    vectors = library.current().snapshot.exact[torch.arange(len(before))]
    longer = replace(documents[0], text=documents[0].text + " Euler lived in Basel in a house.")
    changes = library.add([longer, replace(documents[1], id="copy")], indexer)
    edition = library.current()
    new = [p for p in edition.passages(indexer.tokenizer) if p.sha256 not in before]
    assert changes.num_embedded == len(new) == 1
    exact = edition.snapshot.exact[torch.arange(edition.num_passages)]
    for passage in edition.passages(indexer.tokenizer):
        if passage.sha256 in before:
            assert torch.equal(exact[passage.row], vectors[before[passage.sha256]])


def test_what_is_there_already_writes_nothing(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    library.add(documents, indexer)
    head = (library.folder / HEAD).stat()
    again = library.add([*documents, documents[0]], indexer)
    assert set(again.unchanged) == {document.id for document in documents}
    assert not again
    assert again.num_embedded == 0
    assert (library.folder / HEAD).stat() == head


def test_of_one_id_given_twice_the_last_counts(library: Library, indexer: Indexer) -> None:
    twice = [Document(id="a", text=text) for text in ("Fermat lived.", "Euler lived.")]
    assert library.add(twice, indexer).added == ("a",)
    assert library.current().document("a").text == "Euler lived."


def test_a_text_without_a_letter_replaces_nothing(library: Library, indexer: Indexer) -> None:
    library.add(Document(id="a", text="Fermat lived."), indexer)
    for blank in ("", " \n"):
        with pytest.raises(CorpusError, match=r"^a: found no text, expected some"):
            library.add(Document(id="a", text=blank), indexer)
    assert library.current().document("a").text == "Fermat lived."


def test_blank_documents_of_an_older_release_are_made_over_with_the_others(
    library: Library, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(adding, "check_document", lambda _: None)
        library.add([Document(id="a", text="Fermat lived."), Document(id="b", text=" ")], indexer)
    changes = library.reindex(indexer)
    assert changes.replaced == ("a", "b")
    assert changes.skipped.counts == {"no text": 1}
    assert [info.num_passages for info in Library(library.folder).current().infos()] == [1, 0]


def test_an_unknown_id_is_told_and_nothing_is_removed(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    with pytest.raises(UnknownDocumentError, match="holds no document yet"):
        library.remove("p0")
    library.add(documents, indexer)
    with pytest.raises(UnknownDocumentError, match=r"no document 'x'; expected one such as 'p0'"):
        library.remove(["p1", "x"])
    assert "p1" in library.current().held
    with pytest.raises(UnknownDocumentError):
        library.current().document("x")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (Document(id="", text="x"), "expected 1 to 1,000 characters in one line"),
        (Document(id="a\nb", text="x"), "expected 1 to 1,000 characters in one line"),
        (Document(id="a\u2029b", text="x"), "expected 1 to 1,000 characters in one line"),
        (Document(id="a\x1b[2J", text="x"), "expected 1 to 1,000 characters in one line"),
        (Document(id="\udcff", text="x"), "expected 1 to 1,000 characters in one line"),
        (Document(id="a" * 1_001, text="x"), "expected 1 to 1,000 characters in one line"),
        (Document(id="a", text="x \ud800"), "half a surrogate pair at character 3 of its text"),
        (Document(id="a", text="x", title="\ud800"), "of its title"),
        (Document(id="a", text="x", title="x" * 5_001), "at most 5,000; put the rest into its"),
    ],
)
def test_what_no_library_can_hold_is_refused_and_nothing_is_added(
    library: Library, indexer: Indexer, document: Document, told: str
) -> None:
    with pytest.raises(CorpusError, match=told):
        library.add([Document(id="good", text="Fermat lived."), document], indexer)
    assert not library.current().held


@pytest.mark.parametrize(
    "name",
    [
        "Note 9\u202fAM.txt",
        "caf\u00e9\u00a0!.md",
        "\u0646\u200c\u0647.md",
        "\U0001f468\u200d\U0001f33e.txt",
    ],
)
def test_names_that_people_give_their_files_are_ids(
    library: Library, indexer: Indexer, name: str
) -> None:
    assert library.add(Document(id=name, text="Fermat lived."), indexer).added == (name,)
    assert library.remove(name).removed == (name,)


def test_titles_and_lines_are_those_of_the_document(library: Library, indexer: Indexer) -> None:
    records = [{"id": "7", "title": "Gauss", "text": "Gauss lived.\nHe died."}, {"text": "Abel."}]
    lines = ["", json.dumps(records[0]), "bad", json.dumps(records[1])]
    changes = library.add(
        [
            Document(id="notes/a.md", text="x\n# Fermat of old\n\nLived.", format="markdown"),
            Document(id="notes/b.txt", text="Euler lived.\n\nIn Basel.\n"),
            Document(id="c.jsonl", text="\n".join(lines), format="jsonl"),
            Document(id="d", text="Cantor.", title="Own  title"),
        ],
        indexer,
    )
    assert changes.skipped.counts == {"bad JSON": 1}
    edition = library.current()
    titles = {info.id: info.title for info in edition.infos()}
    assert titles == {
        "c.jsonl": "c",
        "d": "Own title",
        "notes/a.md": "Fermat of old",
        "notes/b.txt": "b",
    }
    places = {
        passage.text[:5]: str(edition.place(passage, passage.end - 1))
        for passage in edition.passages(indexer.tokenizer)
    }
    assert places == {
        "Gauss": "c.jsonl:2",
        "Abel.": "c.jsonl:4",
        "Canto": "d:1",
        "x\n# F": "notes/a.md:4",
        "Euler": "notes/b.txt:3",
    }
    found = {p.article_id: p.title for p in edition.passages(indexer.tokenizer)}
    assert found["c.jsonl/7"] == "Gauss"


HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
UUID = "123E4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("id", "title"),
    [
        (HASH, ""),
        (UUID, ""),
        (f"mails/{UUID}.md", ""),
        (f"{HASH[:32]}#3", ""),
        ("decade", "decade"),
        (f"{HASH[:31]}", HASH[:31]),
        (f"{UUID} of Ada", f"{UUID} of Ada"),
    ],
)
def test_an_id_that_says_nothing_is_no_title(
    library: Library,
    indexer: Indexer,
    id: str,  # noqa: A002 - as documents name it
    title: str,
) -> None:
    """A title is embedded with every passage, and counts among its words."""
    library.add(Document(id=id, text="Euler lived in Basel."), indexer)
    edition = library.current()
    assert [info.title for info in edition.infos()] == [title]
    (passage,) = edition.passages(indexer.tokenizer)
    assert passage.title == title


def test_words_score_as_bm25_over_the_same_passages(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    for document in documents:
        library.add(document, indexer)
    library.remove(["p2", "p5"])
    library.add(replace(documents[0], text="Fermat lived in the house of Euler."), indexer)
    edition = library.current()
    built = Bm25Retriever.open(edition.passages(indexer.tokenizer))
    for question in (QUESTION, "the the harbour of toulouse", "gauss", "nothing known"):
        scores = edition.words.scores(question)
        assert np.array_equal(scores, built.scores(question))
        assert edition.words.best(scores, 5) == built.best(scores, 5)


def test_segments_stay_few_and_hold_what_they_held(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    for number in range(20):
        library.add(Document(id=f"d{number:02}", text=f"{documents[number % 8].text}"), indexer)
        assert len(library.current().segments) < 16
    assert len(folders(library)) == len(library.current().segments)
    assert [info.id for info in library.current().infos()] == [f"d{n:02}" for n in range(20)]
    for number in range(0, 20, 2):
        library.remove(f"d{number:02}")
    edition = Library(library.folder).current()
    assert sum(s.num_passages for s in edition.segments) <= 2 * edition.num_passages
    assert len(texts(edition, indexer)) == edition.num_passages == 30


def test_many_documents_become_durable_group_by_group(
    library: Library,
    indexer: Indexer,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adding, "GROUP_PASSAGES", 6)
    told: list[tuple[int, int]] = []
    seen: list[int] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        seen.append(len(Library(library.folder).current()))

    library.add(documents, indexer, progress=tell)
    assert told[0] == (0, 24)
    assert told[-1] == (24, 24)
    assert {0, 2, 4, 6} <= set(seen)


Operation = tuple[str, Sequence[Any]]
NAMES = st.sampled_from(["a", "b.md", "c", "d", "e"])
NO_WORDPIECE = "\N{ZERO WIDTH SPACE}"
"""A text that gives no passage."""
BODIES = st.lists(st.sampled_from(SENTENCES), max_size=7).map(lambda s: "".join(s) or NO_WORDPIECE)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("add"), st.lists(st.tuples(NAMES, BODIES), min_size=1, max_size=3).map(tuple)
    ),
    st.tuples(st.just("remove"), st.lists(NAMES, min_size=1, max_size=2).map(tuple)),
    st.tuples(st.just("open"), st.just(())),
)


@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(OPERATIONS, min_size=1, max_size=10))
def test_history_leaves_no_trace(
    tuned: FineTuned, indexer: Indexer, operations: list[Operation]
) -> None:
    with TemporaryDirectory() as folder:
        library = Library.create(Path(folder) / "lived", indexer)
        state: dict[str, Document] = {}
        for kind, told in operations:
            if kind == "add":
                documents = [Document(id=name, text=text) for name, text in told]
                library.add(documents, indexer)
                state |= {document.id: document for document in documents}
            elif kind == "remove":
                there = [name for name in told if name in state]
                library.remove(there)
                state = {name: d for name, d in state.items() if name not in there}
            else:
                library = Library(library.folder)
        at_once = Library.create(Path(folder) / "at-once", indexer)
        at_once.add(state.values(), indexer)
        assert_equal(tuned, library.current(), at_once.current())


def assert_equal(tuned: FineTuned, lived: Edition, built: Edition) -> None:
    """Compare everything that a user can see of two editions."""
    assert [replace(i, added_at="") for i in lived.infos()] == [
        replace(i, added_at="") for i in built.infos()
    ]
    assert lived.fingerprint == built.fingerprint
    one, other = asked(tuned, lived), asked(tuned, built)
    assert list(one.store) == list(other.store)
    for passage in one.store:
        assert lived.place(passage, passage.start) == built.place(passage, passage.start)
    rows = torch.arange(lived.num_passages)
    if len(rows):
        torch.testing.assert_close(lived.snapshot.exact[rows], built.snapshot.exact[rows])
    assert np.array_equal(lived.words.scores(QUESTION), built.words.scores(QUESTION))
    (found,), (wanted,) = (a.answer([QUESTION], num_passages=50) for a in (one, other))
    assert found.read_rows == wanted.read_rows
    assert [(a.text, a.passage) for a in found.answers] == [
        (a.text, a.passage) for a in wanted.answers
    ]
    assert [a.probability for a in found.answers] == pytest.approx(
        [a.probability for a in wanted.answers], rel=1e-3
    )


def test_another_process_sees_a_change_at_its_next_look(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    script = (
        "import sys; from pathlib import Path; from realm.library.library import Library\n"
        "library = Library(Path(sys.argv[1]))\n"
        "for _ in sys.stdin: print(len(library.current()), flush=True)\n"
    )
    source = str(Path(realm.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(library.folder)],
        env={"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin
        assert other.stdout

        def look() -> int:
            other.stdin.write("\n")
            other.stdin.flush()
            return int(other.stdout.readline())

        assert look() == 0
        library.add(documents, indexer)
        assert look() == 8
        for document in documents[:5]:
            library.remove(document.id)
        assert look() == 3
        other.stdin.close()


def test_writers_in_turn_and_readers_meanwhile(  # noqa: C901 - two kinds of threads
    library: Library, tuned: FineTuned, indexer: Indexer, documents: list[Document]
) -> None:
    library.add(documents[:2], indexer)
    other = Library(library.folder)
    failures: list[BaseException] = []
    done = threading.Event()

    def write(opened: Library, mine: list[Document]) -> None:
        try:
            for _ in range(2):
                for document in mine:
                    opened.add(document, indexer)
                    assert document.id in opened.current().held
                    opened.remove(document.id)
                    assert document.id not in opened.current().held
            opened.add(mine, indexer)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    def read() -> None:
        try:
            while not done.is_set():
                edition = other.current()
                answered = asked(tuned, edition).answer([QUESTION])
                for answer in answered[0].answers:
                    place = edition.place(answer.passage, answer.start)
                    text = edition.document(place.file).text
                    assert text[answer.start : answer.end] == answer.text
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    writers = [
        threading.Thread(target=write, args=(opened, documents[first : first + 2]))
        for opened, first in ((library, 2), (library, 4), (other, 6))
    ]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert list(library.current().held) == [document.id for document in documents]
    assert other.current().fingerprint == library.current().fingerprint


def test_another_model_is_told_and_can_make_it_over(
    library: Library,
    indexer: Indexer,
    documents: list[Document],
    make_packed: Callable[..., Path],
) -> None:
    library.add(documents, indexer)
    other = Indexer(FineTuned.load(make_packed(seed=5, name="other")))
    with pytest.raises(ConfigError, match=r"differs in .*embedder.*realm docs reindex"):
        library.add(documents[0], other)
    with pytest.raises(ConfigError, match="made with the model 'hybrid'"):
        Library.create(library.folder, other)
    changes = library.reindex(other)
    assert changes.num_embedded == 24
    assert library.current().head.model == "other"
    assert len(folders(library)) == len(library.current().segments)
    built = Library.create(library.folder.with_name("built"), other)
    built.add(documents, other)
    assert texts(library.current(), other) == texts(built.current(), other)
    with pytest.raises(ConfigError):
        library.check(indexer)


@pytest.mark.parametrize("given", ["a text", {"id": "a", "text": "b"}, ["a text"], 5])
def test_what_is_no_document_is_told_what_one_is(given: object) -> None:
    """A text given to add_documents ended with: 'str' object has no attribute 'text'."""
    with pytest.raises(CorpusError, match=r"expected realm\.Document\(id="):
        list(only_documents(given))


def test_what_is_no_library_is_told(tmp_path: Path, indexer: Indexer) -> None:
    with pytest.raises(ArtifactError, match=r"found no library at .*realm docs add"):
        Library(tmp_path / "none")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("Fermat lived.")
    with pytest.raises(ArtifactError, match=r"holds other files and no library"):
        Library.create(tmp_path / "notes", indexer)
    with pytest.raises(ArtifactError, match="is no folder"):
        Library.create(tmp_path / "notes" / "a.txt", indexer)
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("damage", ['{"kind": "library"}', "[]", "{", '{"kind": "x"}'])
def test_a_damaged_head_is_told(library: Library, damage: str) -> None:
    (library.folder / HEAD).write_text(damage)
    with pytest.raises(ArtifactError, match=HEAD):
        Library(library.folder)


def test_no_segment_is_read_from_outside_of_the_library(
    library: Library, indexer: Indexer, documents: list[Document], tmp_path: Path
) -> None:
    library.add(documents, indexer)
    (segment,) = (library.folder / SEGMENTS).iterdir()
    shutil.move(segment, tmp_path / "elsewhere")
    head = read_json(library.folder / HEAD)
    head["segments"][0]["name"] = "../../elsewhere"
    write_json(library.folder / HEAD, head)
    with pytest.raises(ArtifactError, match=r"head.json is damaged .*expected segment-NUMBER"):
        Library(library.folder)
    assert (tmp_path / "elsewhere").is_dir()


def test_a_library_that_loses_a_segment_is_told(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    library.add(documents, indexer)
    (segment,) = (library.folder / SEGMENTS).iterdir()
    (segment / "words.arrow").unlink()
    with pytest.raises(ArtifactError, match=r"words\.arrow is missing"):
        Library(library.folder)
    shutil.rmtree(library.folder)
    with pytest.raises(ArtifactError, match="found no library"):
        library.current()


def test_what_a_killed_writer_left_is_swept_by_the_next(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    library.add(documents[0], indexer)
    (kept,) = folders(library)
    orphan = library.folder / SEGMENTS / "segment-00000002"
    shutil.copytree(library.folder / SEGMENTS / kept, orphan)
    (library.folder / SEGMENTS / ".segment-00000009.partial").mkdir()
    library.add(documents[1], indexer)
    assert folders(library) == {s.name for s in read_head(library.folder).segments}
    assert list(library.current().held) == ["p0", "p1"]


@contextmanager
def no_heads_written(patch: pytest.MonkeyPatch, *, first: int = 0) -> Generator[None]:
    """Let heads fail to be written, as on a full disk, but for the first few."""
    left = first

    def write(folder: Path, head: Head) -> None:
        nonlocal left
        if not left:
            raise ArtifactError("No space left on device")
        left -= 1
        write_head(folder, head)

    with patch.context() as context:
        context.setattr("realm.library.library.write_head", write)
        yield


def test_what_could_not_be_published_is_never_taken_for_what_another_process_has(
    library: Library,
    indexer: Indexer,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Library(library.folder)
    with no_heads_written(monkeypatch), pytest.raises(ArtifactError, match="No space left"):
        library.add(documents[0], indexer)
    assert folders(library) == set()  # or a full disk would be filled by each try
    other.add(documents[1], indexer)
    assert list(library.current().held) == ["p1"]
    assert library.current().document("p1").text == documents[1].text
    monkeypatch.setattr(compaction, "FACTOR", 2)
    with no_heads_written(monkeypatch, first=1):
        library.add(documents[2], indexer)  # its joining fails
    assert list(library.current().held) == ["p1", "p2"]
    other.add(documents[3], indexer)
    assert list(library.current().held) == ["p1", "p2", "p3"]
    assert folders(library) == {s.name for s in read_head(library.folder).segments}


def test_a_head_that_is_written_and_not_synced_keeps_its_segments(
    library: Library,
    indexer: Indexer,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library.add(documents[0], indexer)

    def write(folder: Path, head: Head) -> None:
        write_head(folder, head)
        raise ArtifactError("Input/output error")

    with monkeypatch.context() as patch, pytest.raises(ArtifactError, match="Input/output"):
        patch.setattr("realm.library.library.write_head", write)
        library.add(documents[1], indexer)
    assert list(library.current().held) == ["p0", "p1"]
    assert list(Library(library.folder).current().held) == ["p0", "p1"]


def test_folders_made_for_a_library_are_on_disk_with_it(
    indexer: Indexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("realm.library.library.sync", synced.append)
    Library.create(tmp_path / "new" / "deeper" / "library", indexer)
    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "deeper"} <= set(synced)


def test_a_library_made_anew_in_the_same_place_is_seen(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    library.add(documents[0], indexer)
    shutil.rmtree(library.folder)
    anew = Library.create(library.folder, indexer)
    anew.add(documents[1], indexer)
    assert anew.current().head.version == 1
    assert list(library.current().held) == ["p1"]
    assert library.current().document("p1").text == documents[1].text


def test_who_only_reads_holds_no_segment_that_is_gone(
    library: Library, indexer: Indexer, documents: list[Document]
) -> None:
    reader = Library(library.folder)
    gone: list[weakref.ref[Segment]] = []
    for document in documents:
        library.add(replace(document, id="p0"), indexer)
        gone += [weakref.ref(segment) for segment in reader.current().segments]
    gc.collect()
    assert [one() for one in gone[:-1]] == [None] * 7
    assert reader.current().held.keys() == {"p0"}


def test_heads_that_look_the_same_within_one_tick_are_told_apart(
    library: Library,
    indexer: Indexer,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = (1, time.time_ns() + 10**12, 1, 1)
    monkeypatch.setattr("realm.library.library._stamp", lambda _: same)
    other = Library(library.folder)
    library.add(documents[0], indexer)
    assert list(other.current().held) == ["p0"]


def test_a_library_may_lie_below_a_name_that_is_no_text(
    tmp_path: Path, indexer: Indexer, documents: list[Document]
) -> None:
    above = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        above.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    made = Library.create(above / "library", indexer)
    made.add(documents[:2], indexer)
    made.add(documents[2:4], indexer)
    assert list(Library(made.folder).current().held) == ["p0", "p1", "p2", "p3"]
