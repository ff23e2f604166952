"""Several processes build one snapshot: they share shards, a dead or stopped one is survived."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import realm
from realm.checkpoint.checkpoints import save_checkpoint
from realm.checkpoint.parts import Model
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.index import builder
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot
from realm.model.embedder import Embedder, Towers
from realm.storage import scratch_folder

BUILD = """
import os, sys, time
from pathlib import Path
from realm.checkpoint.checkpoints import load_model
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion, build_index

model, store, out, number, pause = sys.argv[1:]
tower = load_model(Path(model)).need_towers().passage
mine = 0

def progress(done, total):
    global mine
    mine += 1
    print("progress", done, flush=True)
    time.sleep(float(pause))

print("ready", flush=True)
sys.stdin.readline()
build_index(
    tower, PassageStore.open(Path(store)), Path(out),
    version=EmbedderVersion(model_hash="abc", step=3),
    config=IndexConfig(autocast="none", passage_wordpieces=64, shard_rows=5, batch_tokens=100),
    share=(int(number), 2), progress=progress,
)
print("mine", mine, flush=True)
"""
Builder = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def config(index_config: IndexConfig) -> IndexConfig:
    return index_config.model_copy(update={"batch_tokens": 100})


@pytest.fixture
def another(tmp_path: Path, store: PassageStore, tower: Embedder) -> Builder:
    """Start a process that builds; it waits for a line, and after each group of passages."""
    model = Model(tokenizer=store.tokenizer, towers=Towers(tower))
    save_checkpoint(tmp_path / "model", model, settings={}, inputs={})
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(realm.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }

    def start(out: Path, number: int, pause: float = 0.0) -> "subprocess.Popen[str]":
        told = [tmp_path / "model", store.folder, out, number, pause]
        process = subprocess.Popen(
            [sys.executable, "-c", BUILD, *map(str, told)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return start


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def build(store: PassageStore, tower: Embedder, config: IndexConfig) -> Callable[..., Snapshot]:
    def build_it(out: Path, **settings: object) -> Snapshot:
        version = EmbedderVersion(model_hash="abc", step=3)
        return build_index(tower, store, out, version=version, config=config, **settings)

    return build_it


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_share_the_shards_and_the_bytes_are_those_of_one(
    another: Builder, build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    build(tmp_path / "expected")
    both = [another(tmp_path / "out", number, 0.1) for number in range(2)]
    for process in both:
        go(process)
    told = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(int(words[-1]) > 0 for words in told)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")
    assert not scratch_folder(tmp_path / "out").exists()


def test_what_a_killed_one_held_is_done_by_the_other(
    another: Builder, build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    build(tmp_path / "expected")
    with another(tmp_path / "out", 0, 60.0) as process:
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("progress")  # in the middle of a shard
        seen: list[int] = []

        def progress(done: int, _: int) -> None:
            if process.poll() is None and len(seen) >= 3:
                process.kill()
                process.wait()
            seen.append(done)

        build(tmp_path / "out", share=(1, 2), progress=progress)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


def test_a_stopped_one_that_holds_a_shard_ends_in_an_error_not_a_hang(
    another: Builder,
    build: Callable[..., Snapshot],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builder, "PATIENCE_SECONDS", 0.5)
    with another(tmp_path / "out", 0, 60.0) as process:
        go(process)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ArtifactError, match="last 1 shard and has not moved on"):
                build(tmp_path / "out")
        finally:
            process.kill()
    build(tmp_path / "out")


def test_who_waits_does_not_lose_patience_with_one_that_is_slow_and_at_work(
    store: PassageStore,
    tower: Embedder,
    config: IndexConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shard takes longer than the patience, each of its passages much less."""
    monkeypatch.setattr(builder, "PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr(builder, "TOUCH_SECONDS", 0.0)
    monkeypatch.setattr(builder, "POLL_SECONDS", 0.05)
    one_at_a_time = config.model_copy(update={"batch_tokens": 1})
    version = EmbedderVersion(model_hash="abc", step=3)
    has_begun = threading.Event()

    def build(share: tuple[int, int], progress: Callable[[int, int], None] | None) -> Snapshot:
        out = tmp_path / "out"
        return build_index(
            tower, store, out, version=version, config=one_at_a_time, share=share, progress=progress
        )

    def dawdle(_: int, __: int) -> None:
        has_begun.set()
        time.sleep(0.4)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(build, (0, 2), dawdle)
        assert has_begun.wait(timeout=60)
        assert len(build((1, 2), None)) == len(slow.result(timeout=60))


def test_who_waits_can_be_called_off(
    another: Builder, build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    """A builder whose trainer is gone does not wait ten minutes for another one."""

    class CalledOffError(Exception):
        pass

    def progress(done: int, _: int) -> None:
        if done >= 19:  # all but the other's shard
            raise CalledOffError

    with another(tmp_path / "out", 0, 60.0) as process:
        go(process)
        assert process.stdout is not None
        process.stdout.readline()
        build_all_but_one = pytest.raises(CalledOffError)
        with build_all_but_one:
            build(tmp_path / "out", progress=progress)
        with pytest.raises(CalledOffError):  # while it waits, now
            build(tmp_path / "out", progress=progress)
        process.kill()


def test_a_scratch_folder_that_is_taken_away_is_not_made_again(
    build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    """The trainer gives a sweep up, in mid-shard: an error, and nothing is left over."""
    out = tmp_path / "out"

    def progress(done: int, _: int) -> None:
        if done > 12:
            with suppress(FileNotFoundError):
                shutil.rmtree(scratch_folder(out))

    with pytest.raises(ArtifactError, match="found no folder"):
        build(out, progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_one_that_is_overtaken_opens_what_the_other_has_published(
    build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    build(tmp_path / "expected")
    out = tmp_path / "out"

    def progress(done: int, _: int) -> None:
        if done > 12 and not out.exists():
            shutil.rmtree(scratch_folder(out))
            shutil.copytree(tmp_path / "expected", out)

    found = build(out, progress=progress)
    assert torch.equal(found.exact[torch.arange(24)], Snapshot.open(out).exact[torch.arange(24)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out"]
