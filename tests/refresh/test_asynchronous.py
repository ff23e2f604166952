"""The trainer's side: publish, never wait below the bound, take what is ready, resume."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, StaleIndexError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot, list_snapshots, shard_names, snapshot_folder
from realm.model.embedder import Embedder
from realm.ranks import Ranks
from realm.refresh import publishing
from realm.refresh.asynchronous import AsyncRefresher
from realm.refresh.parameters import Published, list_parameters, load_parameters
from realm.refresh.patches import Patch, list_patches, publish_patch, read_patch
from realm.refresh.presence import see, trainer_file
from realm.refresh.ranked import RankedRefresher
from realm.refresh.watching import Ready
from realm.storage import locked

Learn = Callable[[Embedder], None]
Make = Callable[..., AsyncRefresher]
Build = Callable[[], Snapshot]


@pytest.fixture
def run(started: Callable[..., Path]) -> Path:
    return started()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def make(
    run: Path,
    store: PassageStore,
    index_config: IndexConfig,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Make]:
    monkeypatch.setattr(publishing, "SECONDS_BETWEEN_TRIES", 0.01)
    made: list[AsyncRefresher] = []

    def start(**settings: Any) -> AsyncRefresher:
        config = RefreshConfig(
            **(
                {"every_steps": 10, "max_staleness_steps": 30, "builders": 0, "order": "sweep"}
                | settings
            )
        )
        made.append(AsyncRefresher(run, store, config=config, index=index_config, tell=told.append))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def build(run: Path, store: PassageStore) -> Build:
    """Do what a builder does with the newest parameters."""

    def build_newest() -> Snapshot:
        loaded = load_parameters(list_parameters(run)[-1])
        return build_index(
            loaded.tower,
            store,
            snapshot_folder(run, loaded.published.step),
            version=loaded.published.version,
            config=loaded.index,
        )

    return build_newest


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30.0
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def published(run: Path) -> int:
    found = list_parameters(run)
    return found[-1].step if found else -1


def until_published(keeper: AsyncRefresher, step: int) -> None:
    """Wait until parameters lie ready and the thread that wrote them is done cleaning up."""
    until(lambda: published(keeper.run) == step)
    keeper._publisher.wait(30.0)


def take(keeper: AsyncRefresher, tower: Embedder, step: int) -> None:
    """Let the trainer stand at a step until the other thread has laid the newest ready."""
    until(lambda: keeper.advance(tower, step) and keeper.snapshot.step)


def test_it_publishes_every_so_many_steps_and_never_waits_below_the_bound(
    run: Path, make: Make, tower: Embedder, learn: Learn
) -> None:
    keeper, seen = make(), []
    for step in range(31):
        keeper.advance(tower, step)
        if step % 10 == 0:
            until_published(keeper, step)
            seen.append(list_parameters(run)[-1].model_hash == tower_hash(tower))
        assert keeper.staleness(step) == step
        learn(tower)
    assert seen == [True] * 4
    assert [one.step for one in list_parameters(run)] == [20, 30]
    values = see(trainer_file(run)).values  # type: ignore[union-attr]
    assert values["state"] == "training"


def test_what_is_published_does_not_learn_on(
    run: Path, make: Make, tower: Embedder, learn: Learn
) -> None:
    keeper = make()
    keeper.advance(tower, 0)
    expected = tower_hash(tower)
    keeper.advance(tower, 10)
    learn(tower)
    until_published(keeper, 10)
    assert tower_hash(load_parameters(list_parameters(run)[-1]).tower) == expected


def test_a_new_snapshot_is_swapped_in_and_told_once(
    make: Make, tower: Embedder, build: Build, learn: Learn
) -> None:
    keeper = make()
    keeper.advance(tower, 0)
    assert keeper.measures(0)["index/refreshed"] == 1.0
    learn(tower)
    keeper.advance(tower, 10)
    assert keeper.measures(10)["index/refreshed"] == 0.0
    until_published(keeper, 10)
    expected = build()
    take(keeper, tower, 12)
    measured = keeper.measures(12)
    assert measured["index/refreshed"] == 1.0
    assert measured["index/staleness_steps"] == measured["index/mean_staleness_steps"] == 2.0
    assert 0.0 < measured["index/swap_seconds"] < 1.0
    assert 0.0 < measured["index/age_seconds"] < 60.0
    assert torch.equal(keeper.index.vectors(torch.arange(24)), expected.exact[torch.arange(24)])
    again = keeper.measures(13)
    assert again["index/refreshed"] == again["index/swap_seconds"] == 0.0


def test_patches_are_taken_row_by_row(
    run: Path, make: Make, tower: Embedder, store: PassageStore
) -> None:
    keeper = make(order="oldest")
    keeper.advance(tower, 0)
    keeper.advance(tower, 10)
    until_published(keeper, 10)
    rows, vectors = torch.tensor([3, 8]), torch.ones(2, 16)
    version = list_parameters(run)[-1].version
    publish_patch(run, rows, vectors, version=version, passages_fingerprint=store.fingerprint)
    until(lambda: keeper.advance(tower, 12) and keeper.index.row_steps.max() == 10)
    assert torch.equal(keeper.index.vectors(rows), vectors)
    assert keeper.staleness(12) == 12
    assert keeper.measures(12)["index/mean_staleness_steps"] == pytest.approx(12 - 20 / 24)


def test_other_ranks_are_told_of_nothing_that_may_be_gone_when_they_come_to_read_it(
    run: Path, make: Make, tower: Embedder, store: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches and, later in the same wait, a snapshot newer than some of them: those go with it."""
    keeper, mirror = make(order="oldest"), RankedRefresher(None, store, Ranks(rank=1, world=2))
    monkeypatch.setattr(
        Ranks, "from_first", lambda *_: {"has_refreshed": True, "taken": keeper.taken()}
    )
    keeper.is_mirrored = True
    keeper.advance(tower, 0)
    keeper._watcher.stop()
    mirror.advance(tower, 0)

    def patch(row: int, step: int) -> Patch:
        version = EmbedderVersion(model_hash=tower_hash(tower), step=step)
        rows, vectors = torch.tensor([row]), torch.full((1, 16), float(step))
        folder = publish_patch(
            run, rows, vectors, version=version, passages_fingerprint=store.fingerprint
        )
        return read_patch(folder, store.fingerprint)

    version = EmbedderVersion(model_hash=tower_hash(tower), step=10)
    snapshot = build_index(
        tower, store, snapshot_folder(run, 10), version=version, config=keeper.index_config
    )
    keeper._take(Ready(patches=[patch(3, 5), patch(8, 12)]))
    keeper._take(Ready(snapshot=snapshot, patches=[patch(4, 7), patch(9, 11)]))
    keeper._clean()
    assert [step for step, _ in list_patches(run)] == [11, 12]
    mirror.advance(tower, 13)
    everything = torch.arange(24)
    assert torch.equal(mirror.index.row_steps, keeper.index.row_steps)
    assert torch.equal(mirror.index.vectors(everything), keeper.index.vectors(everything))
    assert keeper.index.row_steps[[3, 4, 8, 9]].tolist() == [10, 10, 12, 11]


