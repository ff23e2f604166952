"""A builder: takes the newest parameters, goes on with what was begun, ends when it should."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot, list_snapshots, snapshot_folder
from realm.model.embedder import Embedder
from realm.refresh import following
from realm.refresh.choosing import next_version
from realm.refresh.following import FollowConfig, FollowReport, follow
from realm.refresh.parameters import Published, list_parameters
from realm.refresh.patches import list_patches
from realm.refresh.presence import builders_of
from tests.towns import call_realm

Publish = Callable[..., Published]
Learn = Callable[[Embedder], None]
Follow = Callable[..., FollowReport]


@pytest.fixture
def until(monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Be a builder until something is so, as if the parent ended then."""
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.02)

    def run_until(run: Path, what: Callable[[], object], **settings: Any) -> FollowReport:
        looks = 0

        def is_parent_alive() -> bool:
            nonlocal looks
            looks += 1
            assert looks < 3_000, "it never came"
            return not what()

        config = FollowConfig(poll_seconds=0.01)
        return follow(run, config=config, is_parent_alive=is_parent_alive, **settings)

    return run_until


def newest(run: Path) -> int:
    found = list_snapshots(run)
    return found[-1][0] if found else -1


def test_the_newest_parameters_are_taken_and_those_in_between_skipped(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow
) -> None:
    run = started()
    for step in (0, 10, 20):
        publish(run, tower, step)
    report = until(run, lambda: newest(run) == 20)
    assert [step for step, _ in list_snapshots(run)] == [20]
    assert report.sweeps == 1
    assert "trainer that started this builder is gone" in report.reason
    assert next_version(run) is None
    Snapshot.open(snapshot_folder(run, 20), verify=True)


def test_a_sweep_that_was_begun_is_brought_to_its_end_first(
    started: Callable[..., Path],
    publish: Publish,
    tower: Embedder,
    store: PassageStore,
    index_config: IndexConfig,
    until: Follow,
) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, _: int) -> None:
        if done > 12:
            raise KilledError

    run = started()
    begun = publish(run, tower, 10)
    with pytest.raises(KilledError):
        build_index(
            tower,
            store,
            snapshot_folder(run, 10),
            version=begun.version,
            config=index_config,
            progress=kill,
        )
    publish(run, tower, 20)
    assert next_version(run) == begun
    until(run, lambda: newest(run) == 20)
    assert [step for step, _ in list_snapshots(run)] == [10, 20]


def test_a_half_written_folder_is_removed_and_built(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow
) -> None:
    run = started()
    publish(run, tower, 10)
    snapshot_folder(run, 10).mkdir(parents=True)
    (snapshot_folder(run, 10) / "scan-00000.bf16").write_bytes(b"half")
    until(run, lambda: newest(run) == 10)
    Snapshot.open(snapshot_folder(run, 10), verify=True)


def test_damaged_parameters_are_told_and_others_tried_even_in_mid_sweep(
    started: Callable[..., Path],
    publish: Publish,
    tower: Embedder,
    until: Follow,
    flip: Callable[[Path], None],
) -> None:
    run, told = started(), []
    publish(run, tower, 10)
    damaged = publish(run, tower, 20)
    flip(damaged.folder / "model.safetensors")
    until(run, lambda: newest(run) == 10, tell=told.append)
    assert "step-20/model.safetensors is damaged" in told[0]
    assert "trying again" in told[0]
    publish(run, tower, 20)  # the trainer publishes it anew
    until(run, lambda: newest(run) == 20)


@pytest.mark.parametrize("when", ["before reading", "half read"])
def test_parameters_that_vanish_while_they_are_read_are_no_failure(
    when: str,
    started: Callable[..., Path],
    publish: Publish,
    tower: Embedder,
    until: Follow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, told = started(), []
    gone = publish(run, tower, 10)
    real = following.load_parameters

    def load(published: Published, device: torch.device) -> object:
        if published == gone:
            shutil.rmtree(gone.folder)
            publish(run, tower, 20)
            if when == "half read":
                raise ConfigError("found no tokenizer")
        return real(published, device)

    monkeypatch.setattr(following, "load_parameters", load)
    until(run, lambda: newest(run) == 20, tell=told.append)
    assert not any("cannot build" in one for one in told)


def test_waits_end_with_a_sentence(tmp_path: Path, started: Callable[..., Path]) -> None:
    config = FollowConfig(patience_seconds=0.05, poll_seconds=0.01)
    with pytest.raises(ConfigError, match=r"no sign of a trainer for 0 seconds .*--patience"):
        follow(tmp_path / "none", config=config)
    with pytest.raises(ConfigError, match="no sign of a trainer"):
        follow(started(), config=config)


def test_who_waits_for_a_run_that_is_not_there_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "TELL_SECONDS", 0.05)
    told: list[str] = []
    config = FollowConfig(patience_seconds=0.2, poll_seconds=0.01)
    with pytest.raises(ConfigError, match="no sign of a trainer"):
        follow(tmp_path / "typo", config=config, tell=told.append)
    assert 2 <= len(told) <= 5
    assert "waiting for a trainer: no run in" in told[0]
    assert "typo yet, for 0 of at most 0 s (--patience)" in told[0]


