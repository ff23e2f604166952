"""A published folder is whole or absent, whatever happens while it is written."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.errors import ArtifactError, DamagedError, UnreadableError
from realm.storage import (
    EXTRA,
    MANIFEST,
    REQUEST,
    Request,
    check_files,
    checksums,
    claimed,
    files_below,
    fingerprint,
    fingerprint_of,
    finish_together,
    folders,
    is_being_filled,
    is_done,
    locked,
    open_folder,
    publish,
    read_json,
    remove,
    replaced_folder,
    scratch_folder,
    start_together,
    write_json,
)

KilledAfter = Callable[[int, Callable[[], object]], bool]
REQUESTED = Request(kind="index", settings={"dim": 4, "names": ("a", "b")}, inputs={"z": "ab" * 32})


def write_content(scratch: Path, *, log: list[str] | None = None) -> None:
    """Write two shards and a nested file, skipping what is finished."""
    for name in ("one.bin", "two.bin", "sub/three.bin"):
        path = scratch / name
        if path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(name.encode() * 100)
        partial.replace(path)
        if log is not None:
            log.append(name)
    write_json(scratch / EXTRA, {"rows": 3})


def make(folder: Path, *, resume: bool = False, request: Request = REQUESTED) -> None:
    with publish(folder, request, resume=resume) as scratch:
        write_content(scratch)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_published_folder_holds_the_content_and_a_manifest_that_says_what_made_it(
    tmp_path: Path,
) -> None:
    make(tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == [
        "manifest.json",
        "one.bin",
        "sub/three.bin",
        "two.bin",
    ]
    manifest = open_folder(tmp_path / "out", "index")
    assert manifest["kind"] == "index"
    assert manifest["settings"] == {"dim": 4, "names": ["a", "b"]}
    assert manifest["inputs"] == {"z": "ab" * 32}
    assert manifest["content"] == {"rows": 3}
    assert manifest["fingerprint"] == fingerprint(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_equal_content_has_an_equal_fingerprint_wherever_it_lies(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b" / "c")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b" / "c")


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_killed_at_any_point_leaves_a_whole_folder_or_none(
    *, resume: bool, tmp_path: Path, killed_after: KilledAfter
) -> None:
    """... and the next one publishes what an undisturbed one would have."""
    make(tmp_path / "undisturbed")
    expected = files_of(tmp_path / "undisturbed")
    for num_events in range(1_000):
        folder = tmp_path / f"out-{num_events}"
        was_killed = killed_after(num_events, lambda out=folder: make(out, resume=resume))
        if folder.exists():
            assert files_of(folder) == expected
        else:
            make(folder, resume=resume)
            assert files_of(folder) == expected
        if not was_killed:
            break
    assert 20 < num_events < 900


def test_removing_killed_at_any_point_leaves_a_whole_folder_or_none(
    tmp_path: Path, killed_after: KilledAfter
) -> None:
    make(tmp_path / "undisturbed")
    expected = files_of(tmp_path / "undisturbed")
    for num_events in range(1_000):
        folder = tmp_path / f"out-{num_events}"
        make(folder)
        was_killed = killed_after(num_events, lambda out=folder: remove(out))
        assert not folder.exists() or files_of(folder) == expected
        make(folder) if not folder.exists() else None
        remove(folder)  # what a killed removal left does not stand in the way
        assert not list(tmp_path.glob(f".out-{num_events}*"))
        if not was_killed:
            break
    assert 2 < num_events < 900


def test_every_file_is_on_disk_before_the_rename_and_the_rename_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that outlives a power cut may not name files that do not."""
    events = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(handle: int) -> None:
        events.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        real_fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        events.append(("rename", str(self)))
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    make(tmp_path / "out")
    scratch = scratch_folder(tmp_path / "out")
    renamed = events.index(("rename", str(scratch)))
    before = {path for kind, path in events[:renamed] if kind == "sync"}
    for name in ("one.bin", "two.bin", "sub/three.bin", "sub"):
        assert str(scratch / name) in before
    assert str(scratch) in before
    assert any(MANIFEST in path for path in before)
    assert ("sync", str(tmp_path)) in events[renamed:]


def test_published_folders_are_never_changed(tmp_path: Path) -> None:
    make(tmp_path / "out")
    before = files_of(tmp_path / "out")
    with pytest.raises(ArtifactError, match="never changed"):
        make(tmp_path / "out")
    assert files_of(tmp_path / "out") == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("place", ["content", "manifest", "fsync", "mkdir"])
