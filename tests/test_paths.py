"""A name that is read from a file, or comes with a request, leads nowhere but where it belongs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.checkpoint.stored import StoredWeights
from realm.corpus.articles import read_articles
from realm.corpus.folder import find_files
from realm.corpus.reading import OUTSIDE
from realm.errors import ArtifactError, ConfigError
from realm.index.snapshot import Snapshot
from realm.library.head import HEAD, read_head
from realm.records import Skipped
from realm.reporting.curves import find_runs
from realm.serving.refusals import RefusedError
from realm.serving.training_routes import _curves as curves_of
from realm.storage import MANIFEST, SEAL, beside
from realm.study.settings import StudySettings

NAMES = [
    "../secret",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../secret",
    "..\\secret",
    "C:\\secret",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "x" * 5_000,
    "\u00e9" * 200,
    None,
    7,
    ["secret"],
]
"""What is no plain name of a file."""


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_only_a_plain_name_is_one(tmp_path: Path, name: object) -> None:
    with pytest.raises(ArtifactError, match="expected the plain name of one that lies in it"):
        beside(tmp_path, name)


def test_a_plain_name_is_a_file_of_the_folder(tmp_path: Path) -> None:
    for name in ("a.safetensors", "caf\u00e9.txt", "..a", "x" * 255):
        assert beside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_an_index_of_weights_names_files_beside_it(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("a secret")
    index = {"weight_map": {"w": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="names the file") as caught:
        StoredWeights.open(folder)
    assert "a secret" not in str(caught.value)


def test_a_snapshots_manifest_names_its_own_files(
    make_snapshot: Callable[..., Snapshot], make_towers: Callable[..., Any]
) -> None:
    folder = make_snapshot(make_towers()).folder
    told = json.loads((folder / MANIFEST).read_text())
    del told[SEAL]
    for name in (name for name in NAMES if isinstance(name, str)):
        told["files"] = {name: "0" * 64}
        (folder / MANIFEST).write_text(json.dumps(told))
        with pytest.raises(ArtifactError, match="names the file"):
            Snapshot.open(folder, verify=True)


@pytest.mark.parametrize("name", [*NAMES, "segment-1/../../secret", "segment-\u0661x"])
def test_a_library_names_its_own_segments(tmp_path: Path, name: object) -> None:
    told = {
        "format_version": 1,
        "kind": "library",
        "version": 1,
        "model": "m",
        "made_with": {},
        "segments": [{"name": name, "removed": []}],
    }
    (tmp_path / HEAD).write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match="is damaged"):
        read_head(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "a\\b", ".hidden", "x" * 300])
def test_a_studys_rows_are_folders_of_the_study(tmp_path: Path, name: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(f'[rows.{json.dumps(name)}]\nlabel = "a"\n')
    with pytest.raises(ConfigError, match="row"):
        StudySettings.load(file)


@pytest.mark.parametrize("name", ["../secret", "..", "/etc", ".", "run/../../secret", "a\0b"])
def test_a_request_sees_only_the_runs_that_were_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / MANIFEST).write_text('{"kind": "run", "settings": {"stage": "ict"}}')
    with pytest.raises(RefusedError, match="found no run"):
        curves_of([tmp_path / "runs"], name, -1)


def test_runs_are_not_looked_for_behind_links(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / MANIFEST).write_text('{"kind": "run", "settings": {"stage": "ict"}}')
    assert find_runs(tmp_path / "secret") == [tmp_path / "secret"]
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")
    assert find_runs(tmp_path / "runs") == []


def test_links_lead_nowhere_out_of_a_folder_of_documents(tmp_path: Path) -> None:
    docs, secret = tmp_path / "docs", tmp_path / "secret.txt"
    (docs / "sub").mkdir(parents=True)
    secret.write_text("a secret")
    (docs / "own.txt").write_text("my own")
    (docs / "within.txt").symlink_to(docs / "own.txt")
    (docs / "out.txt").symlink_to(secret)
    (docs / "relative.md").symlink_to("../secret.txt")
    (docs / "again.txt").symlink_to(docs / "out.txt")
    (docs / "passwd.txt").symlink_to("/etc/passwd")
    (docs / "folder").symlink_to(tmp_path)
    (docs / "circle.txt").symlink_to(docs / "circle.txt")
    (docs / "sub" / "up").symlink_to(docs)
    skipped = Skipped()
    assert [file.name for file in find_files(docs, skipped)] == ["own.txt", "within.txt"]
    assert sorted(skipped.examples[OUTSIDE]) == [
        "again.txt:1",
        "folder:1",
        "out.txt:1",
        "passwd.txt:1",
        "relative.md:1",
    ]
    skipped = Skipped()
    assert {one.id for one in read_articles([docs], skipped=skipped)} == {"own.txt", "within.txt"}
    assert skipped.counts[OUTSIDE] == 5, "the link to a folder elsewhere is counted here, too"
    (tmp_path / "link").symlink_to(docs)  # the folder that is named may be one itself
    assert len(find_files(tmp_path / "link", Skipped())) == 2
    assert [file.path for file in find_files(docs / "out.txt", Skipped())] == [docs / "out.txt"]