def test_beyond_the_bound_it_publishes_says_why_and_waits_for_a_builder(
    run: Path, make: Make, tower: Embedder, build: Build, told: list[str]
) -> None:
    keeper = make(every_steps=1_000)
    keeper.advance(tower, 0)
    keeper.advance(tower, 30)
    assert told == []

    def build_late() -> None:
        until(lambda: published(run) == 31)
        assert see(trainer_file(run)).values["state"] == "waiting for a builder"  # type: ignore[union-attr]
        build()

    builder = threading.Thread(target=build_late)
    builder.start()
    keeper.advance(tower, 31)
    builder.join()
    assert keeper.staleness(31) == 0
    assert told[0] == (
        "waiting for a builder: the index is 31 steps old at step 31, limit 30 "
        "(no builder has come up)"
    )
    assert told[-1].startswith("waited ")


def test_a_builder_that_does_not_move_on_is_waited_for_with_a_limit(
    make: Make, tower: Embedder
) -> None:
    keeper = make(max_wait_seconds=0.3)
    keeper.advance(tower, 0)
    told = (
        r"no builder moved on for .* no builder has come up.* refresh.builders=N.* --follow .*run`"
    )
    with pytest.raises(StaleIndexError, match=told):
        keeper.advance(tower, 31)


def test_a_builder_that_fails_again_and_again_does_not_count_as_moving_on(
    run: Path, make: Make, tower: Embedder
) -> None:
    """With a full disk its state changes for ever, and it comes no further."""
    from realm.refresh.presence import builder_file, present

    keeper, stop = make(max_wait_seconds=0.5), threading.Event()
    keeper.advance(tower, 0)

    def fail() -> None:
        with present(builder_file(run, 0)) as presence:
            while not stop.wait(0.05):
                presence.tell(state="embedding for step 31", for_step=31, done=5, total=24)
                presence.tell(state="failed: disk full")

    builder = threading.Thread(target=fail)
    builder.start()
    began = time.monotonic()
    try:
        with pytest.raises(StaleIndexError, match="builder-0: "):
            keeper.advance(tower, 31)
    finally:
        stop.set()
        builder.join()
    assert time.monotonic() - began < 20.0


