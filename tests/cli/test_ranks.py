"""The command line under torchrun: one voice, and only verbs that can share their work."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Torchrun = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = "from realm.cli.main import run; run()"


def test_the_first_rank_speaks_for_all(world: Any, torchrun: Torchrun, tmp_path: Path) -> None:
    command = world.command("ict", tmp_path / "run")
    ended = torchrun(COMMAND, *command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("4 steps in") == 1
    assert ended.stdout.count("run in") == 1
    steps = [line for line in ended.stderr.splitlines() if line.startswith("ict ")]
    assert [line.split()[1] for line in steps] == ["0/4", "1/4", "2/4", "3/4", "4/4", "4/4"]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["content"]["steps"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no lock left


def test_ranks_share_an_index_and_make_the_one_that_a_single_process_makes(
    world: Any, call: Callable[..., Any], torchrun: Torchrun, tmp_path: Path
) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    call(*world.command("index", alone), "--set", "shard_rows=16")
    ended = torchrun(COMMAND, *world.command("index", shared), "--set", "shard_rows=16")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("80 passages x 16 dimensions") == 1
    names = sorted(path.name for path in alone.iterdir())
    assert sorted(path.name for path in shared.iterdir()) == names
    assert len(names) == 11  # five shards of two files, and the manifest
    for name in names:
        assert (shared / name).read_bytes() == (alone / name).read_bytes(), name


def test_a_batch_that_cannot_be_shared_is_told_and_leaves_no_run(
    world: Any, torchrun: Torchrun, tmp_path: Path
) -> None:
    ended = torchrun(COMMAND, *world.command("ict", tmp_path / "run"), "--set", "batch_size=5")
    assert ended.returncode != 0
    assert "error: batch_size=5 is for all 2 ranks together" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["split", "mask"])
def test_a_verb_that_is_one_process_is_refused_under_torchrun(
    world: Any, call: Callable[..., Any], verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = call(*world.command(verb, tmp_path / "out")).message
    assert told.startswith(f"`realm {verb}` runs as one process, found WORLD_SIZE=2")
    assert not list(tmp_path.iterdir())


def test_a_verb_started_by_hand_with_torchruns_variables_is_told_what_is_missing(
    world: Any, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = call(*world.command("ict", tmp_path / "out")).message
    assert "found WORLD_SIZE=2 but no RANK, MASTER_ADDR, MASTER_PORT" in told


@pytest.mark.parametrize(("world", "is_heard"), [("1", True), ("2", False)])
def test_a_rank_ends_without_taking_torch_down(world: str, *, is_heard: bool) -> None:
    """On a busy machine torch's threads may abort a rank that has done all its work."""
    script = f"import atexit; atexit.register(print, 'taken down'); {COMMAND}"
    ended = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        env={**os.environ, "WORLD_SIZE": world},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("realm ")
    assert ("taken down" in ended.stdout) is is_heard
