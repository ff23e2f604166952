"""Each call that reads fails in turn: it is told by name, no result is wrong, nothing is lost."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from realm.checkpoint.checkpoints import list_checkpoints, load_model
from realm.checkpoint.run_records import (
    METRICS,
    newest_metrics,
    read_held_out,
    read_metrics,
)
from realm.corpus.articles import read_articles
from realm.corpus.store import PassageStore
from realm.errors import CorpusError, RealmError, UnreadableError
from realm.evaluation.questions import read_questions
from realm.exchange.packing import pack_run
from realm.index.builder import EmbedderVersion
from realm.index.snapshot import Snapshot
from realm.library.library import Library
from realm.masking.store import ExampleStore
from realm.refresh.housekeeping import remove_unusable
from realm.reporting.about import snapshots_of
from realm.storage import MANIFEST, Request, publish, scratch_folder
from realm.training.runlog import RunLog
from tests.faults.forks import run_with
from tests.faults.layer import Layer
from tests.faults.pipeline import LIBRARY, STOPPED
from tests.faults.reads import fail_read, read_by
from tests.towns import Result, World

SAMPLE = {
    "split": 2,
    "mask": 2,
    "resume": 2,
    "pretrain": 1,
    "finetune": 1,
    "index": 2,
    "evaluate-bm25": 2,
    "pack": 3,
    "approximate": 2,
    "docs-add": 2,
    "docs-list": 3,
    "ask": 3,
    "ask-docs": 3,
    "ask-run": 3,
}
"""How many of a command's reads CI fails; -m slow fails all, of more commands."""
ALL = ("ict", "mlm", "evaluate", "export", "align", "report", "status")
"""The rest."""
SEED = 8
OPENERS: dict[str, tuple[Callable[[Path], object], type[RealmError]]] = {
    "passages": (PassageStore.open, UnreadableError),
    "examples": (ExampleStore.open, UnreadableError),
    "index": (Snapshot.open, UnreadableError),
    "ict": (load_model, RealmError),
    "packed": (load_model, RealmError),
    "pretrain": (read_held_out, UnreadableError),
    "questions.jsonl": (read_questions, CorpusError),
    "articles.jsonl": (lambda path: list(read_articles([path])), CorpusError),
    LIBRARY: (lambda path: Library(path).current(), UnreadableError),
}
"""What opens each in the library, and what it promises to raise."""


def called(what: Callable[[], object], raised: type[RealmError] = RealmError) -> Result:
    """Return 0, or 2 and what was raised."""
    try:
        what()
    except raised as error:
        return Result(2, "", str(error))
    return Result(0, "", "")


def run(
    world: World, what: Callable[[], object], raised: type[RealmError], **told: object
) -> Result:
    """Call something in a child whose reads fail."""
    layer = replace(Layer(root=str(world.folder), reads=True), **told)
    ended = run_with(layer, (), call=lambda: called(what, raised))
    return Result(ended.code, "\n".join(ended.calls), ended.err)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_read_that_fails_is_told_and_nothing_is_lost(
    name: str, made: World, tmp_path: Path
) -> None:
    reading = read_by(made, tmp_path)[name]
    calls, expected = reading.undisturbed()
    assert len(calls) > 30
    chance = random.Random(f"{SEED} {name}")  # noqa: S311
    for number in chance.sample(range(len(calls)), SAMPLE[name]):
        fail_read(reading, number, calls[number], expected)


@pytest.mark.slow
@pytest.mark.parametrize("lasts", [False, True])
@pytest.mark.parametrize("name", [*SAMPLE, *ALL])
def test_every_read_that_fails_is_told_and_nothing_is_lost(
    name: str, *, lasts: bool, made: World, tmp_path: Path
) -> None:
    reading = read_by(made, tmp_path)[name]
    calls, expected = reading.undisturbed()
    for number, call in enumerate(calls):
        fail_read(reading, number, call, expected, lasts=lasts)


@pytest.mark.parametrize("place", OPENERS)
def test_a_library_call_raises_an_error_of_ours(place: str, made: World) -> None:
    opener, raised = OPENERS[place]
    calls = run(made, lambda: opener(made / place), raised).out.splitlines()
    assert calls
    for number, call in enumerate(calls):
        ended = run(made, lambda: opener(made / place), raised, fail_at=number, code="EIO")
        assert ended.code == 2, call
        assert str(made / call.split(" ")[-1]) in ended.err


