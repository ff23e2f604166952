"""A writer that dies before any of its calls to the file system loses nothing it had told of."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from realm.library import compaction
from realm.library.head import HEAD, read_head
from realm.library.indexing import Indexer
from realm.library.library import SEGMENTS, Library
from realm.records import Document

KilledAfter = Callable[[int, Callable[[], object]], bool]
Look = Callable[..., None]


@pytest.fixture
def start(library: Library, indexer: Indexer, documents: list[Document]) -> Path:
    """A library of two documents."""
    library.add(documents[:2], indexer)
    return library.folder


def killed_everywhere(
    killed_after: KilledAfter,
    start: Path,
    action: Callable[[Library], object],
    look: Look,
    *,
    step: int = 1,
) -> int:
    """Kill an action before each of its calls in turn; look what is there after each.

    Args:
        killed_after: runs it in a child.
        start: the library as it is before.
        action: what is done with it.
        look: called with the library as the next process opens it, and whether the action had
            returned before the kill.
        step: every call is tried with 1.

    Returns:
        How often it was killed.
    """
    for number in count(0, step):
        folder, told = start.with_name(f"copy-{number}"), start.with_name(f"told-{number}")
        shutil.copytree(start, folder)
        library = Library(folder)

        def act(library: Library = library, told: Path = told) -> None:
            action(library)
            told.touch()

        was_killed = killed_after(number, act)
        look(Library(folder), was_told=told.exists())
        shutil.rmtree(folder)
        if not was_killed:
            return number // step
    raise AssertionError


def check_usable(library: Library, indexer: Indexer) -> None:
    """Add one more document: it can be found, and nothing is left over."""
    library.add(Document(id="later", text="Abel lived in Oslo."), indexer)
    edition = Library(library.folder).current()
    assert "Abel lived in Oslo." in {p.text for p in edition.passages(indexer.tokenizer)}
    named = {state.name for state in read_head(library.folder).segments}
    assert {path.name for path in (library.folder / SEGMENTS).iterdir()} == named


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_adding_and_replacing(
    killed_after: KilledAfter, start: Path, indexer: Indexer, documents: list[Document], step: int
) -> None:
    changed = replace(documents[0], text="Fermat lived in Paris.")
    before = {d.id: d.text for d in documents[:2]}
    after = {**before, "p0": changed.text, "p2": documents[2].text}

    def look(library: Library, *, was_told: bool) -> None:
        edition = library.current()
        found = {name: edition.document(name).text for name in edition.held}
        assert found == after if was_told else found in (before, after)
        check_usable(library, indexer)

    kills = killed_everywhere(
        killed_after,
        start,
        lambda library: library.add([changed, documents[2]], indexer),
        look,
        step=step,
    )
    assert kills > 4


def test_killed_while_removing(killed_after: KilledAfter, start: Path, indexer: Indexer) -> None:
    def look(library: Library, *, was_told: bool) -> None:
        found = list(library.current().held)
        assert found == ["p1"] if was_told else found in (["p0", "p1"], ["p1"])
        check_usable(library, indexer)

    kills = killed_everywhere(killed_after, start, lambda library: library.remove("p0"), look)
    assert kills > 4


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_joining_segments(
    killed_after: KilledAfter,
    start: Path,
    indexer: Indexer,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    monkeypatch.setattr(compaction, "FACTOR", 2)

    def look(library: Library, *, was_told: bool) -> None:
        found = list(library.current().held)
        assert found == ["p0", "p1", "p2"] if was_told else found[:2] == ["p0", "p1"]
        if was_told:
            assert len(library.current().segments) == 1
        check_usable(library, indexer)

    kills = killed_everywhere(
        killed_after, start, lambda library: library.add(documents[2], indexer), look, step=step
    )
    assert kills > 4


def test_killed_while_it_is_made(
    killed_after: KilledAfter, indexer: Indexer, tmp_path: Path
) -> None:
    for number in count():
        folder = tmp_path / f"new-{number}"
        was_killed = killed_after(number, lambda folder=folder: Library.create(folder, indexer))
        check_usable(Library.create(folder, indexer), indexer)
        if not was_killed:
            break
    assert number > 5


def test_killed_while_made_over_for_another_model(
    killed_after: KilledAfter,
    start: Path,
    indexer: Indexer,
    make_packed: Callable[..., Path],
) -> None:
    from realm.fine_tuned import FineTuned

    other = Indexer(FineTuned.load(make_packed(seed=5, name="other")))

    def look(library: Library, *, was_told: bool) -> None:
        made_with = library.current().head.made_with
        assert made_with == other.made_with if was_told else True
        assert list(library.current().held) == ["p0", "p1"]
        check_usable(library, other if made_with == other.made_with else indexer)

    assert killed_everywhere(killed_after, start, lambda one: one.reindex(other), look, step=9) > 2


def test_a_disk_that_cannot_be_written_leaves_the_library_as_it_was(
    library: Library,
    indexer: Indexer,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from realm.errors import ArtifactError
    from realm.library import head

    library.add(documents[0], indexer)
    content = (library.folder / HEAD).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(head, "write_json", full)
        for change in (
            lambda: library.add(documents[1], indexer),
            lambda: library.remove("p0"),
        ):
            with pytest.raises(ArtifactError, match=r"No space left on device; nothing was"):
                change()
    assert (library.folder / HEAD).read_bytes() == content
    assert list(library.current().held) == ["p0"]
    check_usable(library, indexer)