def test_a_full_disk_publishes_nothing_and_touches_nothing_else(
    *, place: str, resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "old")
    before = files_of(tmp_path / "old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(ArtifactError, match=r"No space left.*nothing was published") as error,
        publish(tmp_path / "out", REQUESTED, resume=resume) as scratch,
    ):
        write_content(scratch)
        if place == "content":
            with Path("/dev/full").open("wb") as stream:
                stream.write(b"x" * 100_000)
        elif place == "manifest":
            monkeypatch.setattr(folders, "write_json", refuse)
        elif place == "fsync":
            monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.undo()
    assert "Free space" in str(error.value)
    assert not (tmp_path / "out").exists()
    assert files_of(tmp_path / "old") == before
    assert scratch_folder(tmp_path / "out").exists() == (resume and place != "mkdir")
    make(tmp_path / "out", resume=resume)
    assert files_of(tmp_path / "out") == before


def test_a_read_only_place_is_told_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ArtifactError, match=r"Permission denied.*mend the permissions"):
        make(tmp_path / "out")


def test_a_parent_that_is_a_file_is_told_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(ArtifactError, match="Not a directory"):
        make(tmp_path / "file" / "out")


def test_an_input_that_cannot_be_read_inside_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match="absent") as error,
        publish(tmp_path / "out", REQUESTED),
    ):
        (tmp_path / "absent").read_bytes()
    assert isinstance(error.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("resume", [False, True])
def test_other_errors_pass_through_and_publish_nothing(*, resume: bool, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), publish(tmp_path / "out", REQUESTED, resume=resume):
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()
    assert scratch_folder(tmp_path / "out").exists() == resume


def interrupted(folder: Path, request: Request = REQUESTED) -> None:
    """Leave a scratch folder with one finished shard."""
    with pytest.raises(KeyboardInterrupt), publish(folder, request, resume=True) as scratch:
        (scratch / "one.bin").write_bytes(b"one.bin" * 100)
        raise KeyboardInterrupt


def test_a_resumed_writer_goes_on_from_its_finished_shards(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    log = []
    with publish(tmp_path / "out", REQUESTED, resume=True) as scratch:
        write_content(scratch, log=log)
    assert log == ["two.bin", "sub/three.bin"]
    make(tmp_path / "fresh")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


@pytest.mark.parametrize(
    "other",
    [
        Request(kind="index", settings={"dim": 5, "names": ("a", "b")}, inputs=REQUESTED.inputs),
        Request(kind="index", settings=REQUESTED.settings, inputs={"z": "cd" * 32}),
        Request(kind="passages", settings=REQUESTED.settings, inputs=REQUESTED.inputs),
    ],
)
def test_a_writer_resumes_only_an_equal_request(other: Request, tmp_path: Path) -> None:
    interrupted(tmp_path / "out", other)
    with publish(tmp_path / "out", REQUESTED, resume=True) as scratch:
        assert [p.name for p in scratch.iterdir()] == [REQUEST]
        write_content(scratch)


def test_a_writer_that_does_not_resume_starts_afresh(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with publish(tmp_path / "out", REQUESTED) as scratch:
        assert [p.name for p in scratch.iterdir()] == [REQUEST]


def test_done_only_when_made_from_an_equal_request(tmp_path: Path) -> None:
    assert not is_done(tmp_path / "out", REQUESTED)
    make(tmp_path / "out")
    assert is_done(tmp_path / "out", REQUESTED)
    as_lists = Request(
        kind="index", settings={"names": ["a", "b"], "dim": 4}, inputs={"z": "ab" * 32}
    )
    assert is_done(tmp_path / "out", as_lists)


def test_what_differs_is_named_with_both_values(tmp_path: Path) -> None:
    make(tmp_path / "out")
    other = Request(kind="index", settings={"dim": 5, "names": ("a", "b")}, inputs={"z": "cd" * 32})
    with pytest.raises(ArtifactError) as error:
        is_done(tmp_path / "out", other)
    told = str(error.value)
    assert "setting dim (found 4, now 5)" in told
    assert 'input z (found "abab' in told
    assert 'now "cdcd' in told
    assert "names" not in told
    assert "--rebuild" in told


OTHER = Request(kind="index", settings={"dim": 5})


def rebuild(folder: Path, request: Request = OTHER, *, resume: bool = False) -> bool:
    """Stand for a stage with --rebuild; return whether there was something to do."""
    if is_done(folder, request, rebuild=True):
        return False
    with publish(folder, request, resume=resume, replace=True) as scratch:
        write_content(scratch)
        (scratch / "new.bin").write_bytes(b"new")
    return True


@pytest.mark.parametrize("request_", [REQUESTED, OTHER])
def test_rebuild_keeps_the_old_folder_until_the_new_one_is_whole(
    request_: Request, tmp_path: Path
) -> None:
    make(tmp_path / "out")
    before = files_of(tmp_path / "out")
    assert not is_done(tmp_path / "out", request_, rebuild=True)
    with publish(tmp_path / "out", request_, replace=True) as scratch:
        write_content(scratch)
        (scratch / "new.bin").write_bytes(b"new")
        assert files_of(tmp_path / "out") == before
        open_folder(tmp_path / "out", "index")
    assert open_folder(tmp_path / "out", "index")["settings"] == json.loads(
        json.dumps(request_.as_json()["settings"])
    )
    assert (tmp_path / "out" / "new.bin").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, OSError(28, "full")])
def test_a_rebuild_that_fails_loses_nothing(
    *, error: BaseException, resume: bool, tmp_path: Path
) -> None:
    make(tmp_path / "out")
    before = files_of(tmp_path / "out")
    with (
        pytest.raises((ZeroDivisionError, KeyboardInterrupt, ArtifactError)),
        publish(tmp_path / "out", OTHER, resume=resume, replace=True),
    ):
        raise error
    assert files_of(tmp_path / "out") == before
    assert is_done(tmp_path / "out", REQUESTED)
    assert scratch_folder(tmp_path / "out").exists() == resume
    assert rebuild(tmp_path / "out", resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
def test_an_exchange_that_fails_half_way_leaves_the_old_or_the_new_folder(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renames 1 and 2 after the last write are the exchange; 2 is tried again at once."""
    make(tmp_path / "out")
    real, seen = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        seen.append(target)
        if len(seen) == failing:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(ArtifactError, match=r"cannot move .*Permission denied"):
            rebuild(tmp_path / "out")
    assert open_folder(tmp_path / "out", "index")["settings"]["dim"] == 3 + failing
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_rebuild_killed_at_any_point_leaves_the_old_folder_or_the_new_one(
    *, resume: bool, tmp_path: Path, killed_after: KilledAfter
) -> None:
    """Between the two renames none has the name: then the next call finishes the exchange."""
    make(tmp_path / "old")
    rebuild(tmp_path / "new")
    old, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    states = set()
    for num_events in range(1_000):
        folder = tmp_path / str(num_events) / "out"
        make(folder)
        was_killed = killed_after(num_events, lambda out=folder: rebuild(out, resume=resume))
        names = {p.name for p in folder.parent.iterdir()}
        kept = bool(names & {".out.replaced", ".out.removed"})  # in the exchange
        found = files_of(folder)
        assert found in ([old, new, {}] if kept else [old, new])
        states.add((len(found), kept))
        if not found and num_events % 2:
            open_folder(folder, "index")  # a reader finishes it as well
            assert files_of(folder) == new
        else:
            assert rebuild(folder, resume=resume) != kept
        assert files_of(folder) == new
        assert {p.name for p in folder.parent.iterdir()} == {"out"}
        if not was_killed:
            break
    assert 30 < num_events < 900
    assert states == {(len(old), False), (0, True), (len(new), True), (len(new), False)}


def test_a_rebuild_that_was_killed_after_its_end_is_not_done_again(tmp_path: Path) -> None:
    for settings_, again in (({"dim": 5}, False), ({"dim": 6}, True)):
        make(replaced_folder(tmp_path / "out"))
        rebuild(tmp_path / "new") if not (tmp_path / "new").exists() else None
        shutil.copytree(tmp_path / "new", tmp_path / "out", dirs_exist_ok=True)
        request = Request(kind="index", settings=settings_)
        assert is_done(tmp_path / "out", request, rebuild=True) != again
        assert not replaced_folder(tmp_path / "out").exists()
        assert not is_done(tmp_path / "out", OTHER, rebuild=True)  # asked once more


def test_what_came_into_the_place_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with (
        pytest.raises(ArtifactError, match="never changed"),
        publish(tmp_path / "out", OTHER, replace=True),
    ):
        remove(tmp_path / "out")
        make_of("passages", tmp_path / "out")
    assert open_folder(tmp_path / "out", "passages")
    for folder in ("theirs", "passages"):
        make_of("passages", tmp_path / "passages") if folder == "passages" else None
        (tmp_path / "theirs").mkdir(exist_ok=True)
        with (
            pytest.raises(ArtifactError, match="never changed"),
            publish(tmp_path / folder, OTHER, replace=True),
        ):
            pytest.fail("started")


def make_of(kind: str, folder: Path) -> None:
    make(folder.with_name("aside"), request=Request(kind=kind))
    folder.with_name("aside").rename(folder)


def test_rebuild_never_removes_a_folder_of_another_kind_or_of_somebody_else(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(ArtifactError, match="expected 'passages'"):
        is_done(tmp_path / "out", Request(kind="passages"), rebuild=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="not a folder that realm finished"):
        is_done(tmp_path / "theirs", REQUESTED, rebuild=True)
    assert (tmp_path / "out").is_dir()
    assert (tmp_path / "theirs" / "thesis.txt").is_file()


def test_rebuild_replaces_a_folder_of_an_older_format(tmp_path: Path) -> None:
    make(tmp_path / "out")
    manifest = read_json(tmp_path / "out" / MANIFEST)
    write_json(tmp_path / "out" / MANIFEST, {**manifest, "format_version": 0})
    with pytest.raises(ArtifactError, match="format version 0"):
        is_done(tmp_path / "out", REQUESTED)
    assert not is_done(tmp_path / "out", REQUESTED, rebuild=True)


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert not is_done(tmp_path / "out", REQUESTED)
    make(tmp_path / "out")


def test_an_empty_folder_that_cannot_go_is_told(tmp_path: Path) -> None:
    """A link to one, here; a place where a disk is mounted is another."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with pytest.raises(ArtifactError, match=r"out cannot give way .* choose another --out"):
        is_done(tmp_path / "out", REQUESTED)
    assert not is_done(tmp_path / "out" / "new", REQUESTED)


def test_what_cannot_be_removed_is_told_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot remove"):
        remove(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda out: remove(out), "found no folder"),
        (lambda out: (out / MANIFEST).unlink(), "has no manifest.json"),
        (lambda out: (out / MANIFEST).write_text("{"), "is damaged"),
        (lambda out: (out / MANIFEST).write_bytes(b"\xff"), "is damaged"),
        (lambda out: (out / MANIFEST).write_text("[]"), "holds a list"),
        (lambda out: (out / MANIFEST).write_text('{"format_version": 1}'), "expected 'index'"),
        (lambda out: (out / MANIFEST).write_text('{"kind": "index"}'), "format version null"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_a_reason(
    change: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    make(tmp_path / "out")
    change(tmp_path / "out")
    with pytest.raises(ArtifactError, match=told):
        open_folder(tmp_path / "out", "index")


@settings(max_examples=40)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_fingerprint_changes_with_any_byte(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("prints")
    (folder / "a.bin").write_bytes(content)
    (folder / "b.bin").write_bytes(b"constant")
    before = fingerprint(folder), fingerprint(folder / "a.bin")
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= data.draw(st.integers(1, 255))
    (folder / "a.bin").write_bytes(flipped)
    assert fingerprint(folder) != before[0]
    assert fingerprint(folder / "a.bin") != before[1]


def test_a_fingerprint_changes_with_names_and_new_files(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    before = fingerprint(tmp_path)
    (tmp_path / "a.bin").rename(tmp_path / "b.bin")
    renamed = fingerprint(tmp_path)
    (tmp_path / "empty").touch()
    assert len({before, renamed, fingerprint(tmp_path)}) == 3


def test_only_a_folders_own_manifest_is_left_out_of_its_fingerprint(tmp_path: Path) -> None:
    """Somebody's input may be called manifest.json as well."""
    (tmp_path / "in").mkdir()
    prints = set()
    for name in (f"in/{MANIFEST}", f"in/{REQUEST}"):
        for content in ("one", "two"):
            (tmp_path / name).write_text(content)
            prints |= {fingerprint(tmp_path / name), fingerprint(tmp_path)}
        assert fingerprint(tmp_path / "in") == fingerprint_of_nothing()
        (tmp_path / name).unlink()
    assert len(prints) == 6


def fingerprint_of_nothing() -> str:
    return "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_folder_that_is_removed_while_others_are_listed_has_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.txt").write_text(name, encoding="utf-8")
    real = os.scandir

    def scan(path: str | int) -> object:  # rmtree lists by a number
        if isinstance(path, str) and Path(path).name == "b":
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert files_below(tmp_path) == [tmp_path / "a" / "words.txt"]


def test_an_empty_file_has_a_fingerprint_and_a_missing_one_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert fingerprint(tmp_path / "empty") == fingerprint_of_nothing()
    with pytest.raises(ArtifactError, match="found nothing at"):
        fingerprint(tmp_path / "absent")


def test_the_fingerprint_of_a_value_does_not_depend_on_the_order_of_its_keys() -> None:
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


def test_json_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"value": "é"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"value": object()})
    assert read_json(tmp_path / "x.json") == {"value": "é"}
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"value": "é", "seal": fingerprint_of({"value": "é"})}
    (tmp_path / "x.json").write_text(text.replace("é", "è"), encoding="utf-8")
    with pytest.raises(DamagedError, match=r"x\.json is damaged: its seal"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"value": 1}')  # of an older release, or by hand
    assert read_json(tmp_path / "x.json") == {"value": 1}
    with pytest.raises(ArtifactError, match="is missing"):
        read_json(tmp_path / "y.json")
    with pytest.raises(ArtifactError, match="cannot read"):
        read_json(tmp_path)


# One writer at a time


WRITER = """
import sys, time
from pathlib import Path
from realm.storage import Request, publish

request = Request(kind="index", settings={"dim": 4, "names": ("a", "b")}, inputs={"z": "ab" * 32})
with publish(Path(sys.argv[1]), request, resume=True, replace=True) as scratch:
    (scratch / "one.bin").write_bytes(b"one.bin" * 100)
    print("half", flush=True)
    time.sleep(300)
"""


@contextmanager
def writer(folder: Path) -> Generator[subprocess.Popen[str]]:
    """Yield a process that has written half of a folder; it is killed at the end."""
    source = Path(__file__).parents[1] / "src"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, folder],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_writer_ends_at_once_and_the_first_one_is_not_disturbed(
    *, resume: bool, tmp_path: Path
) -> None:
    with writer(tmp_path / "out") as first:
        before = files_of(tmp_path)
        with pytest.raises(ArtifactError) as error:
            make(tmp_path / "out", resume=resume)
        assert files_of(tmp_path) == before
        told = rf"{tmp_path / 'out'} is being written by process {first.pid} on \S+ since 20"
        assert re.match(told, str(error.value))
        assert "wait for it, or choose another --out" in str(error.value)
        make(tmp_path / "other")  # beside it
    assert (tmp_path / ".out.lock").is_file()  # left by the kill, keeps nobody out
    log = []
    with publish(tmp_path / "out", REQUESTED, resume=True) as scratch:
        write_content(scratch, log=log)
    assert log == ["two.bin", "sub/three.bin"]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_the_old_folder_is_read_while_another_process_makes_it_anew_and_after_its_kill(
    tmp_path: Path,
) -> None:
    make(tmp_path / "out", request=OTHER)
    before = files_of(tmp_path / "out")
    with writer(tmp_path / "out"):
        assert is_done(tmp_path / "out", OTHER)
        assert files_of(tmp_path / "out") == before
        assert not is_done(tmp_path / "out", OTHER, rebuild=True)
        with pytest.raises(ArtifactError, match="is being written by process"):
            rebuild(tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    assert rebuild(tmp_path / "out", REQUESTED, resume=True)
    assert is_done(tmp_path / "out", REQUESTED)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_thread_is_kept_out_and_the_same_one_may_come_again(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), ThreadPoolExecutor() as pool:
        with pytest.raises(ArtifactError, match=rf"written by process {os.getpid()} on"):
            pool.submit(make, tmp_path / "out").result()
        make(tmp_path / "out")
        make(tmp_path / "out" / "in")
        with pytest.raises(ArtifactError, match="is being written by"):  # still held
            pool.submit(make, tmp_path / "out").result()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_thread_may_come_again_by_another_name_of_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    with locked(tmp_path / "link" / "out"), ThreadPoolExecutor() as pool:
        names = ("out", "../real/out", "../link/out", str(tmp_path / "real" / "out"))
        for name in names:
            with locked(Path(name)):
                pass
            with pytest.raises(ArtifactError, match="is being written by"):  # still held
                pool.submit(make, Path(name)).result()
    assert not list((tmp_path / "real").iterdir())


def test_a_lock_is_not_taken_on_a_file_that_its_last_owner_has_just_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a third one, with a new file, would write as well."""
    fcntl = pytest.importorskip("fcntl")
    real, tries = fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        tries.append(handle)
        if len(tries) == 1:
            (tmp_path / ".out.lock").unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "out"), ThreadPoolExecutor() as pool:
        assert len(tries) == 2
        with pytest.raises(ArtifactError, match="is being written by"):
            pool.submit(make, tmp_path / "out").result()


def test_of_many_writers_one_is_at_work(tmp_path: Path) -> None:
    """Each holds the lock for a moment, again and again, and looks for others."""
    source = Path(__file__).parents[1] / "src"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from realm.errors import ArtifactError\n"
        "from realm.storage import locked\n"
        "here, times = Path(sys.argv[1]), 0\n"
        "end = time.monotonic() + 60\n"
        "while times < 100 and time.monotonic() < end:\n"
        "    try:\n"
        "        with locked(here / 'out'):\n"
        "            (here / 'alone').mkdir()\n"
        "            (here / 'alone').rmdir()\n"
        "            times += 1\n"
        "    except ArtifactError:\n"
        "        pass\n"
        "sys.exit(times < 100)\n"
    )
    command = [sys.executable, "-c", code, tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    started = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(timeout=90) for process in started] == [0, 0, 0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lack", ["module", "file system"])
def test_where_there_are_no_locks_a_folder_is_made_without(
    lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if lack == "module":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    make(tmp_path / "out")
    assert rebuild(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_lock_of_another_user_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their file cannot be written, but it can be locked."""
    real = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR and Path(path).name == ".out.lock":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, mode)

    with locked(tmp_path / "out"), ThreadPoolExecutor() as pool, monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ArtifactError, match="is being written by process"):
            pool.submit(make, tmp_path / "out").result()


def test_a_folder_that_was_removed_meanwhile_is_not_damaged(tmp_path: Path) -> None:
    make(tmp_path / "out")
    manifest = read_json(tmp_path / "out" / MANIFEST)
    (tmp_path / "out").rename(tmp_path / "gone")
    with pytest.raises(ArtifactError) as told:
        check_files(tmp_path / "out", manifest, remedy="make it again")
    assert not isinstance(told.value, DamagedError)
    file = next(iter(checksums(manifest)))
    (tmp_path / "gone" / file).unlink()
    with pytest.raises(DamagedError, match=f"{file} is missing"):
        check_files(tmp_path / "gone", manifest, remedy="make it again")


def test_a_file_whose_size_the_system_does_not_tell_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, **_: object) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(UnreadableError, match=r"cannot read .*one\.bin: Input/output error"):
        check_files(tmp_path, {"files": {"one.bin": ""}}, remedy="make it again")


