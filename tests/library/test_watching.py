"""A watched folder's files are documents; nobody's half-written file is one."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from realm.errors import ArtifactError, CorpusError, RealmError, WithheldError
from realm.library import folder_note, watched_folder
from realm.library.indexing import Indexer
from realm.library.library import Library
from realm.library.watched_folder import WatchedFolder
from realm.library.watching import FolderWatcher
from realm.records import Changes, Document
from realm.storage import is_locked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, one of them deeper."""
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("# Town\n\nFermat lived in Toulouse.")
    (folder / "deep" / "b.txt").write_text("Euler lived in Basel.")
    return folder


@pytest.fixture
def watcher(library: Library, indexer: Indexer, folder: Path) -> FolderWatcher:
    """One that has read the folder and looks only when it is told to."""
    watcher = FolderWatcher(library, indexer, folder)
    watcher.folder.sync()
    return watcher


def held(library: Library) -> dict[str, str]:
    edition = library.current()
    return {name: edition.document(name).text for name in edition.held}


def settle(watcher: FolderWatcher) -> list[Changes]:
    """Look until nothing changes any more; return what did."""
    return [changes for _ in range(3) if (changes := watcher.look())]


def test_files_come_change_and_go(watcher: FolderWatcher, library: Library, folder: Path) -> None:
    assert list(held(library)) == ["a.md", "deep/b.txt"]
    assert watcher.look() is None
    (folder / "a.md").write_text("Fermat lived in Paris.")
    (folder / "c.jsonl").write_text(json.dumps({"text": "Gauss lived."}) + "\n")
    (folder / "deep" / "b.txt").unlink()
    changes = settle(watcher)
    assert [c.replaced for c in changes if c.replaced] == [("a.md",)]
    assert [c.added for c in changes if c.added] == [("c.jsonl",)]
    assert [c.removed for c in changes if c.removed] == [("deep/b.txt",)]
    assert held(library)["a.md"] == "Fermat lived in Paris."
    assert list(held(library)) == ["a.md", "c.jsonl"]
    assert watcher.look() is None


def test_a_file_that_is_being_written_is_read_when_it_stands_still(
    watcher: FolderWatcher, library: Library, folder: Path
) -> None:
    with (folder / "long.txt").open("w") as stream:
        for part in ("Gauss lived", " in Brunswick", " for years."):
            stream.write(part)
            stream.flush()
            watcher.look()
            assert "long.txt" not in held(library)
    watcher.look()
    assert held(library)["long.txt"] == "Gauss lived in Brunswick for years."


def test_a_file_that_is_away_for_one_look_stays(
    watcher: FolderWatcher, library: Library, folder: Path
) -> None:
    aside = folder / ".a.md.swap"  # as editors do when they save
    (folder / "a.md").rename(aside)
    watcher.look()
    assert "a.md" in held(library)
    aside.rename(folder / "a.md")
    assert not settle(watcher)
    (folder / "a.md").unlink()
    watcher.look()
    assert [c.removed for c in settle(watcher)] == [("a.md",)]


def test_what_is_no_text_is_counted_and_goes(
    watcher: FolderWatcher, library: Library, folder: Path
) -> None:
    (folder / "a.md").write_bytes(b"\xff\xfe broken")
    (folder / "zero.txt").write_bytes(b"a\0b")
    (folder / "photo.jpg").write_bytes(b"x")
    (folder / "lines.jsonl").write_bytes(b'{"text": "Abel lived."}\n\xff\n{"text": "Gauss."}\n')
    (folder / "new\nline.txt").write_text("Cantor lived.")
    (changes,) = settle(watcher)
    assert changes.skipped.counts == {
        "invalid UTF-8": 2,
        "no text (holds zero bytes)": 1,
        "not a .txt, .md or .jsonl file": 1,
        "cannot be read": 1,
    }
    assert changes.removed == ("a.md",)
    assert list(held(library)) == ["deep/b.txt", "lines.jsonl"]
    passages = library.current().passages(watcher.folder.indexer.tokenizer)
    assert [str(library.current().place(p, p.start)) for p in passages] == [
        "deep/b.txt:1",
        "lines.jsonl:1",
        "lines.jsonl:3",
    ]
    (folder / "deep" / "b.txt").write_text(" \n")
    (blank,) = settle(watcher)
    assert blank.removed == ("deep/b.txt",)
    assert blank.skipped.counts["no text"] == 1


