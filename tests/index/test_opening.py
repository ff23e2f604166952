"""Which snapshot a run answers with."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from realm.checkpoint.parts import Model, tower_hash
from realm.config import IndexConfig
from realm.errors import DamagedError
from realm.index import opening
from realm.index.builder import EmbedderVersion, build_index
from realm.index.opening import (
    adopt_snapshot,
    find_snapshot,
    known_from,
    open_snapshot,
    standing_snapshot,
)
from realm.index.snapshot import STEPS, snapshot_folder
from realm.index.writing import write_matrix
from realm.ranks import Ranks

if TYPE_CHECKING:
    from realm.corpus.store import PassageStore
    from realm.index.snapshot import Snapshot
    from realm.model.embedder import Towers


def build(run: Path, towers: "Towers", store: "PassageStore", step: int) -> "Snapshot":
    return build_index(
        towers.passage,
        store,
        snapshot_folder(run, step),
        version=EmbedderVersion(model_hash=tower_hash(towers.passage), step=step),
        config=IndexConfig(autocast="none"),
    )


def test_a_snapshot_is_found_by_embedder_and_passages(
    store: "PassageStore", make_store: Any, articles: Any, make_towers: Any, tmp_path: Path
) -> None:
    towers, others = make_towers(seed=1), make_towers(seed=2)
    built = build(tmp_path / "run", towers, store, 40)
    found = find_snapshot(tmp_path / "run", towers.passage, store)
    assert found is not None
    assert found.folder == built.folder
    assert find_snapshot(tmp_path / "run", others.passage, store) is None
    assert find_snapshot(tmp_path / "run", towers.passage, make_store(articles[:3])) is None


def test_ranks_share_the_index_that_a_run_trains_with(
    store: "PassageStore", make_towers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard by shard, each beginning elsewhere: until 0.14 one built it, and the others waited."""
    towers = make_towers()
    run = tmp_path / "run"
    monkeypatch.setattr(opening, "KEPT_SHARD_ROWS", 4)
    shares: list[tuple[int, int]] = []
    real = opening.build_index

    def watched(*arguments: Any, share: tuple[int, int], **settings: Any) -> "Snapshot":
        shares.append(share)
        return real(*arguments, share=share, **settings)

    monkeypatch.setattr(opening, "build_index", watched)
    monkeypatch.setattr(Ranks, "first_goes_first", lambda _: nullcontext())
    for rank in (1, 0):
        found = standing_snapshot(
            run, run, towers.passage, store, IndexConfig(), ranks=Ranks(rank=rank, world=2)
        )
        assert len(list(found.folder.glob("exact-*"))) == math.ceil(len(store) / 4)
    assert shares == [(1, 2)]  # the other finds it


def test_a_damaged_snapshot_is_told_and_an_unfinished_one_is_passed_over(
    store: "PassageStore", make_towers: Any, tmp_path: Path
) -> None:
    towers = make_towers()
    built = build(tmp_path / "run", towers, store, 0)
    exact = built.folder / "exact-00000.f32"
    content = exact.read_bytes()
    exact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"exact-00000\.f32 is damaged"):
        find_snapshot(tmp_path / "run", towers.passage, store)
    (built.folder / "manifest.json").unlink()
    assert find_snapshot(tmp_path / "run", towers.passage, store) is None