def test_a_folder_is_being_filled_while_somebody_holds_a_part_of_it(tmp_path: Path) -> None:
    """A lock file that a killed process left says nothing."""
    part = tmp_path / "shard-00000"
    (tmp_path / ".shard-00000.lock").touch()
    assert not is_being_filled(tmp_path)
    with locked(part):
        assert is_being_filled(tmp_path)
    assert not is_being_filled(tmp_path)


def test_a_lock_that_comes_and_goes_while_a_folder_is_finished_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a builder that did not yet know that the last part was written."""
    scratch = start_together(tmp_path / "out", REQUESTED)
    assert scratch is not None
    write_content(scratch)
    real, late = folders.fingerprint, ExitStack()

    def interrupted(path: Path) -> str:
        if path == scratch:
            assert late.enter_context(claimed(scratch / "shard-00000"))
        return real(path)

    monkeypatch.setattr(folders, "fingerprint", interrupted)
    with late:
        finish_together(tmp_path / "out", REQUESTED, lambda _: {"rows": 3})
    (tmp_path / "out" / ".shard-00000.lock").unlink(missing_ok=True)
    manifest = open_folder(tmp_path / "out", "index")
    assert set(checksums(manifest)) == {"one.bin", "two.bin", "sub/three.bin"}
    assert manifest["fingerprint"] == fingerprint(tmp_path / "out")
    check_files(tmp_path / "out", manifest, remedy="")