def test_it_stops_where_that_is_wanted_but_not_before_it_was_fresh_once(
    run: Path, make: Make, tower: Embedder, build: Build
) -> None:
    """A resumed run may be older than the bound: it could never go on."""
    keeper = make(when_stale="stop")
    keeper.advance(tower, 0)
    keeper.advance(tower, 10)
    until_published(keeper, 10)
    state = keeper.state()
    keeper.advance(tower, 30)
    with pytest.raises(StaleIndexError, match=r"refresh.when_stale is 'stop'"):
        keeper.advance(tower, 31)
    keeper.close()
    again = make(when_stale="stop")
    again.restore(state, 31)
    builder = threading.Thread(target=lambda: (until(lambda: published(run) == 31), build()))
    builder.start()
    again.advance(tower, 31)
    builder.join()
    assert again.staleness(31) == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ArtifactError("no space left"), "no space left"),
        (MemoryError("no room"), "MemoryError: no room"),
        (RuntimeError("CUDA error"), "RuntimeError: CUDA error"),
        (BaseException("a panic"), "BaseException: a panic"),
    ],
)
def test_a_publication_that_failed_is_tried_again(
    run: Path,
    make: Make,
    tower: Embedder,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    words: str,
) -> None:
    real, tries = publishing.publish_parameters, []

    def fail_twice(*args: Any, **settings: Any) -> Published:
        tries.append(1)
        if 1 < len(tries) <= 3:
            raise error
        return real(*args, **settings)

    monkeypatch.setattr(publishing, "publish_parameters", fail_twice)
    keeper = make()
    keeper.advance(tower, 0)
    for step in range(10, 30):
        keeper.advance(tower, step)
        if published(run) >= 10:
            break
        time.sleep(0.1)
    assert 12 <= published(run) < 20
    assert [one for one in told if f": {words}; trying again" in one] == told[:2]