def test_a_snapshot_of_others_is_not_read_through(
    store: "PassageStore", make_towers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run keeps several, and each may have gigabytes."""
    towers, others = make_towers(seed=1), make_towers(seed=2)
    run = tmp_path / "run"
    build(run, others, store, 20)
    built = build(run, towers, store, 40)
    opened: list[Path] = []
    real = opening.Snapshot.open

    def watched(folder: Path) -> "Snapshot":
        opened.append(folder)
        return real(folder)

    monkeypatch.setattr(opening.Snapshot, "open", watched)
    assert find_snapshot(run, towers.passage, store) is not None
    assert opened == [built.folder]


def test_a_snapshot_with_rows_of_other_parameters_is_passed_over(
    store: "PassageStore", make_towers: Any, tmp_path: Path
) -> None:
    """A rolling refresh names it by its oldest row; the model of that step has no other rows."""
    towers = make_towers()
    built = build(tmp_path / "run", towers, store, 40)
    steps = torch.full((len(store),), 40, dtype=torch.int32)
    write_matrix(built.folder / STEPS, steps)
    assert find_snapshot(tmp_path / "run", towers.passage, store) is not None
    steps[3] = 44
    write_matrix(built.folder / STEPS, steps)
    assert find_snapshot(tmp_path / "run", towers.passage, store) is None


def test_an_adopted_snapshot_is_a_copy_of_its_own(
    store: "PassageStore", make_towers: Any, tmp_path: Path
) -> None:
    towers = make_towers()
    built = build(tmp_path / "start", towers, store, 40)
    copied = adopt_snapshot(built, tmp_path / "run")
    assert copied.folder == snapshot_folder(tmp_path / "run", 40)
    rows = torch.arange(len(store))
    assert torch.equal(copied.exact[rows], built.exact[rows])
    assert find_snapshot(tmp_path / "run", towers.passage, store) is not None


def test_damage_is_not_adopted_however_large_the_snapshot_is(
    store: "PassageStore", make_towers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(tmp_path / "start", make_towers(), store, 40)
    monkeypatch.setattr("realm.storage.checking.CHECKED_BYTES", 0)
    scan = built.folder / "scan-00000.bf16"
    content = scan.read_bytes()
    scan.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"start/index/step-40/scan-00000\.bf16 is damaged"):
        adopt_snapshot(built, tmp_path / "run")
    assert not snapshot_folder(tmp_path / "run", 40).exists()


def test_other_passages_are_embedded_once_and_kept(
    store: "PassageStore", make_store: Any, articles: Any, make_towers: Any, tmp_path: Path
) -> None:
    model = Model(tokenizer=store.tokenizer, towers=make_towers())
    other = make_store(articles[:4])
    told: list[int] = []
    first = open_snapshot(tmp_path, model, other, progress=lambda done, _: told.append(done))
    assert told
    told.clear()
    again = open_snapshot(tmp_path, model, other, progress=lambda done, _: told.append(done))
    assert not told
    assert again.folder == first.folder


def test_embedding_other_passages_goes_on_after_it_was_killed(
    store: "PassageStore", make_towers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "KEPT_SHARD_ROWS", 4)
    model = Model(tokenizer=store.tokenizer, towers=make_towers())
    shards = math.ceil(len(store) / 4)

    def stop(done: int, _: int) -> None:
        if done > 4 * (shards - 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_snapshot(tmp_path, model, store, progress=stop)
    told: list[int] = []
    open_snapshot(tmp_path, model, store, progress=lambda done, _: told.append(done))
    assert min(told) > 4 * (shards - 1)  # only the last shard was left


def test_vectors_are_taken_over_from_a_snapshot_only_where_the_same_would_be_made(
    store: "PassageStore", make_store: Any, articles: Any, make_towers: Any, tmp_path: Path
) -> None:
    towers = make_towers()
    built = build(tmp_path / "run", towers, store, 40)
    same, config = (
        EmbedderVersion(model_hash=built.model_hash, step=7),
        IndexConfig(autocast="none"),
    )
    known = known_from(built, same, store, config)
    assert known is not None
    places, vectors = known([3, 1])
    assert places == [0, 1]
    assert torch.equal(vectors, built.exact[torch.tensor([3, 1])])
    shorter = IndexConfig(autocast="none", passage_wordpieces=20)
    other = EmbedderVersion(model_hash="other")
    assert known_from(None, same, store, config) is None
    assert known_from(built, other, store, config) is None
    assert known_from(built, same, store, shorter) is None
    assert known_from(built, same, store, IndexConfig()) is None
    assert known_from(built, same, make_store(articles[:3]), config) is None