def test_a_file_that_is_withheld_stays_and_is_tried_again(
    watcher: FolderWatcher, library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mended permissions change nothing that a look sees."""
    (folder / "a.md").write_text("Fermat lived in Paris.")

    def withheld(path: Path) -> Iterator[bytes]:
        if path.name != "a.md":
            yield path.read_bytes()
        raise WithheldError(f"{path}: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("realm.corpus.whole_files.read_blocks", withheld)
        assert not any(settle(watcher))
        assert held(library)["a.md"] == "# Town\n\nFermat lived in Toulouse."
    settle(watcher)
    assert held(library)["a.md"] == "Fermat lived in Paris."


@pytest.mark.parametrize("place", ["", "deep"])
def test_a_folder_that_cannot_be_listed_takes_nothing_along(
    place: str,
    watcher: FolderWatcher,
    library: Library,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "a.md").unlink()
    scan = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == folder / place:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        for _ in range(4):
            with nullcontext() if place else pytest.raises(WithheldError, match="cannot read"):
                watcher.look()
        assert list(held(library)) == (["deep/b.txt"] if place else ["a.md", "deep/b.txt"])
    settle(watcher)
    assert list(held(library)) == ["deep/b.txt"]
    assert watcher.folder.is_as_read(watcher.folder.look())


@pytest.mark.usefixtures("watcher")
def test_other_documents_stay_and_what_went_meanwhile_goes(
    library: Library, indexer: Indexer, folder: Path
) -> None:
    library.add(Document(id="own.txt", text="Noether lived."), indexer)
    (folder / "a.md").unlink()  # while nobody watches
    again = WatchedFolder(Library(library.folder), indexer, folder)
    assert again.sync().removed == ("a.md",)
    assert list(held(library)) == ["deep/b.txt", "own.txt"]


def test_a_file_that_is_no_text_takes_no_document_that_was_added_otherwise(
    watcher: FolderWatcher, library: Library, indexer: Indexer, folder: Path
) -> None:
    library.add(Document(id="own.txt", text="Noether lived in Erlangen."), indexer)
    (folder / "own.txt").write_bytes(b"a\0b")
    settle(watcher)
    WatchedFolder(Library(library.folder), indexer, folder).sync()  # the program starts again
    assert held(library)["own.txt"] == "Noether lived in Erlangen."
    (folder / "own.txt").unlink()
    settle(watcher)
    assert held(library)["own.txt"] == "Noether lived in Erlangen."
    (folder / "own.txt").write_text("Noether lived in Goettingen.")
    settle(watcher)
    assert held(library)["own.txt"] == "Noether lived in Goettingen."
    (folder / "own.txt").write_bytes(b"a\0b")
    settle(watcher)
    assert list(held(library)) == ["a.md", "deep/b.txt"]


def test_what_could_not_be_done_is_done_later(
    watcher: FolderWatcher,
    library: Library,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "a.md").write_text("Fermat lived in Paris.")
    watcher.look()

    def full(*_: object, **__: object) -> Changes:
        raise ArtifactError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(library, "add", full)
        with pytest.raises(ArtifactError):
            watcher.look()
    settle(watcher)
    assert held(library)["a.md"] == "Fermat lived in Paris."


def test_a_removal_that_could_not_be_done_is_done_later(
    watcher: FolderWatcher, library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.md").unlink()
    (folder / "deep" / "b.txt").write_bytes(b"a\0b")  # no text any more

    def full(*_: object, **__: object) -> Changes:
        raise ArtifactError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(library, "remove", full)
        for look in range(4):
            with pytest.raises(ArtifactError) if look else nullcontext():
                watcher.look()
    assert list(held(library)) == ["a.md", "deep/b.txt"]
    assert [c.removed for c in settle(watcher)] == [("a.md", "deep/b.txt")]
    assert watcher.look() is None


STATES: dict[str, tuple[str, ...]] = {"": ("a.md", "deep/b.txt"), "deep/b.txt": ("deep/b.txt",)}


@pytest.mark.parametrize("place", STATES)
def test_what_the_system_does_not_show_takes_nothing_along(
    place: str,
    watcher: FolderWatcher,
    library: Library,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk in the network that is away, or a folder that may be listed and not entered."""
    (folder / "a.md").unlink()
    look = os.stat

    def away(path: Path, **how: bool) -> os.stat_result:
        if str(path) == str(folder / place):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(path))
        return look(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", away)
        patch.setattr(Path, "stat", lambda path, **how: away(path, **how))
        for _ in range(4):
            with nullcontext() if place else pytest.raises(WithheldError, match="not connected"):
                watcher.look()
        assert tuple(held(library)) == STATES[place]
    settle(watcher)
    assert list(held(library)) == ["deep/b.txt"]
    assert watcher.look() is None


def test_a_watcher_outlives_what_the_system_says(
    library: Library, indexer: Indexer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[RealmError] = []
    with FolderWatcher(
        library, indexer, folder, every_seconds=0.01, on_error=errors.append
    ) as watcher:

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(watched_folder, "find_files", fail)
            wait_for(lambda: bool(errors))
        assert str(errors[0]).startswith(f"cannot read {folder}: Input/output error; mend")
        wait_for(lambda: watcher.error is None)
        (folder / "c.txt").write_text("Gauss lived.")
        wait_for(lambda: "c.txt" in held(library))


class PanicException(BaseException):
    """What Python code gets of a panic in tokenizers: no Exception."""


def test_a_watcher_outlives_a_panic(
    library: Library, indexer: Indexer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[RealmError] = []
    with FolderWatcher(
        library, indexer, folder, every_seconds=0.01, on_error=errors.append
    ) as watcher:

        def panic(*_: object, **__: object) -> None:
            raise PanicException("index out of bounds")

        with monkeypatch.context() as patch:
            patch.setattr(indexer, "cut", panic)
            (folder / "c.txt").write_text("Gauss lived.")
            wait_for(lambda: bool(errors))
        assert str(errors[0]) == f"cannot follow {folder}: PanicException: index out of bounds"
        wait_for(lambda: "c.txt" in held(library))
        assert watcher._thread.is_alive()


def test_a_watcher_outlives_whoever_listens_to_it(
    library: Library, indexer: Indexer, folder: Path
) -> None:
    told: list[Changes | RealmError] = []

    def fail(what: Changes | RealmError) -> None:
        told.append(what)
        if len(told) > 1:  # the first is what `start` has read
            raise ZeroDivisionError("a fault of the caller's")

    with FolderWatcher(library, indexer, folder, every_seconds=0.01, on_change=fail, on_error=fail):
        (folder / "c.txt").write_text("Gauss lived.")
        wait_for(lambda: "c.txt" in held(library))
        (folder / "d.txt").write_text("Abel lived.")
        wait_for(lambda: "d.txt" in held(library))
    errors = [str(one) for one in told if isinstance(one, RealmError)]
    assert errors[0] == f"cannot follow {folder}: ZeroDivisionError: a fault of the caller's"


def test_a_name_of_two_folders_stays_with_the_first_until_its_file_is_gone(
    watcher: FolderWatcher, library: Library, indexer: Indexer, folder: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "a.md").write_text("Gauss lived in Brunswick.")
    (second / "own.txt").write_text("Abel lived in Oslo.")
    other = FolderWatcher(library, indexer, second)
    changes = other.folder.sync()
    assert changes.added == ("own.txt",)
    assert changes.skipped.examples == {"name of a file in another watched folder": ["a.md:1"]}
    assert held(library)["a.md"] == "# Town\n\nFermat lived in Toulouse."
    folder.rename(tmp_path / "away")  # the library keeps what it has of it
    assert not settle(other)
    (tmp_path / "away").rename(folder)
    (second / "a.md").unlink()
    settle(other)
    assert "a.md" in held(library)
    (second / "a.md").write_text("Gauss lived in Brunswick.")
    settle(other)
    (folder / "a.md").unlink()
    settle(watcher)
    settle(other)
    assert held(library)["a.md"] == "Gauss lived in Brunswick."
    assert not settle(watcher)
    (folder / "a.md").write_text("# Town\n\nFermat lived in Toulouse.")
    settle(watcher)
    assert held(library)["a.md"] == "Gauss lived in Brunswick."


def test_two_programs_that_start_on_one_folder_note_what_both_have_read(
    library: Library, indexer: Indexer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = WatchedFolder(library, indexer, folder)
    other = WatchedFolder(Library(library.folder), indexer, folder)
    write, find = folder_note.write_json, watched_folder.find_files

    def write_alone(path: Path, told: dict[str, object]) -> None:
        assert is_locked(library.folder / "library")
        write(path, told)

    def find_meanwhile(*told: Any, **more: Any) -> list[watched_folder.TextFile]:
        found = find(*told, **more)
        monkeypatch.setattr(watched_folder, "find_files", find)
        (folder / "c.txt").write_text("Gauss lived.")
        other.sync()
        return found

    monkeypatch.setattr(folder_note, "write_json", write_alone)
    monkeypatch.setattr(watched_folder, "find_files", find_meanwhile)
    one.sync()
    assert list(held(library)) == ["a.md", "c.txt", "deep/b.txt"]
    (folder / "c.txt").unlink()
    one.sync()
    assert list(held(library)) == ["a.md", "deep/b.txt"]


def test_what_another_program_saw_go_while_it_was_embedded_goes(
    watcher: FolderWatcher,
    library: Library,
    indexer: Indexer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = WatchedFolder(Library(library.folder), indexer, folder)
    embed = indexer.content

    def gone_meanwhile(*told: Any, **more: Any) -> Any:
        monkeypatch.setattr(indexer, "content", embed)
        (folder / "c.txt").unlink()
        other.sync()
        return embed(*told, **more)

    (folder / "c.txt").write_text("Gauss lived.")
    monkeypatch.setattr(indexer, "content", gone_meanwhile)
    watcher.folder.sync()
    assert "c.txt" in held(library)
    settle(watcher)
    assert list(held(library)) == ["a.md", "deep/b.txt"]


def test_two_programs_that_see_a_file_go_at_once_agree(
    watcher: FolderWatcher, library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = library.remove

    def gone_meanwhile(ids: list[str], **more: Any) -> Changes:
        monkeypatch.setattr(library, "remove", remove)
        Library(library.folder).remove("a.md")
        return remove(ids, **more)

    for name in ("a.md", "deep/b.txt"):
        (folder / name).unlink()
    watcher.look()
    monkeypatch.setattr(library, "remove", gone_meanwhile)
    assert [changes.removed for changes in settle(watcher)] == [("deep/b.txt",)]
    assert held(library) == {}
    assert watcher.look() is None


def test_what_came_back_while_others_were_embedded_stays(
    watcher: FolderWatcher,
    library: Library,
    indexer: Indexer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program has read it, and will not look at it again."""
    one = WatchedFolder(Library(library.folder), indexer, folder)
    embed = indexer.content

    def back_meanwhile(*told: Any, **more: Any) -> Any:
        monkeypatch.setattr(indexer, "content", embed)
        (folder / "a.md").write_text("Fermat lived in Paris.")
        settle(watcher)
        return embed(*told, **more)

    (folder / "a.md").unlink()
    (folder / "c.txt").write_text("Gauss lived.")
    monkeypatch.setattr(indexer, "content", back_meanwhile)
    assert one.sync().removed == ()
    settle(watcher)
    assert held(library)["a.md"] == "Fermat lived in Paris."
    (folder / "a.md").unlink()
    assert one.sync().removed == ("a.md",)


def test_a_folder_that_is_away_takes_nothing_along(
    library: Library, indexer: Indexer, folder: Path
) -> None:
    told: list[Changes] = []
    errors: list[RealmError] = []
    with FolderWatcher(
        library,
        indexer,
        folder,
        every_seconds=0.01,
        on_change=told.append,
        on_error=errors.append,
    ) as watcher:
        assert [c.added for c in told] == [("a.md", "deep/b.txt")]
        folder.rename(folder.with_name("away"))
        wait_for(lambda: bool(errors))
        assert isinstance(watcher.error, CorpusError)
        assert list(held(library)) == ["a.md", "deep/b.txt"]
        folder.with_name("away").rename(folder)
        (folder / "deep" / "b.txt").write_text("Euler lived in Paris.")
        wait_for(lambda: held(library)["deep/b.txt"] == "Euler lived in Paris.")
        wait_for(lambda: watcher.error is None)
    assert len(errors) == 1
    assert told[-1].replaced == ("deep/b.txt",)
    with pytest.raises(CorpusError, match="found no"):
        FolderWatcher(library, indexer, folder / "none").start()


def test_a_watcher_that_is_closed_does_not_embed_to_the_end(
    library: Library, indexer: Indexer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.library.adding.GROUP_PASSAGES", 1)
    embed, cut = indexer.content, threading.Event()
    told: list[Changes | RealmError] = []
    watcher = FolderWatcher(
        library, indexer, folder, every_seconds=0.01, on_change=told.append, on_error=told.append
    )

    def embed_first(*documents: Any, **more: Any) -> Any:
        made = embed(*documents, **more)
        cut.set()
        watcher._stopped.wait(20)
        return made

    with watcher:
        monkeypatch.setattr(indexer, "content", embed_first)
        for name in ("c.txt", "d.txt", "e.txt"):
            (folder / name).write_text(f"{name} lived.")
        assert cut.wait(20)
    assert len(told) == 1  # of the start
    assert len(held(library)) == 3  # the first of them is whole
    monkeypatch.setattr(indexer, "content", embed)
    WatchedFolder(library, indexer, folder).sync()
    assert len(held(library)) == 5


@pytest.mark.parametrize("change", ["new", "other", "gone"])
@pytest.mark.parametrize("who", ["process", "thread"])
def test_a_watcher_that_is_closed_does_not_wait_for_another_writer(
    who: str, change: str, library: Library, indexer: Indexer, folder: Path
) -> None:
    """Who makes the library over for another model keeps it for minutes."""
    holding, done = threading.Event(), threading.Event()
    writer = library if who == "thread" else Library(library.folder)

    def hold() -> None:
        with writer.alone():
            holding.set()
            done.wait(20)

    other = threading.Thread(target=hold)
    with FolderWatcher(library, indexer, folder, every_seconds=0.01) as watcher:
        other.start()
        assert holding.wait(20)
        if change == "gone":
            (folder / "a.md").unlink()
        else:
            (folder / ("c.txt" if change == "new" else "a.md")).write_text("Gauss lived.")
        wait_for(lambda: watcher.folder._is_behind)
        time.sleep(0.3)
        began = time.monotonic()
        watcher.close()
        assert time.monotonic() - began < 10
    assert not watcher._thread.is_alive()
    done.set()
    other.join()
    WatchedFolder(library, indexer, folder).sync()
    assert ("a.md" in held(library)) == (change != "gone")


def test_a_file_that_changes_while_it_is_read_waits(
    watcher: FolderWatcher, library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = watched_folder.read_document
    (folder / "a.md").write_text("half")
    watcher.look()

    def changing(file: watched_folder.TextFile, *told: object) -> Document | None:
        found = read(file, *told)  # type: ignore[arg-type]
        file.path.write_text("Fermat lived in Paris, of course.")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(watched_folder, "read_document", changing)
        watcher.look()
    assert held(library)["a.md"].startswith("# Town")
    settle(watcher)
    assert held(library)["a.md"] == "Fermat lived in Paris, of course."


def wait_for(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
