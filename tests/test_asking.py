"""A folder is asked in one call, kept for the next one, and read again where it changed."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import realm.index.builder
from realm import asking, keeping, mini
from realm.asking import FolderAnswerer, ask_folder, placed_as_json
from realm.corpus.folder import split_files
from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.index.snapshot import Snapshot
from realm.storage import MANIFEST, locked, scratch_folder, write_json

Make = Callable[..., Any]
QUESTION = "where was fermat born"


@pytest.fixture
def docs(tmp_path: Path, articles: list[dict[str, str]]) -> Path:
    """The small world as a folder of files, a sentence a line."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for article in articles[:5]:
        text = article["text"].replace(". ", ".\n")
        (folder / f"{article['id']}.md").write_text(f"# {article['title']}\n\n{text}\n")
    lines = "".join(json.dumps(article) + "\n" for article in articles[5:])
    (folder / "more.jsonl").write_text(lines)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def model(make_packed: Make) -> Path:
    return make_packed()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is computed, as it is computed: passages, and embeddings by their number."""
    told: list[str] = []
    build = keeping.build_index

    def splitting(*arguments: Any, **named: Any) -> Any:
        told.append("passages")
        return split_files(*arguments, **named)

    def building(*arguments: Any, **named: Any) -> Any:
        told.append("index")
        return build(*arguments, **named)

    monkeypatch.setattr(keeping, "split_files", splitting)
    monkeypatch.setattr(keeping, "build_index", building)
    return told


def kept(cache: Path) -> list[str]:
    """Return what a cache holds for its one folder, by kind; a killed process leaves its locks."""
    (room,) = (cache / "folders").iterdir()
    return sorted(path.name.partition("-")[0] for path in room.iterdir() if path.is_dir())


def test_an_answer_stands_in_its_file_and_line(docs: Path, model: Path, cache: Path) -> None:
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    (answered,) = answerer.answer([QUESTION], num_passages=8, num_answers=30)
    assert len(answered.answers) == 30
    for answer in answered.answers:
        place = answerer.place(answer)
        text = (docs / place.file).read_text()
        if place.file.endswith(".md"):
            assert text[answer.start : answer.end] == answer.text
            assert answer.passage.article_id == place.file
            assert place.line == text.count("\n", 0, answer.start) + 1
        else:
            assert answer.text in json.loads(text.splitlines()[place.line - 1])["text"]


def test_ask_folder_is_one_call(docs: Path, model: Path, cache: Path) -> None:
    found = ask_folder(QUESTION, docs, model=model, cache=cache, num_answers=4)
    assert len(found) == 4
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    (answered,) = answerer.answer([QUESTION], num_answers=4)
    assert found == [(answer, answerer.place(answer)) for answer in answered.answers]


def test_the_second_call_computes_nothing_and_answers_the_same(
    docs: Path, model: Path, cache: Path, made: list[str]
) -> None:
    progress: list[tuple[int, int]] = []
    first = FolderAnswerer.open(
        docs, model=model, cache=cache, embedding=lambda *told: progress.append(told)
    )
    assert made == ["passages", "index"]
    assert progress[-1][0] == progress[-1][1] == len(first.answerer.store)
    made.clear()
    second = FolderAnswerer.open(docs, model=model, cache=cache)
    assert made == []
    assert second.answer([QUESTION]) == first.answer([QUESTION])


def test_passages_are_cut_as_the_model_says(docs: Path, model: Path, cache: Path) -> None:
    store = FolderAnswerer.open(docs, model=model, cache=cache).answerer.store
    assert store.config.max_wordpieces == 40
    assert int(store.lengths().max()) <= 40


def test_a_changed_file_is_read_and_what_was_kept_before_is_removed(
    docs: Path, model: Path, cache: Path, made: list[str]
) -> None:
    FolderAnswerer.open(docs, model=model, cache=cache)
    (docs / "p0.md").write_text("Fermat lived in Paris.")
    made.clear()
    found = FolderAnswerer.open(docs, model=model, cache=cache).answerer.store
    assert made == ["passages", "index"]
    assert "Fermat lived in Paris." in {passage.text for passage in found}
    assert kept(cache) == ["index", "passages"]


def test_passages_that_stay_are_not_embedded_again(
    docs: Path, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = FolderAnswerer.open(docs, model=model, cache=cache).answerer
    vectors = {p.sha256: before.dense.snapshot.exact[torch.tensor(p.row)] for p in before.store}
    (docs / "p0.md").write_text("Fermat lived in Paris.")
    (docs / "a.txt").write_text("Euler lived in Basel.")  # moves all rows
    embedded: list[int] = []
    embed_sequences = realm.index.builder.embed_sequences

    def counted(tower: Any, lengths: Any, *told: Any, **named: Any) -> Any:
        embedded.extend(lengths)
        return embed_sequences(tower, lengths, *told, **named)

    monkeypatch.setattr("realm.index.builder.embed_sequences", counted)
    after = FolderAnswerer.open(docs, model=model, cache=cache).answerer
    fresh = [passage for passage in after.store if passage.sha256 not in vectors]
    assert {passage.text for passage in fresh} == {
        "Fermat lived in Paris.",
        "Euler lived in Basel.",
    }
    assert len(embedded) == len(fresh)
    for passage in after.store:
        found = after.dense.snapshot.exact[torch.tensor(passage.row)]
        if passage.sha256 in vectors:
            assert torch.equal(found, vectors[passage.sha256])
        else:
            assert found.isfinite().all()
            assert found.norm() > 0.1


def test_a_touched_file_is_the_same_and_a_renamed_one_is_not(
    docs: Path, model: Path, cache: Path, made: list[str]
) -> None:
    FolderAnswerer.open(docs, model=model, cache=cache)
    os.utime(docs / "p0.md", (0, 0))
    made.clear()
    FolderAnswerer.open(docs, model=model, cache=cache)
    assert made == []
    (docs / "p0.md").rename(docs / "p00.md")
    FolderAnswerer.open(docs, model=model, cache=cache)
    assert made == ["passages", "index"]


def test_another_model_has_its_own_index_and_neither_is_lost(
    docs: Path, model: Path, cache: Path, make_packed: Make, made: list[str]
) -> None:
    other = make_packed(seed=5, name="other")
    for one in (model, other):
        FolderAnswerer.open(docs, model=one, cache=cache)
    made.clear()
    for one in (model, other):
        FolderAnswerer.open(docs, model=one, cache=cache)
    assert made == []


def test_a_second_folder_with_the_same_name_is_another(
    docs: Path, model: Path, cache: Path, tmp_path: Path, made: list[str]
) -> None:
    other = tmp_path / "elsewhere" / docs.name
    shutil.copytree(docs, other)
    for folder in (docs, other, docs, other):
        FolderAnswerer.open(folder, model=model, cache=cache)
    assert made == ["passages", "index"] * 2


@pytest.mark.parametrize("kind", ["passages", "index"])
def test_what_is_damaged_is_made_again(
    docs: Path, model: Path, cache: Path, made: list[str], kind: str
) -> None:
    FolderAnswerer.open(docs, model=model, cache=cache)
    (folder,) = (cache / "folders").glob(f"*/{kind}-*")
    for file in folder.iterdir():
        if file.name != MANIFEST:
            file.write_bytes(b"x")
    made.clear()
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    assert made == [kind]
    assert answerer.answer([QUESTION])[0].answers
    assert kept(cache) == ["index", "passages"]


def test_what_a_killed_call_left_of_earlier_files_goes_unless_somebody_is_at_it(
    docs: Path, model: Path, cache: Path
) -> None:
    FolderAnswerer.open(docs, model=model, cache=cache)
    (room,) = (cache / "folders").iterdir()
    left = scratch_folder(room / "index-0123")
    for folder in (left, room / "passages-4567"):
        folder.mkdir()
        write_json(folder / MANIFEST, {"kind": "index"})
    with locked(left / "shard-00000"), locked(room / "passages-4567"):
        FolderAnswerer.open(docs, model=model, cache=cache)
        assert left.is_dir()
        assert (room / "passages-4567").is_dir()
    FolderAnswerer.open(docs, model=model, cache=cache)
    assert kept(cache) == ["index", "passages"]


@pytest.mark.parametrize("num_events", [40, 90, 140, 200, 260, 320])
def test_after_a_kill_at_any_moment_the_next_call_answers(
    docs: Path,
    model: Path,
    cache: Path,
    killed_after: Callable[[int, Callable[[], object]], bool],
    num_events: int,
) -> None:
    killed_after(num_events, lambda: FolderAnswerer.open(docs, model=model, cache=cache))
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    assert answerer.answer([QUESTION])[0].answers
    assert kept(cache) == ["index", "passages"]


@pytest.mark.parametrize("place", ["load", "places"])
def test_what_another_process_removes_as_the_files_change_is_not_missed(
    place: str, docs: Path, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has asked the changed files, and removed what was kept of them before."""
    answerer = asking.Answerer

    def change_meanwhile() -> None:
        monkeypatch.undo()
        (docs / "more.jsonl").unlink()
        FolderAnswerer.open(docs, model=model, cache=cache)

    class Slow(answerer):
        @classmethod
        def load(cls, *told: Any, **more: Any) -> Any:
            if place == "load":
                change_meanwhile()
                return answerer.load(*told, **more)
            loaded = answerer.load(*told, **more)
            change_meanwhile()
            return loaded

    monkeypatch.setattr(asking, "Answerer", Slow)
    found = FolderAnswerer.open(docs, model=model, cache=cache)
    (answered,) = found.answer([QUESTION])
    assert found.place(answered.answers[0]).file != "more.jsonl"
    assert kept(cache) == ["index", "passages"]


