"""A published folder is whole or absent, whatever happens while it is written."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm import storage
from realm.errors import ArtifactError
from realm.storage import (
    EXTRA,
    MANIFEST,
    REQUEST,
    Request,
    fingerprint,
    fingerprint_of,
    is_done,
    open_folder,
    publish,
    read_json,
    remove,
    scratch_folder,
    write_json,
)

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


def killed_after(num_events: int, action: Callable[[], None]) -> bool:
    """Run `action` in a child that dies without notice before its n-th call to the file system."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) == 9
    seen = 0

    def hook(event: str, _: object) -> None:
        nonlocal seen
        if event == "open" or event.startswith("os."):
            seen += 1
            if seen > num_events:
                os._exit(9)

    code = 1
    try:
        sys.addaudithook(hook)
        action()
        code = 0
    finally:
        os._exit(code)


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_killed_at_any_point_leaves_a_whole_folder_or_none(
    *, resume: bool, tmp_path: Path
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


def test_removing_killed_at_any_point_leaves_a_whole_folder_or_none(tmp_path: Path) -> None:
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
            monkeypatch.setattr(storage, "write_json", refuse)
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


def test_rebuild_removes_an_equal_or_different_folder_of_the_same_kind(tmp_path: Path) -> None:
    for request in (REQUESTED, Request(kind="index", settings={"dim": 5})):
        make(tmp_path / "out")
        assert not is_done(tmp_path / "out", request, rebuild=True)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.iterdir())


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
        (lambda out: (out / MANIFEST).write_text('{"kind": "index"}'), "format version None"),
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
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"value": "é"}
    with pytest.raises(ArtifactError, match="is missing"):
        read_json(tmp_path / "y.json")
    with pytest.raises(ArtifactError, match="cannot read"):
        read_json(tmp_path)
