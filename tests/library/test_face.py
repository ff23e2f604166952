"""realm.load as a script, a notebook and the server use it."""

import gc
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import realm
from realm import mini
from realm.asking import FolderAnswerer, placed_as_json
from realm.errors import (
    AnsweringError,
    ArtifactError,
    ConfigError,
    CorpusError,
    NoEncoderError,
    ReadOnlyError,
    RealmError,
    UnknownDocumentError,
)
from realm.library.indexing import Indexer
from realm.records import Document
from realm.storage import read_json, write_json

if TYPE_CHECKING:
    from realm.library.face import Realm

QUESTION = "where was fermat born"
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def opened(model: Path, documents: list[Document]) -> Iterator["Realm"]:
    """A temporary library with the small world."""
    with realm.load(model) as one:
        one.add_documents(documents)
        yield one


@pytest.fixture
def docs(tmp_path: Path, documents: list[Document]) -> Path:
    """The small world as files."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for document in documents:
        text = f"# {document.title}\n\n" + document.text.replace(". ", ".\n")
        (folder / f"{document.id}.md").write_text(text)
    return folder


def test_importing_realm_brings_nothing_heavy() -> None:
    script = (
        "import sys, realm\n"
        "assert realm.Document(id='a', text='b')\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'transformers', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'load', 'Document', '__version__'} <= set(dir(realm))\n"
        "assert callable(realm.load) and 'torch' in sys.modules\n"
        "try: realm.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit(1)\n"
    )
    source = str(Path(realm.__file__).parents[1])
    environment = {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_an_empty_library_has_no_answer_and_does_not_fail(model: Path) -> None:
    with realm.load(model) as empty:
        answered = empty.answer(QUESTION)
        assert (answered.text, answered.probability, answered.answers) == (None, None, ())
        assert answered.passages == ()
        assert repr(answered) == f"{QUESTION}\n  no answer in these passages"
        assert empty.search(QUESTION).hits == ()
        assert empty.status()["num_passages"] == 0
        with pytest.raises(AnsweringError, match="found no word"):
            empty.answer(" ")
        folder = empty.library_folder
        assert folder is not None
        assert folder.is_dir()
    assert not folder.exists()


def test_documents_in_place_of_a_model_are_told_where_they_go(docs: Path) -> None:
    with pytest.raises(ArtifactError, match=r'Documents of yours: realm.load\(docs="'):
        realm.load(docs)
    with pytest.raises(ArtifactError, match=r"expected a run, or one of its checkpoints$"):
        realm.load(docs / "none")


def test_answers_stand_where_they_say(opened: "Realm", documents: list[Document]) -> None:
    answered = opened.answer(QUESTION, num_answers=6, num_passages=4)
    assert len(answered.answers) == 6
    assert len(answered.passages) == 4
    assert sum(one.probability for one in answered.passages) == pytest.approx(1.0)
    assert answered.text == answered.answers[0].text
    assert answered.probability == answered.answers[0].probability
    for answer in answered.answers:
        text = opened.document(answer.place.document).text
        assert text[answer.start : answer.end] == answer.text
        assert answer.place.line == text.count("\n", 0, answer.start) + 1
        read = {one.passage: one.probability for one in answered.passages}
        assert read[answer.passage] == pytest.approx(answer.passage_probability)
    both = opened.answer([QUESTION, "who lived in basel"])
    assert both[0].text == answered.text
    assert [one.question for one in both] == [QUESTION, "who lived in basel"]
    assert {document.id for document in documents} == {d.id for d in opened.documents()}


def test_the_same_text_elsewhere_is_named_and_shown(opened: "Realm") -> None:
    answered = opened.answer(QUESTION, num_answers=3, num_passages=40)
    assert "also in" not in repr(answered) + answered._repr_html_()
    assert [one["same_text"] for one in answered.as_dict()["answers"]] == [[]] * 3
    opened.add_documents(
        [Document(id=f"old/{d.id}", title="Old", text=opened.document(d.id).text)
         for d in opened.documents()]
    )  # fmt: skip
    answered = opened.answer(QUESTION, num_answers=3, num_passages=48)
    told = json.loads(json.dumps(answered.as_dict()))
    for answer, entry in zip(answered.answers, told["answers"], strict=True):
        (other,) = answer.same_text
        assert opened.document(other.place.document).text[other.start : other.end] == answer.text
        names = {answer.place.document, other.place.document}
        assert names == {(name := min(names, key=len)), f"old/{name}"}
        assert f"     also in: {other.place}\n" in f"{answered!r}\n"
        assert f">also in: {other.place}</span></li>" in answered._repr_html_()
        (place,) = entry["same_text"]
        assert place["passage"]["title"] == other.passage.title
        assert {name: place[name] for name in ("document", "file", "line", "start", "end")} == {
            "document": other.place.document,
            "file": other.place.document,
            "line": other.place.line,
            "start": other.start,
            "end": other.end,
        }


def test_what_is_not_probable_enough_is_not_said(opened: "Realm") -> None:
    answered = opened.answer(QUESTION, min_probability=1.0)
    assert answered.text is None
    assert answered.answers
    assert "no answer; best guess: " in repr(answered)
    assert "below 1.00" in answered._repr_html_()
    assert answered.as_dict()["answer"] is None


def test_search_finds_and_scores_passages(opened: "Realm") -> None:
    found = opened.search("fermat toulouse", num_passages=7)
    assert len(found) == len(found.hits) == 7
    assert tuple(found) == found.hits
    assert found[-1] is found.hits[-1]
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert sum(hit.probability for hit in found.hits) == pytest.approx(1.0)
    assert "p0:1" in repr(found)
    told = json.loads(json.dumps(found.as_dict()))
    assert told["hits"][0]["passage"]["text"] == found.hits[0].passage.text
    assert told["hits"][0]["document"] == found.hits[0].place.document


@pytest.mark.parametrize("count", [0, -1])
def test_nothing_asked_for_is_not_told_as_no_answer(opened: "Realm", count: int) -> None:
    for ask in (
        lambda: opened.answer(QUESTION, num_passages=count),
        lambda: opened.search(QUESTION, num_passages=count),
    ):
        with pytest.raises(ConfigError, match=f"found num_passages={count}, expected at least 1"):
            ask()
    with pytest.raises(ConfigError, match=f"found num_answers={count}, expected at least 1"):
        opened.answer(QUESTION, num_answers=count)


def test_json_holds_all_that_asking_a_folder_tells(docs: Path, model: Path) -> None:
    answerer = FolderAnswerer.open(docs, model=model)
    (wanted,) = answerer.answer([QUESTION], num_answers=3)
    told = placed_as_json(wanted, answerer)
    with realm.load(model, docs=docs) as opened:
        found = json.loads(json.dumps(opened.answer(QUESTION).as_dict()))
    assert told.keys() <= found.keys()
    for one, other in zip(told["answers"], found["answers"], strict=True):
        assert one.keys() <= other.keys()
        assert (one["text"], one["file"], one["line"]) == (
            other["text"],
            other["document"],
            other["line"],
        )
        assert other["probability"] == pytest.approx(one["probability"], rel=0.05)
    assert len(found["passages"]) == 5


def test_shown_texts_are_escaped(model: Path) -> None:
    evil = "<script>alert('Fermat')</script> & \"Euler\""
    with realm.load(model) as opened:
        opened.add_documents(
            Document(id=f"<i>{name}</i>", title="<b>The title</b>", text=f"{evil} lived.")
            for name in "xy"
        )
        answered = opened.answer(f"who lived {evil}", num_answers=30, min_probability=0.0)
        shown = (
            answered,
            opened.search(f"fermat {evil}"),
            opened.answer(evil, min_probability=1.0),
        )
        for one in shown:
            html = one._repr_html_()
            assert set(re.findall(r"<(\w+)", html)) <= {
                "div", "b", "p", "ol", "li", "span", "br", "mark", "details", "summary", "table",
                "tr", "td",
            }  # fmt: skip
            assert "&lt;script&gt;" in html
            assert "<b>The title" not in html
        assert "<mark" in answered._repr_html_()
        assert "also in: &lt;i&gt;" in answered._repr_html_()


def test_a_passage_without_a_title_is_shown_by_its_document(model: Path) -> None:
    nameless = "123e4567-e89b-12d3-a456-426614174000"
    with realm.load(model) as opened:
        opened.add_documents(Document(id=nameless, text="Fermat lived in Toulouse."))
        found = opened.search("Fermat")
        assert f"1. {nameless}  p=" in repr(found)
        assert f"<b>{nameless}</b>" in found._repr_html_()


def test_the_docs_are_read_again_where_they_changed(docs: Path, model: Path) -> None:
    told: list[tuple[int, int]] = []
    with realm.load(model, docs=docs, progress=lambda *now: told.append(now)) as opened:
        assert len(opened.documents()) == 8
        opened.add_documents(Document(id="own", text="Abel lived in Oslo."))
    assert told[-1][0] == told[-1][1] > 0
    (docs / "p0.md").write_text("Fermat lived in Paris.")
    (docs / "p1.md").unlink()
    told.clear()
    with realm.load(model, docs=docs, progress=lambda *now: told.append(now)) as opened:
        names = [info.id for info in opened.documents()]
        assert names == ["own", "p0.md", *(f"p{n}.md" for n in range(2, 8))]
        assert opened.document("p0.md").text == "Fermat lived in Paris."
        assert told[-1] == (1, 1)
    (library,) = (docs.parent / "cache" / "libraries").iterdir()
    (library / "head.json").write_text("{")
    with realm.load(model, docs=docs) as opened:
        assert len(opened.documents()) == 7
    with pytest.raises(CorpusError, match="found no"):
        realm.load(model, docs=docs / "none")


def test_no_older_reading_of_a_file_stays_over_a_newer_one(
    docs: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program reads the file's newer text while the older one is embedded."""
    embed = Indexer.content

    def newer_meanwhile(*told: Any, **more: Any) -> Any:
        monkeypatch.setattr(Indexer, "content", embed)
        (docs / "p0.md").write_text("Fermat lived in Paris.")
        (docs / "p1.md").unlink()
        with realm.load(model, docs=docs) as other:
            assert other.document("p0.md").text == "Fermat lived in Paris."
        return embed(*told, **more)

    with realm.load(model, docs=docs):
        pass
    (docs / "p0.md").write_text("Fermat lived in Toulouse.")
    (docs / "p1.md").write_text("Euler lived in Basel.")
    monkeypatch.setattr(Indexer, "content", newer_meanwhile)
    with realm.load(model, docs=docs) as opened:
        assert opened.document("p0.md").text == "Fermat lived in Paris."
        assert len(opened.documents()) == 7


