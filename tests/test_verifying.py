"""`realm verify`: every byte is read, and what is not as it was written has a name."""

import json
import os
from pathlib import Path

import pytest

from realm.errors import ArtifactError, UnreadableError
from realm.storage import (
    Request,
    VerifiedFile,
    publish,
    verify,
    verifying,
    write_json,
    write_plain_json,
    writing_lines,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a published folder, lines, a sealed file, a log and another's file."""
    with publish(tmp_path / "data" / "index", Request(kind="index")) as scratch:
        (scratch / "rows.f32").write_bytes(bytes(range(256)) * 64)
        (scratch / "deeper").mkdir()
        (scratch / "deeper" / "words.json").write_text('{"seal": 7}', encoding="utf-8")
    with writing_lines(tmp_path / "data" / "pairs.jsonl", Request(kind="pairs")) as writer:
        writer.write([{"a": 1}, {"b": 2}])
    write_json(tmp_path / "data" / "held-out.json", {"articles": ["a"]})
    write_plain_json(tmp_path / "data" / "config.json", {"seal": "a word", "size": 3})
    (tmp_path / "data" / "metrics.jsonl").write_text("{}", encoding="utf-8")
    (tmp_path / "data" / ".index.partial").mkdir()
    (tmp_path / "data" / ".index.partial" / "rows.f32").write_bytes(b"left by a killed writer")
    return tmp_path / "data"


COVERED = (
    "held-out.json",
    "index/deeper/words.json",
    "index/manifest.json",
    "index/rows.f32",
    "pairs.jsonl",
    "pairs.jsonl.manifest.json",
)


def by_state(place: Path) -> dict[str, list[str]]:
    """Return the names of the files in each state."""
    found: dict[str, list[str]] = {}
    for file in verify(place).files:
        found.setdefault(file.state, []).append(file.path.relative_to(place).as_posix())
    return found


def flip(path: Path, number: int) -> None:
    """Flip the lowest bit of a byte."""
    content = bytearray(path.read_bytes())
    content[number] ^= 1
    path.write_bytes(content)


def test_what_is_as_it_was_written_is_whole(place: Path) -> None:
    assert by_state(place) == {"whole": list(COVERED), "unknown": ["config.json", "metrics.jsonl"]}
    assert not verify(place).bad


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("where", [0.3, 0.8])
def test_a_flipped_bit_has_a_name(place: Path, name: str, where: float) -> None:
    path = place / name
    flip(path, int(where * path.stat().st_size))
    bad = verify(place).bad
    assert [one.path for one in bad] == [path]
    assert str(path) in bad[0].problem
    assert bad[0].state == "damaged"


def test_any_flipped_bit_of_a_sealed_file_is_seen(place: Path) -> None:
    """Also one in the seal, or in its name."""
    path = place / "held-out.json"
    whole = path.read_bytes()
    for number in range(len(whole) * 8):
        content = bytearray(whole)
        content[number // 8] ^= 1 << number % 8
        path.write_bytes(content)
        bad = [one.path for one in verify(place).bad]
        assert bad == [path] or json.loads(content) == json.loads(whole), content


@pytest.mark.parametrize("name", ["index/rows.f32", "pairs.jsonl", "index/deeper/words.json"])
def test_a_file_that_is_gone_has_a_name(place: Path, name: str) -> None:
    (place / name).unlink()
    assert [(one.path, one.size) for one in verify(place).bad] == [(place / name, 0)]


@pytest.mark.parametrize("kept", ["", "manifest.json"])
def test_what_is_removed_meanwhile_is_not_missing(
    place: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on removes its older checkpoints, the manifest first."""
    listed = verifying._read_manifests

    def removed_after(found: list[Path]) -> object:
        known = listed(found)
        for file in (place / "index" / name for name in ("manifest.json", "rows.f32")):
            if file.name != kept:
                file.unlink()
        return known

    monkeypatch.setattr(verifying, "_read_manifests", removed_after)
    states = by_state(place)
    if kept:
        assert states["damaged"] == ["index/rows.f32"]
    else:
        assert states["gone"] == ["index/rows.f32"]
        assert "damaged" not in states


def test_a_large_folder_is_read_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening leaves out what is larger than CHECKED_BYTES; this does not."""
    monkeypatch.setattr("realm.storage.checking.CHECKED_BYTES", 10)
    flip(place / "index" / "rows.f32", 5_000)
    assert [one.path.name for one in verify(place).bad] == ["rows.f32"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_as_such(place: Path) -> None:
    (place / "index" / "rows.f32").chmod(0)
    assert [(one.path.name, one.state) for one in verify(place).bad] == [
        ("rows.f32", "unreadable"),
    ]


def test_a_folder_that_may_be_listed_and_not_entered_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with permissions r--: names are given, nothing is told of what they name."""
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path.parent == place / "index":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "is_symlink", lambda path: refuse(path) is None)
    with pytest.raises(UnreadableError, match=r"cannot read .*index.*Permission denied; mend"):
        verify(place)


def test_a_disk_that_fails_is_not_called_damage(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("realm.storage.checking.fingerprint", failing)
    bad: list[VerifiedFile] = verify(place).bad
    assert {one.state for one in bad} == {"unreadable"}
    assert all("Input/output error" in one.problem for one in bad)


def test_a_name_that_leads_elsewhere_is_not_followed(place: Path) -> None:
    manifest = json.loads((place / "index" / "manifest.json").read_text(encoding="utf-8"))
    del manifest["seal"]
    manifest["files"] |= {"../../secret": "0" * 64}
    write_json(place / "index" / "manifest.json", manifest)
    assert not verify(place).bad


def test_progress_counts_bytes(place: Path) -> None:
    seen: list[tuple[int, int]] = []
    verify(place, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 256 * 64
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_place_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no folder"):
        verify(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("a note", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"nothing below .* says what was written"):
        verify(tmp_path)
