"""A file of lines is whole or absent, and a killed writer goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realm.errors import ArtifactError, LockedError
from realm.storage import Request, lines_done, lines_manifest, locked, writing_lines

KilledAfter = Callable[[int, Callable[[], object]], bool]

REQUEST = Request(kind="alignment", settings={"limit": 7}, inputs={"model": "m"})
OTHER = Request(kind="alignment", settings={"limit": 8}, inputs={"model": "m"})


def write_all(path: Path, request: Request = REQUEST, *, in_groups_of: int = 2) -> int:
    """Write seven lines, two at a time; return how many were there before."""
    with writing_lines(path, request, in_groups_of=in_groups_of) as writer:
        already = writer.num_lines
        for first in range(already, 7, 2):
            writer.write({"n": n, "é": "ü"} for n in range(first, min(7, first + 2)))
        writer.content = {"sum": sum(line["n"] for line in writer.lines())}
    return already


def check_whole(path: Path) -> None:
    assert [json.loads(line)["n"] for line in path.read_text("utf-8").splitlines()] == [*range(7)]
    assert lines_done(path, REQUEST) == {"sum": 21}
    manifest = json.loads(lines_manifest(path).read_text())
    assert (manifest["kind"], manifest["settings"]) == ("alignment", {"limit": 7})
    left = {p.name for p in path.parent.iterdir()}
    assert left - {".pairs.jsonl.lock"} == {"pairs.jsonl", "pairs.jsonl.manifest.json"}


def test_a_file_and_its_manifest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pairs.jsonl"
    assert lines_done(path, REQUEST) is None
    assert write_all(path) == 0
    check_whole(path)


def test_a_writer_killed_at_any_point_goes_on(tmp_path: Path, killed_after: KilledAfter) -> None:
    for num_events in range(200):
        path = tmp_path / str(num_events) / "pairs.jsonl"
        died = killed_after(num_events, lambda path=path: write_all(path))
        if path.exists():
            assert lines_done(path, REQUEST) == {"sum": 21}
        write_all(path)
        check_whole(path)
        if not died:
            break
    else:
        pytest.fail("it never came to its end")
    assert num_events > 10


def test_lines_of_a_group_that_was_cut_are_written_again(tmp_path: Path) -> None:
    path, partial = tmp_path / "pairs.jsonl", tmp_path / ".pairs.jsonl.partial"
    for tail, kept in (
        (b"", 4),
        (b'{"n": 4}\n', 4),  # the first of two
        (b'{"n": 4', 4),
        (b'{"n": 4}', 4),  # no end of line: more may have been meant
        (b'{"n": 4}\n\0\0\0\0', 4),  # a power cut
        (b"\xff\n", 4),
        (b'{"n": 4}\n{"n": 5}\n{"n"', 6),
    ):
        with pytest.raises(KeyboardInterrupt), writing_lines(path, REQUEST) as writer:
            writer.write({"n": n} for n in range(4))
            raise KeyboardInterrupt
        partial.write_bytes(partial.read_bytes() + tail)
        assert write_all(path) == kept
        check_whole(path)
        path.unlink()


def test_lines_of_another_request_are_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(KeyboardInterrupt), writing_lines(path, OTHER) as writer:
        writer.write([{"n": 99}, {"n": 98}])
        raise KeyboardInterrupt
    assert write_all(path) == 0
    check_whole(path)


def test_what_stands_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("mine")
    for rebuild in (False, True):
        with pytest.raises(ArtifactError, match="not a file that realm finished"):
            lines_done(path, REQUEST, rebuild=rebuild)
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError, match="not a file that realm finished"):
        lines_done(path, REQUEST, rebuild=True)
    path.rmdir()
    write_all(path)
    with pytest.raises(ArtifactError, match=r"setting limit \(found 7, now 8\).*--rebuild"):
        lines_done(path, OTHER)
    assert lines_done(path, OTHER, rebuild=True) is None
    write_all(path, OTHER)
    assert lines_done(path, OTHER) == {"sum": 21}


def test_a_second_writer_is_kept_out(tmp_path: Path) -> None:
    import threading

    path, told = tmp_path / "pairs.jsonl", list[Exception]()

    def second() -> None:
        try:
            write_all(path)
        except LockedError as error:
            told.append(error)

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(told) == 1
    assert not path.exists()
