"""The index is rebuilt on time, or training stops (section 3.3)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.checkpoint.checkpoints import TrainingState, checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, StaleIndexError
from realm.index.snapshot import Snapshot, shard_names, snapshot_folder
from realm.model.embedder import Embedder, Towers
from realm.records import Progress
from realm.refresh.sync import SyncRefresher
from realm.tokenizer import WordpieceTokenizer

INDEX = IndexConfig(autocast="none", passage_wordpieces=64)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def refresher(run: Path, store: PassageStore) -> Callable[..., SyncRefresher]:
    def make(
        progress: Progress | None = None, passages: PassageStore | None = None, **settings: object
    ) -> SyncRefresher:
        config = RefreshConfig(
            **{"mode": "sync", "every_steps": 10, "max_staleness_steps": 12, **settings}
        )
        return SyncRefresher(run, passages or store, config=config, index=INDEX, progress=progress)

    return make


@pytest.fixture
def tower(make_towers: Callable[..., Towers]) -> Embedder:
    return make_towers().passage


def learn(tower: Embedder) -> None:
    with torch.no_grad():
        tower.projection.weight.add_(0.01)


def snapshots(run: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "index").iterdir())


def test_sync_refreshes_at_the_start_and_every_so_many_steps(
    run: Path, refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    refreshed = []
    keeper = refresher()
    for step in range(31):
        if keeper.advance(tower, step):
            refreshed.append(step)
        assert keeper.staleness(step) == step % 10
        assert keeper.snapshot.model_hash == tower_hash(tower) or step % 10
        learn(tower)
    assert refreshed == [0, 10, 20, 30]
    assert snapshots(run) == [30]


def test_a_refreshed_snapshot_has_the_vectors_of_the_parameters_of_its_step(
    refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    keeper = refresher()
    keeper.advance(tower, 0)
    before = keeper.snapshot
    learn(tower)
    keeper.advance(tower, 10)
    assert keeper.snapshot.step == 10
    assert keeper.snapshot.model_hash == tower_hash(tower) != before.model_hash


def test_asked_twice_at_one_step_it_refreshes_once(
    refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    keeper = refresher()
    assert keeper.advance(tower, 0)
    assert not keeper.advance(tower, 0)
    assert keeper.advance(tower, 10)
    assert not keeper.advance(tower, 10)


def test_off_keeps_the_first_one_for_ever(
    run: Path, refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    keeper = refresher(mode="off")
    assert [step for step in range(0, 100, 5) if keeper.advance(tower, step)] == [0]
    assert keeper.staleness(95) == 95
    assert snapshots(run) == [0]


def test_training_stops_when_the_index_is_too_old(
    refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    """Steps between two refreshes can be missed by a resume, never by more than the limit."""
    keeper = refresher()
    keeper.advance(tower, 0)
    assert not keeper.advance(tower, 11)
    assert not keeper.advance(tower, 12)
    told = r"built at step 0 .* 13 steps stale, limit 12\. To refresh more often .* another --out$"
    with pytest.raises(StaleIndexError, match=told) as e:
        keeper.advance(tower, 13)
    assert (e.value.index_step, e.value.train_step, e.value.limit_steps) == (0, 13, 12)


def test_with_a_bound_on_drift_it_refreshes_before_the_index_is_too_old(
    refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    """However little the embedder drifts; also after a resume from where it is older than that."""
    keeper = refresher(drift_bound=0.5)
    refreshed: list[int] = []
    for step in range(26):
        if keeper.advance(tower, step):
            refreshed.append(step)
        keeper.drift.observe(0.97)
    assert refreshed == [0, 12, 24]
    again = refresher(drift_bound=0.5)
    again.restore(keeper.state(), 40)
    assert again.advance(tower, 40)
    assert again.staleness(40) == 0


def test_no_snapshot_before_the_first_step(refresher: Callable[..., SyncRefresher]) -> None:
    with pytest.raises(ArtifactError, match="no snapshot is open yet"):
        _ = refresher().snapshot


def test_a_resumed_run_searches_the_snapshot_it_was_searching(
    refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    keeper = refresher()
    keeper.advance(tower, 0)
    keeper.advance(tower, 10)
    again = refresher()
    again.reopen(10)
    assert again.snapshot.model_hash == keeper.snapshot.model_hash
    assert again.staleness(14) == 4
    assert not again.advance(tower, 14)
    assert again.advance(tower, 20)


def test_a_resumed_run_refuses_a_snapshot_that_is_gone_damaged_or_of_another_corpus(
    run: Path,
    refresher: Callable[..., SyncRefresher],
    tower: Embedder,
    articles: list[dict[str, str]],
    make_store: Callable[..., PassageStore],
) -> None:
    refresher().advance(tower, 0)
    with pytest.raises(ArtifactError, match="found no folder"):
        refresher().reopen(5)
    with pytest.raises(ArtifactError, match="built from passages"):
        refresher(passages=make_store(articles[:3])).reopen(0)
    damage(run, 0)
    with pytest.raises(ArtifactError, match="checksum"):
        refresher().reopen(0)


def damage(run: Path, step: int) -> None:
    path = snapshot_folder(run, step) / shard_names(0)[1]
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_snapshots_that_checkpoints_would_resume_with_are_kept(
    run: Path,
    refresher: Callable[..., SyncRefresher],
    tower: Embedder,
    make_towers: Callable[..., Towers],
    tokenizer: WordpieceTokenizer,
) -> None:
    keeper = refresher()

    def save(step: int) -> None:
        state = TrainingState(
            step=step,
            tensors={"moment": torch.zeros(1)},
            values={"snapshot_step": keeper.snapshot.step},
        )
        model = Model(tokenizer=tokenizer, towers=make_towers())
        save_checkpoint(checkpoint_folder(run, step), model, settings={}, inputs={}, state=state)

    keeper.advance(tower, 0)
    save(5)
    keeper.advance(tower, 10)
    keeper.advance(tower, 20)
    assert snapshots(run) == [0, 20]
    save(25)
    shutil.rmtree(checkpoint_folder(run, 5))
    keeper.advance(tower, 30)
    assert snapshots(run) == [20, 30]


def test_a_snapshot_that_a_killed_run_left_whole_is_used(
    refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    refresher().advance(tower, 0)

    def fail(_done: int, _total: int) -> None:
        raise AssertionError

    again = refresher(progress=fail)
    assert again.advance(tower, 0)
    assert again.snapshot.model_hash == tower_hash(tower)


@pytest.mark.parametrize("how", ["damaged", "unfinished", "other parameters", "other passages"])
def test_a_snapshot_that_a_killed_run_left_unusable_is_built_again(
    how: str,
    run: Path,
    refresher: Callable[..., SyncRefresher],
    tower: Embedder,
    articles: list[dict[str, str]],
    make_store: Callable[..., PassageStore],
) -> None:
    other = make_store(articles[:3]) if how == "other passages" else None
    refresher(passages=other).advance(tower, 0)
    if how == "damaged":
        damage(run, 0)
    elif how == "unfinished":
        (snapshot_folder(run, 0) / "manifest.json").unlink()
    elif how == "other parameters":
        learn(tower)
    keeper = refresher()
    assert keeper.advance(tower, 0)
    assert len(keeper.snapshot) == 24
    assert keeper.snapshot.model_hash == tower_hash(tower)
    Snapshot.open(snapshot_folder(run, 0), verify=True)


@pytest.mark.parametrize("training", [True, False])
def test_the_tower_goes_on_in_the_mode_it_was_in(
    *, training: bool, refresher: Callable[..., SyncRefresher], tower: Embedder
) -> None:
    tower.train(training)
    refresher().advance(tower, 0)
    assert tower.training is training