def test_a_model_that_is_packed_without_its_passages_manifest_is_told(
    made: World, tmp_path: Path
) -> None:
    """It was packed with other settings than its own, in silence."""
    wanted = f"open passages/{MANIFEST}"

    def pack() -> object:
        return pack_run(made / "qa", tmp_path / "packed")

    calls = run(made, pack, RealmError).out.splitlines()
    ended = run(
        made,
        lambda: pack_run(made / "qa", tmp_path / "again"),
        UnreadableError,
        fail_at=calls.index(wanted),
        code="EACCES",
    )
    assert ended.code == 2
    assert str(made / "passages" / MANIFEST) in ended.err


def test_what_a_stopped_writer_left_is_kept_when_its_request_cannot_be_read(
    tmp_path: Path,
) -> None:
    out, request = tmp_path / "out", Request(kind="passages")

    def write() -> None:
        with publish(out, request, resume=True) as scratch:
            (scratch / "shard").write_text("done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    ended = run(World(tmp_path), write, UnreadableError, fail_at=0, code="EIO")
    assert ended.code == 2
    assert (scratch_folder(out) / "shard").read_text() == "done"


def test_checkpoints_that_cannot_be_listed_are_not_taken_for_none(made: World) -> None:
    """Pathlib's own search finds none in a folder that may not be looked into."""
    ended = run(
        made, lambda: list_checkpoints(made / "ict"), UnreadableError, fail_at=0, code="EACCES"
    )
    assert ended.code == 2
    assert str(made / "ict" / "checkpoints") in ended.err


def test_a_folder_of_articles_that_cannot_be_listed_is_not_left_out(tmp_path: Path) -> None:
    inner = tmp_path / "world" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "a.txt").write_text("One article.")
    (inner / "b.txt").write_text("Another one.")
    world = World(inner.parent)

    def read() -> object:
        return list(read_articles([world.folder]))

    calls = run(world, read, CorpusError).out.splitlines()
    ended = run(world, read, CorpusError, fail_at=calls.index("os.scandir inner"), code="EACCES")
    assert ended.code == 2
    assert str(inner) in ended.err


def test_a_snapshot_that_cannot_be_read_is_not_removed_as_left_over(
    made: World, tmp_path: Path
) -> None:
    world = World(tmp_path / "world")
    folder = Path(shutil.copytree(made / "index", world / "index"))
    passages = PassageStore.open(made / "passages").fingerprint

    def remove() -> None:
        remove_unusable(folder, EmbedderVersion(model_hash="another"), passages)

    ended = run(world, remove, UnreadableError, fail_at=0, code="EIO")
    assert ended.code == 2
    assert str(folder) in ended.err
    assert Snapshot.open(folder, verify=True)
    assert run(world, remove, UnreadableError).code == 0
    assert not folder.exists()


@pytest.mark.parametrize("looked_at", [snapshots_of, read_metrics, newest_metrics])
def test_what_a_report_cannot_read_is_not_left_out(
    looked_at: Callable[[Path], object], made: World
) -> None:
    """A report had no snapshots and no curves, and the exit code 0."""
    calls = run(made, lambda: looked_at(made / "pretrain"), RealmError).out.splitlines()
    assert calls
    for number, call in enumerate(calls):
        ended = run(
            made,
            lambda: looked_at(made / "pretrain"),
            UnreadableError,
            fail_at=number,
            code="EIO",
        )
        assert ended.code == 2, call
        assert str(made / call.split(" ")[-1]) in ended.err


def test_a_log_that_cannot_be_read_is_told_and_stays(made: World, tmp_path: Path) -> None:
    """A run that went on lost all that it had logged, in silence."""
    run_folder = shutil.copytree(made / STOPPED, tmp_path / "run")
    before = (run_folder / METRICS).read_bytes()
    assert before
    layer = Layer(root=str(tmp_path), reads=True, code="EIO")

    def go_on() -> object:
        return RunLog(run_folder, resume_step=1_000)

    calls = run_with(layer, (), call=lambda: called(go_on)).calls
    assert calls
    for number in range(len(calls)):
        failing = replace(layer, fail_at=number)
        ended = run_with(failing, (), call=lambda: called(go_on, UnreadableError))
        assert ended.code == 2
        assert str(run_folder / METRICS) in ended.err
        assert (run_folder / METRICS).read_bytes() == before
