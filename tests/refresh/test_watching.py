"""What the trainer is given: whole, of its own passages and branch; else the older one stays."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import UnreadableError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot, shard_names, snapshot_folder
from realm.model.embedder import Embedder
from realm.refresh.patches import publish_patch
from realm.refresh.watching import Watcher
from realm.storage import checking


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def build(
    tmp_path: Path, store: PassageStore, tower: Embedder, index_config: IndexConfig
) -> Callable[..., Snapshot]:
    def build_it(step: int, passages: PassageStore | None = None) -> Snapshot:
        version = EmbedderVersion(model_hash=tower_hash(tower), step=step)
        folder = snapshot_folder(tmp_path, step)
        return build_index(tower, passages or store, folder, version=version, config=index_config)

    return build_it


@pytest.fixture
def watcher(tmp_path: Path, store: PassageStore, told: list[str], tower: Embedder) -> Watcher:
    one = Watcher(tmp_path, store.fingerprint, is_rolling=True, tell=told.append)
    one.allow(dict.fromkeys((0, 5, 10), tower_hash(tower)))
    return one


def test_the_newest_is_taken_once(watcher: Watcher, build: Callable[..., Snapshot]) -> None:
    for step in (0, 5, 10):
        build(step)
    watcher.look()
    ready = watcher.take()
    assert ready.snapshot is not None
    assert ready.snapshot.step == 10
    watcher.look()
    assert watcher.take().snapshot is None


def test_a_flipped_bit_is_refused_by_name_and_the_older_one_taken(
    watcher: Watcher,
    build: Callable[..., Snapshot],
    flip: Callable[[Path], None],
    told: list[str],
) -> None:
    build(5)
    damaged = build(10).folder
    flip(damaged / shard_names(1)[0])
    watcher.look()
    ready = watcher.take()
    assert ready.snapshot is not None
    assert ready.snapshot.step == 5
    assert f"{damaged / shard_names(1)[0]} is damaged: its checksum" in told[0]
    assert "older index stays in use" in told[0]
    assert not damaged.exists()  # so that it is built again
    build(10)
    watcher.look()
    assert watcher.take().snapshot is not None


def test_vectors_of_a_lost_branch_or_of_other_passages_are_refused(
    watcher: Watcher,
    build: Callable[..., Snapshot],
    make_store: Callable[..., PassageStore],
    articles: list[dict[str, str]],
    told: list[str],
) -> None:
    build(7)
    watcher.look()
    assert watcher.take().snapshot is None
    assert "parameters of step 7 that this run has not published" in told[0]
    watcher.allow({10: "others"})
    build(10)
    watcher.look()
    assert watcher.take().snapshot is None
    build(5, make_store(articles[:3]))
    watcher.look()
    assert watcher.take().snapshot is None
    assert "built from passages" in told[2]


def test_patches_are_given_once_and_those_of_a_lost_branch_refused(
    tmp_path: Path, watcher: Watcher, tower: Embedder, store: PassageStore, told: list[str]
) -> None:
    for step, used in ((5, tower_hash(tower)), (10, "others")):
        publish_patch(
            tmp_path,
            torch.tensor([1, 2]),
            torch.ones(2, 16),
            version=EmbedderVersion(model_hash=used, step=step),
            passages_fingerprint=store.fingerprint,
        )
    watcher.look()
    assert [patch.step for patch in watcher.take().patches] == [5]
    assert "step 10 that this run has not published" in told[0]
    watcher.look()
    assert watcher.take().patches == []


def test_what_cannot_be_read_now_stays_and_is_tried_again(
    tmp_path: Path,
    watcher: Watcher,
    build: Callable[..., Snapshot],
    tower: Embedder,
    store: PassageStore,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(5)
    newest = build(10).folder
    version = EmbedderVersion(model_hash=tower_hash(tower), step=10)
    rows, vectors = torch.tensor([1, 2]), torch.ones(2, 16)
    patch = publish_patch(
        tmp_path, rows, vectors, version=version, passages_fingerprint=store.fingerprint
    )
    compare = checking.fingerprint

    def withheld(path: Path) -> str:
        if path.parent in {newest, patch}:
            raise OSError(errno.EIO, "disk", str(path))
        return compare(path)

    with monkeypatch.context() as context:
        context.setattr(checking, "fingerprint", withheld)
        for _ in range(2):
            with pytest.raises(UnreadableError, match=f"cannot read {newest}"):
                watcher.look()
    ready = watcher.take()
    assert ready.snapshot is not None
    assert ready.snapshot.step == 5
    assert not ready.patches
    watcher.look()
    ready = watcher.take()
    assert ready.snapshot is not None
    assert ready.snapshot.step == 10
    assert [one.folder for one in ready.patches] == [patch]
    assert not told


@pytest.mark.parametrize(
    "error",
    [
        OSError("disk"),
        RuntimeError("cannot map"),
        MemoryError("no room"),
        BaseException("a panic"),
    ],
)
def test_the_thread_survives_what_it_cannot_read(
    error: BaseException,
    tmp_path: Path,
    store: PassageStore,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    monkeypatch.setattr("realm.refresh.watching.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("realm.refresh.watching.POLL_SECONDS", 0.01)
    again = threading.Event()
    seen = 0

    def look_after() -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise error
        again.set()

    one = Watcher(
        tmp_path, store.fingerprint, is_rolling=False, tell=told.append, look_after=look_after
    )
    one.start(0)
    assert again.wait(timeout=30.0)
    one.stop()
    words = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    assert f"cannot look for snapshots: {words}; trying again" in told[0]