@pytest.mark.parametrize("gone", ["segments/*", "head.json", "folder-*.json", "segments"])
def test_a_cache_that_was_cleaned_in_part_is_made_again(docs: Path, model: Path, gone: str) -> None:
    with realm.load(model, docs=docs):
        pass
    (library,) = (docs.parent / "cache" / "libraries").iterdir()
    for path in library.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with realm.load(model, docs=docs) as opened:
        assert len(opened.documents()) == 8
        assert opened.answer(QUESTION).passages


@pytest.mark.parametrize("written", ["head.json", "segments/*/manifest.json"])
def test_a_kept_library_of_another_release_is_set_aside_and_made_again(
    docs: Path, model: Path, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    with realm.load(model, docs=docs) as opened:
        opened.add_documents(Document(id="own", text="Abel lived in Oslo."))
    (library,) = (docs.parent / "cache" / "libraries").iterdir()
    for path in library.glob(written):
        write_json(path, read_json(path) | {"format_version": 99})
    with realm.load(model, docs=docs) as opened:
        assert [info.id for info in opened.documents()] == [f"p{n}.md" for n in range(8)]
    (told,) = caplog.messages
    aside = library.with_name(f"{library.name}.old-1")
    assert " 99, this release reads 1; " in told
    assert told.endswith(f"; what was added otherwise is in {aside}")
    assert next(aside.glob(written)).is_file()
    with realm.load(model, docs=docs) as opened:
        assert len(opened.documents()) == 8
    assert len(caplog.messages) == 1


def test_a_full_disk_costs_no_kept_library(
    docs: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with realm.load(model, docs=docs):
        pass
    (docs / "new.txt").write_text("Abel lived in Oslo.")
    (library,) = (docs.parent / "cache" / "libraries").iterdir()
    kept = set((library / "segments").iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ArtifactError, match="No space left"):
        patch.setattr("realm.library.head.write_json", full)
        realm.load(model, docs=docs)
    assert set((library / "segments").iterdir()) == kept
    with realm.load(model, docs=docs) as opened:
        assert len(opened.documents()) == 9


def test_what_is_left_out_of_the_docs_is_told(docs: Path, model: Path) -> None:
    (docs / "bad.txt").write_bytes(b"\xff")
    with realm.load(model, docs=docs) as opened:
        assert opened.skipped.examples == {"invalid UTF-8": ["bad.txt:1"]}
    with realm.load(model) as opened:
        assert not opened.skipped.total


def test_a_library_keeps_what_it_was_given(
    model: Path, tmp_path: Path, documents: list[Document]
) -> None:
    with realm.load(model, library=tmp_path / "kept") as opened:
        assert opened.add_documents(documents).num_embedded == 24
        wanted = opened.answer(QUESTION).as_dict()
        assert repr(opened) == (f"Realm(hybrid: 8 documents, 24 passages in {tmp_path / 'kept'})")
    with realm.load(model, library=tmp_path / "kept") as again:
        assert again.answer(QUESTION).as_dict() == wanted
        assert again.status()["version"] == 1
    with pytest.raises(ConfigError, match="found several of docs, library and passages"):
        realm.load(model, library=tmp_path / "kept", docs=tmp_path)


def test_no_answer_that_begins_after_a_removal_comes_from_the_document(opened: "Realm") -> None:
    failures: list[str] = []
    gone: set[str] = set()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            before = frozenset(gone)
            answered = opened.answer(QUESTION, num_answers=20, num_passages=24)
            used = {one.place.document for one in (*answered.answers, *answered.passages)}
            failures.extend(used & before)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for info in opened.documents()[:-1]:
        opened.remove_documents(info.id)
        gone.add(info.id)
        opened.answer("who lived in basel")
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert [info.id for info in opened.documents()] == ["p7"]
    with pytest.raises(UnknownDocumentError):
        opened.remove_documents("p0")


def test_a_run_answers_from_its_own_passages_which_do_not_change(model: Path, docs: Path) -> None:
    from realm.checkpoint.sources import write_sources

    store = FolderAnswerer.open(docs, model=model).answerer.store
    with realm.load(model, passages=store.folder) as opened:
        assert len(opened.answer(QUESTION).passages) == 5
        assert opened.documents() == []
    write_sources(model, store)  # type: ignore[arg-type]
    with realm.load(model) as opened:
        answered = opened.answer(QUESTION)
        assert answered.answers[0].place.line is None
        assert str(answered.answers[0].place) == answered.answers[0].passage.article_id
        assert opened.documents() == []
        assert opened.status()["num_passages"] == len(store)
        assert opened.library_folder is None
        for change in (
            lambda: opened.add_documents(Document(id="a", text="b")),
            lambda: opened.remove_documents("a"),
            lambda: opened.watch(docs),
        ):
            with pytest.raises(ReadOnlyError, match="docs=FOLDER or library=FOLDER"):
                change()


def test_who_watches_a_folder_hears_what_could_not_be_done(opened: "Realm", docs: Path) -> None:
    errors: list[RealmError] = []
    heard = threading.Event()

    def hear(error: RealmError) -> None:
        errors.append(error)
        heard.set()

    with opened.watch(docs, every_seconds=0.01, on_error=hear):
        docs.rename(docs.with_name("away"))
        assert heard.wait(20.0)
    assert "found no" in str(errors[0])


def test_a_folder_is_followed_until_its_watcher_is_closed(
    model: Path, docs: Path, tmp_path: Path
) -> None:
    """Also where nobody holds what the folder is followed for."""
    library = tmp_path / "watched"
    followed = realm.load(model, library=library)
    kept = weakref.ref(followed)
    watcher = followed.watch(docs, every_seconds=0.01)
    del followed
    gc.collect()
    (docs / "new.txt").write_text("Gauss lived in Brunswick.")
    with realm.load(model, library=library) as opened:
        deadline = time.monotonic() + 20
        while "new.txt" not in {info.id for info in opened.documents()}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    watcher.close()
    gc.collect()
    assert kept() is None


def test_blanks_are_filled_from_documents_where_there_is_an_encoder(
    opened: "Realm",
    model: Path,
    tokenizer: Any,
    make_towers: Make,
    make_encoder: Make,
    documents: list[Document],
    tmp_path: Path,
) -> None:
    from realm.checkpoint.checkpoints import save_checkpoint
    from realm.checkpoint.parts import Model

    with pytest.raises(NoEncoderError, match="encoder=RUN"):
        opened.explain("Fermat was born in [MASK].")
    parts = Model(tokenizer=tokenizer, towers=make_towers(seed=3), encoder=make_encoder())
    settings = {"query_wordpieces": 32, "passage_wordpieces": 64, "joint_wordpieces": 96}
    save_checkpoint(tmp_path / "pretrained", parts, settings=settings, inputs={})
    with realm.load(model, encoder=tmp_path / "pretrained") as filling:
        assert filling.can_explain
        with pytest.raises(AnsweringError, match="add documents first"):
            filling.explain("Fermat was born in [MASK].")
        filling.add_documents(documents[0])
        found = filling.explain("Fermat was born in [MASK].", answer="toulouse")
        assert len(found.candidates) == 4  # null, and the three passages that there are
        assert found.candidates[0].passage is None
        assert sum(one.p_passage for one in found.candidates) == pytest.approx(1.0)
        before = weakref.ref(filling.view().answerer)
        filling.add_documents(documents)
        filling.answer(QUESTION)
        gc.collect()
        assert before() is None  # nobody keeps the documents as they were
        assert len(filling.explain("Fermat was born in [MASK].").candidates) == 8
        html = filling.explain("<i> [MASK]")._repr_html_()
        assert "&lt;i&gt; [MASK]" in html
        assert "<i>" not in html


def test_an_encoder_of_another_vocabulary_is_refused(
    model: Path, make_towers: Make, make_encoder: Make, tokenizer: Any, tmp_path: Path
) -> None:
    from realm.checkpoint.checkpoints import save_checkpoint
    from realm.checkpoint.parts import Model
    from realm.tokenizer import WordpieceTokenizer

    words = tokenizer.vocabulary()
    other = WordpieceTokenizer.from_vocabulary([*words[:-1], "zebra"])
    parts = Model(tokenizer=other, towers=make_towers(), encoder=make_encoder())
    save_checkpoint(tmp_path / "other", parts, settings={}, inputs={})
    with pytest.raises(ConfigError, match="another vocabulary"):
        realm.load(model, encoder=tmp_path / "other")


def test_who_does_not_close_it_leaves_nothing_behind(model: Path) -> None:
    opened = realm.load(model)
    folder = opened.library_folder
    assert folder is not None
    assert folder.is_dir()
    del opened
    gc.collect()
    assert not folder.exists()


def test_the_model_that_ships_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_packed: Make, documents: list[Document]
) -> None:
    make_packed(name="realm-mini")
    monkeypatch.setattr(mini, "HERE", tmp_path)
    with realm.load() as opened:
        assert opened.model_name == "realm-mini"
        changed = replace(documents[0], text="Fermat lived in Paris.")
        opened.add_documents([documents[0], changed])
        assert opened.answer(QUESTION, min_probability=0.0).answers[0].place.document == "p0"
        assert opened.lengths.question == 64