def test_what_no_waiting_mends_is_refused_at_once(
    started: Callable[..., Path], make_store: Callable[..., PassageStore], articles: list[Any]
) -> None:
    with pytest.raises(ConfigError, match=r"refreshes its index by itself \(refresh.mode=sync"):
        follow(started("sync", mode="sync"))
    other = make_store(articles[:3]).folder
    with pytest.raises(ConfigError, match="holds other passages than"):
        follow(started(), passages=other)
    with pytest.raises(ArtifactError, match="found"):
        follow(started("gone"), passages=other / "none")


def test_a_log_that_cannot_be_written_stops_no_builder(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow
) -> None:
    """It lies on the disk that is full."""

    def fail(_: str) -> None:
        raise OSError("no space left")

    run = started()
    publish(run, tower, 0)
    until(run, lambda: newest(run) == 0, tell=fail)


def test_it_ends_with_the_run_and_is_seen_meanwhile(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow
) -> None:
    run = started()
    publish(run, tower, 0)
    states: set[str] = set()

    def look() -> bool:
        states.update(str(one.values["state"]) for one in builders_of(run) if one.is_alive)
        if newest(run) == 0 and "waiting for parameters" in states:
            (run / "manifest.json").write_text(json.dumps({}))
        return False

    assert until(run, look).reason == "the run is finished"
    assert {"waiting for parameters", "embedding for step 0"} <= states


def test_rolling_publishes_patches_and_a_snapshot_only_once_all_rows_are_newer(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow, learn: Learn
) -> None:
    run = started(order="oldest")
    publish(run, tower, 0)
    until(run, lambda: newest(run) == 0)
    learn(tower)
    publish(run, tower, 10)
    until(run, lambda: len(list_patches(run)) == 2)
    assert newest(run) == 0
    learn(tower)
    publish(run, tower, 20)
    until(run, lambda: newest(run) > 0)
    found = Snapshot.open(list_snapshots(run)[-1][1], verify=True)
    assert found.row_steps is not None
    assert int(found.row_steps.min()) == found.step > 0
    until(run, lambda: newest(run) == 20)
    whole = Snapshot.open(snapshot_folder(run, 20), verify=True)
    version = EmbedderVersion(model_hash=list_parameters(run)[-1].model_hash, step=20)
    assert whole.model_hash == version.model_hash
    assert next_version(run, finish_begun=False) is None


def test_a_rolling_builder_ends_with_its_trainer_also_while_it_embeds(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow, learn: Learn
) -> None:
    run = started(order="oldest")
    publish(run, tower, 0)
    until(run, lambda: newest(run) == 0)
    learn(tower)
    publish(run, tower, 10)

    states: set[str] = set()

    def has_embedded() -> bool:
        states.update(seen.values["state"] for seen in builders_of(run))
        return "embedding for step 10" in states

    assert "trainer that started this builder is gone" in until(run, has_embedded).reason
    assert list_patches(run) == []


def test_rolling_reads_anew_what_a_trainer_that_went_back_publishes(
    started: Callable[..., Path], publish: Publish, tower: Embedder, until: Follow, learn: Learn
) -> None:
    run = started(order="oldest")
    publish(run, tower, 0)
    until(run, lambda: newest(run) == 0)
    learn(tower)
    lost = publish(run, tower, 10)
    again = False

    def look() -> bool:
        nonlocal again
        if not again and len(list_patches(run)) >= 2:
            again = True
            for _, folder in list_patches(run):
                shutil.rmtree(folder)
            learn(tower)
            publish(run, tower, 10)
        return newest(run) == 10

    until(run, look)
    found = json.loads((snapshot_folder(run, 10) / "manifest.json").read_text())
    assert lost.model_hash not in found["content"]["versions"].values()


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (("passages", "others"), "a second PASSAGES"),
        (("--out", "index"), "--out"),
        (("--config", "realm.toml"), "--config"),
        (("--set", "shard_rows=16", "--rebuild"), "--set and --rebuild"),
    ],
)
def test_what_a_builder_does_not_look_at_is_refused(
    tmp_path: Path, more: tuple[str, ...], found: str
) -> None:
    told = call_realm("index", "--follow", tmp_path / "run", "--patience", "1", *more).message
    assert told.startswith(f"found {found} beside --follow, expected none of it")