def test_two_processes_at_once_share_the_work(
    docs: Path, model: Path, cache: Path, tmp_path: Path
) -> None:
    children: list[int] = []
    for number in range(2):
        child = os.fork()
        if not child:
            code = 1
            signal.alarm(60)  # a fork of a process with threads may hang: then it fails
            try:
                found = ask_folder(QUESTION, docs, model=model, cache=cache)
                (tmp_path / f"answer-{number}").write_text(repr(found))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [0, 0]
    answers = {(tmp_path / f"answer-{number}").read_text() for number in range(2)}
    assert answers == {repr(ask_folder(QUESTION, docs, model=model, cache=cache))}
    assert kept(cache) == ["index", "passages"]


def test_a_model_that_also_looks_at_words_keeps_their_index_and_only_the_newest(
    docs: Path, cache: Path, make_packed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_packed(name="hybrid", retriever="hybrid", lexical_weight=0.5)
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    assert answerer.answerer.retriever.name == "hybrid"
    (docs / "p0.md").write_text("Fermat lived in Paris.")
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    assert answerer.answer([QUESTION])[0].answers
    assert kept(cache) == ["bm25", "index", "passages"]
    (index,) = (cache / "folders").glob("*/bm25/*")
    monkeypatch.setattr(keeping, "open_lexical", lambda *_: pytest.fail("indexed words again"))
    assert FolderAnswerer.open(docs, model=model, cache=cache).answerer.store
    assert index.is_dir()


def test_what_was_left_out_is_told_when_it_is_read(docs: Path, model: Path, cache: Path) -> None:
    (docs / "photo.jpg").write_bytes(b"x")
    (docs / "empty.txt").write_text("")
    skipped = FolderAnswerer.open(docs, model=model, cache=cache).skipped
    assert skipped.counts == {"no text": 1, "not a .txt, .md or .jsonl file": 1}
    assert FolderAnswerer.open(docs, model=model, cache=cache).skipped.total == 0


def test_json_has_file_and_line(docs: Path, model: Path, cache: Path) -> None:
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    (answered,) = answerer.answer([QUESTION])
    told = json.loads(json.dumps(placed_as_json(answered, answerer)))
    for entry, answer in zip(told["answers"], answered.answers, strict=True):
        assert (entry["file"], entry["line"]) == answerer.place(answer)
        assert entry["text"] == answer.text
        assert entry["same_text"] == []


def test_the_same_text_in_other_files_has_file_and_line(
    docs: Path, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a copied file, and of a record of JSON lines that is a file, too."""
    monkeypatch.setattr("realm.reading.NUM_SPANS", 10_000)
    shutil.copytree(docs, docs / "old", ignore=shutil.ignore_patterns("*.jsonl"))
    record = json.loads((docs / "more.jsonl").read_text().splitlines()[1])
    (docs / "note.txt").write_text(record["text"])
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    (answered,) = answerer.answer([QUESTION], num_passages=99, num_answers=9_999)
    found: set[tuple[str, ...]] = set()
    for entry in placed_as_json(answered, answerer)["answers"]:
        places = [entry, *entry["same_text"]]
        for one in places[1:]:
            text = (docs / one["file"]).read_text()
            if one["file"].endswith(".jsonl"):
                assert one["line"] == 2
                text = record["text"]
            else:
                assert one["line"] == text.count("\n", 0, one["start"]) + 1
            assert text[one["start"] : one["end"]] == entry["text"]
        found.add(tuple(sorted(one["file"] for one in places if entry["same_text"])))
    copies = {(f"old/p{n}.md", f"p{n}.md") for n in range(5)}
    assert found == {(), ("more.jsonl", "note.txt"), *copies}


@pytest.fixture
def _ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_packed: Make) -> None:
    """Let a tiny model take the place of the one that ships."""
    make_packed(name="realm-mini")
    monkeypatch.setattr(mini, "HERE", tmp_path)
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_ships")
def test_without_a_model_the_one_that_ships_answers_and_the_cache_is_the_users(
    docs: Path, cache: Path
) -> None:
    assert ask_folder(QUESTION, docs)
    assert kept(cache) == ["index", "passages"]
    assert FolderAnswerer.open(docs).answerer.model_name == "realm-mini"


@pytest.mark.usefixtures("_ships")
def test_the_model_that_ships_answers_from_passages_too_and_its_folder_stays_as_it_is(
    docs: Path, cache: Path
) -> None:
    passages = FolderAnswerer.open(docs).answerer.store.folder
    before = sorted(path.name for path in mini.model_folder().iterdir())
    answerer = asking.Answerer.load(passages=passages)
    assert answerer.answer([QUESTION])[0].answers
    assert sorted(path.name for path in mini.model_folder().iterdir()) == before
    assert Snapshot.open(next((cache / "realm-mini" / "other-passages").iterdir()))


def test_without_a_model_at_all_it_says_what_to_do(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "HERE", tmp_path)
    with pytest.raises(ConfigError, match="found no weights of realm-mini"):
        ask_folder(QUESTION, docs)


def test_a_cache_that_cannot_be_written_is_told(docs: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot make"):
        FolderAnswerer.open(docs, model=model, cache=tmp_path / "file")


def test_an_empty_folder_is_told(model: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="found no text"):
        FolderAnswerer.open(tmp_path / "empty", model=model, cache=cache)
    assert not cache.exists()