def test_a_publication_that_fails_for_ever_ends_the_run_beyond_the_bound_and_says_why(
    make: Make, tower: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = make(max_wait_seconds=0.3)
    keeper.advance(tower, 0)

    def fail(*_: Any, **__: Any) -> Published:
        raise ValueError("a bug")

    monkeypatch.setattr(publishing, "publish_parameters", fail)
    with pytest.raises(StaleIndexError, match="could not be published: ValueError: a bug"):
        keeper.advance(tower, 31)


def test_it_goes_on_with_the_newest_snapshot_of_its_branch_and_forgets_the_lost_one(
    run: Path, make: Make, tower: Embedder, build: Build, learn: Learn
) -> None:
    keeper = make(keep_snapshots=5)
    keeper.advance(tower, 0)
    state = {}
    for step in (10, 20):
        learn(tower)
        keeper.advance(tower, step)
        until_published(keeper, step)
        build()
        if step == 10:
            state = keeper.state()  # a checkpoint of step 15, say; snapshot 10 came just after
    keeper.close()
    again = make()
    again.restore(state, 15)
    assert again.snapshot.step == 10
    assert [step for step, _ in list_snapshots(run)] == [0, 10]
    assert published(run) == 10
    assert again.advance(tower, 15) is False


def test_a_damaged_snapshot_is_left_for_the_older_one_and_without_any_one_is_built(
    run: Path,
    make: Make,
    tower: Embedder,
    build: Build,
    flip: Callable[[Path], None],
    told: list[str],
) -> None:
    keeper = make()
    keeper.advance(tower, 0)
    keeper.advance(tower, 10)
    until_published(keeper, 10)
    flip(build().folder / shard_names(0)[1])
    state = keeper.state()
    keeper.close()
    again = make()
    again.restore(state, 12)
    assert again.snapshot.step == 0
    assert "is damaged: its checksum" in told[0]
    again.close()
    shutil.rmtree(run / "index")
    third = make()
    third.restore(state, 12)
    with pytest.raises(ArtifactError, match="no snapshot is open"):
        _ = third.index
    third.advance(tower, 12)
    assert third.snapshot.step == 12


@pytest.mark.parametrize("how", ["damaged", "other parameters"])
def test_what_a_run_left_that_was_killed_before_its_first_checkpoint_misleads_nobody(
    how: str,
    run: Path,
    make: Make,
    tower: Embedder,
    build: Build,
    learn: Learn,
    flip: Callable[[Path], None],
) -> None:
    """Else builders would embed its newest parameters for ever, and the trainer refuse them."""
    keeper = make()
    keeper.advance(tower, 0)
    if how == "damaged":
        flip(keeper.snapshot.folder / shard_names(0)[1])
    keeper.advance(tower, 20)
    until_published(keeper, 20)
    build()
    keeper.close()
    if how == "other parameters":
        learn(tower)
    again = make()
    again.advance(tower, 0)
    assert published(run) == 0
    assert [step for step, _ in list_snapshots(run)] == [0]
    found = Snapshot.open(snapshot_folder(run, 0), verify=True)
    assert found.model_hash == tower_hash(tower)


def test_the_newest_snapshots_are_kept_on_disk(
    run: Path, make: Make, tower: Embedder, build: Build
) -> None:
    keeper = make(keep_snapshots=2)
    keeper.advance(tower, 0)
    for step in (10, 20, 30, 40):
        keeper.advance(tower, step)
        until_published(keeper, step)
        build()
        until(lambda: keeper.advance(tower, step) and keeper.snapshot.step == step)  # noqa: B023
    until(lambda: [step for step, _ in list_snapshots(run)] == [30, 40])


def test_what_kills_left_half_written_or_half_removed_goes_and_what_is_being_written_stays(
    run: Path, make: Make, tower: Embedder
) -> None:
    keeper = make(every_steps=1_000)
    keeper.advance(tower, 10)

    def hide(name: str) -> Path:
        (run / name).mkdir(parents=True)
        (run / name / "exact.f32").write_bytes(b"1234")
        return run / name

    left = [
        hide(f"{folder}/.step-{name}")
        for folder in ("index", "embedders", "patches")
        for name in ("3.partial", "3.removed")
    ]
    left += [hide("patches/.step-4.0a1b2c3d.partial"), hide("index/..step-3.partial.removed")]
    kept = [hide("patches/.step-12.0a1b2c3d.partial"), hide("embedders/.step-12.partial")]
    written = [
        hide("patches/.step-5.0a1b2c3d.partial"),
        hide("embedders/.step-5.partial"),
        hide("index/.step-5.partial"),
        hide("index/.step-6.partial"),
    ]
    with ExitStack() as held:
        for name in ("patches/step-5.0a1b2c3d", "embedders/step-5", "index/step-5"):
            held.enter_context(locked(run / name))
        held.enter_context(locked(written[3] / "shard-00000"))
        keeper._clean()
        assert [path for path in left if path.exists()] == []
        assert all(path.is_dir() for path in [*kept, *written])
    keeper._clean()
    assert [path for path in written if path.exists()] == []


def test_a_fall_of_the_agreement_publishes_and_so_does_half_the_bound(
    run: Path, make: Make, tower: Embedder
) -> None:
    keeper = make(drift_bound=0.1, every_steps=1)
    keeper.advance(tower, 0)
    for step in range(1, 8):
        keeper.drift.observe(0.9 if step < 7 else 0.2)
        keeper.advance(tower, step)
    until_published(keeper, 7)
    for step in range(8, 22):
        keeper.advance(tower, step)
        assert published(run) == 7
    keeper.advance(tower, 22)
    until_published(keeper, 22)
