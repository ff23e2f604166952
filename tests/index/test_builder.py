"""Building an index: in order, in shards, resumed where it was killed, with equal bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.index.builder import EmbedderVersion, build_index, embed_sequences
from realm.index.snapshot import Snapshot
from realm.index.writing import write_matrix
from realm.model.embedder import Embedder, Towers
from realm.storage import scratch_folder

CONFIG = IndexConfig(autocast="none", passage_wordpieces=64, shard_rows=7, batch_tokens=256)


class Killed(BaseException):
    """A kill, as far as the builder can tell."""


@pytest.fixture
def build(store: PassageStore, make_towers: Callable[..., Towers]) -> Callable[..., Snapshot]:
    towers = make_towers()

    def build_it(
        out: Path,
        *,
        passages: PassageStore | None = None,
        config: IndexConfig = CONFIG,
        tower: Embedder = towers.passage,
        **settings: object,
    ) -> Snapshot:
        version = EmbedderVersion(model_hash=tower_hash(tower), step=3)
        return build_index(
            tower, passages or store, out, version=version, config=config, **settings
        )

    return build_it


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_the_rows_in_their_order(
    build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    whole = build(tmp_path / "whole", config=CONFIG.model_copy(update={"shard_rows": 100}))
    shards = build(tmp_path / "shards")
    names = sorted(files_of(tmp_path / "shards"))
    assert [n for n in names if n.startswith("scan")] == [f"scan-0000{n}.bf16" for n in range(4)]
    everything = torch.arange(24)
    torch.testing.assert_close(
        shards.exact[everything], whole.exact[everything], rtol=1e-5, atol=1e-5
    )


def test_nothing_but_shards_and_manifest_is_published(
    build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    build(tmp_path / "out", config=CONFIG.model_copy(update={"shard_rows": 100}))
    assert sorted(files_of(tmp_path / "out")) == [
        "exact-00000.f32",
        "manifest.json",
        "scan-00000.bf16",
    ]


@pytest.mark.parametrize("rows_until_kill", [1, 8, 15, 24])
def test_a_killed_build_goes_on_after_its_last_finished_shard(
    rows_until_kill: int, build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    build(tmp_path / "expected")

    def kill(done: int, total: int) -> None:
        assert total == 24
        if done >= rows_until_kill:
            raise Killed

    with pytest.raises(Killed):
        build(tmp_path / "out", progress=kill)
    assert not (tmp_path / "out").exists()
    seen = []
    build(tmp_path / "out", progress=lambda done, _: seen.append(done))
    finished = (rows_until_kill - 1) // 7 * 7
    assert finished < seen[0] <= finished + 7
    assert seen[-1] == 24
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


@pytest.mark.parametrize("num_rows", [20, 5_000])
def test_a_full_disk_is_an_error_and_leaves_no_part_of_a_file(
    num_rows: int, tmp_path: Path
) -> None:
    """Also where only the last bytes find no room; a limit on the file's size stands for it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_rows * 64 - 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_matrix(tmp_path / "exact", torch.ones(num_rows, 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    write_matrix(tmp_path / "exact", torch.ones(num_rows, 16))
    assert (tmp_path / "exact").stat().st_size == num_rows * 64


@pytest.mark.parametrize("name", ["scan-00001.bf16", "exact-00001.f32"])
def test_a_shard_that_a_power_cut_cut_short_is_made_again(
    name: str, build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    build(tmp_path / "expected")

    def kill(done: int, _: object) -> None:
        if done > 14:
            raise Killed

    with pytest.raises(Killed):
        build(tmp_path / "out", progress=kill)
    path = scratch_folder(tmp_path / "out") / name
    path.write_bytes(path.read_bytes()[:10])
    seen = []
    build(tmp_path / "out", progress=lambda done, _: seen.append(done))
    assert 7 < seen[0] <= 14
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


def test_another_embedder_does_not_go_on_from_what_was_left(
    build: Callable[..., Snapshot], make_towers: Callable[..., Towers], tmp_path: Path
) -> None:
    def kill(done: int, _: object) -> None:
        if done > 7:
            raise Killed

    with pytest.raises(Killed):
        build(tmp_path / "out", progress=kill)
    other = make_towers(seed=1).passage
    build(tmp_path / "out", tower=other)
    build(tmp_path / "expected", tower=other)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


def test_what_is_already_built_is_opened(build: Callable[..., Snapshot], tmp_path: Path) -> None:
    build(tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns

    def fail(_done: int, _total: int) -> None:
        raise AssertionError

    assert build(tmp_path / "out", progress=fail).step == 3
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before


def test_another_embedder_or_corpus_is_refused_unless_it_is_rebuilt(
    build: Callable[..., Snapshot],
    articles: list[dict[str, str]],
    make_store: Callable[..., PassageStore],
    make_towers: Callable[..., Towers],
    tmp_path: Path,
) -> None:
    build(tmp_path / "out")
    other = make_towers(seed=1).passage
    with pytest.raises(ArtifactError, match="input embedder"):
        build(tmp_path / "out", tower=other)
    with pytest.raises(ArtifactError, match="input passages"):
        build(tmp_path / "out", passages=make_store(articles[:3]))
    with pytest.raises(ArtifactError, match="setting shard_rows"):
        build(tmp_path / "out", config=IndexConfig())
    rebuilt = build(tmp_path / "out", tower=other, rebuild=True)
    assert rebuilt.model_hash == tower_hash(other)
    assert Snapshot.open(tmp_path / "out", verify=True).model_hash == tower_hash(other)


@pytest.mark.parametrize("training", [True, False])
def test_it_embeds_without_dropout_and_leaves_the_tower_as_it_was(
    *,
    training: bool,
    build: Callable[..., Snapshot],
    make_towers: Callable[..., Towers],
    tmp_path: Path,
) -> None:
    tower = make_towers().passage
    expected = build(tmp_path / "expected", tower=tower)
    tower.dropout.p = 0.5
    tower.train(training)
    found = build(tmp_path / "out", tower=tower)
    assert torch.equal(found.exact[torch.arange(24)], expected.exact[torch.arange(24)])
    assert tower.training is training
    with pytest.raises(Killed):
        build(tmp_path / "killed", tower=tower, progress=kill_at_once)
    assert tower.training is training


def kill_at_once(_done: int, _total: int) -> None:
    raise Killed


def test_16_bit_products_change_vectors_little(
    build: Callable[..., Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.device.has_quick_bfloat16", lambda _: True)
    exact = build(tmp_path / "exact").exact[torch.arange(24)]
    config = CONFIG.model_copy(update={"autocast": "bfloat16"})
    rough = build(tmp_path / "rough", config=config).exact[torch.arange(24)]
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.0, atol=0.15)


def test_code_between_two_groups_runs_with_gradients_and_without_autocast(
    store: PassageStore, make_towers: Callable[..., Towers]
) -> None:
    """A generator that yields inside a `with` would leave its modes on for its caller."""
    sequences = [store.tokenizer.query_input(store.wordpieces(r).tolist(), 64) for r in range(5)]
    groups = embed_sequences(
        make_towers().passage,
        [len(ids) for ids, _ in sequences],
        sequences.__getitem__,
        pad_id=0,
        batch_tokens=64,
        autocast="bfloat16",
    )
    weight = torch.randn(16, requires_grad=True)
    seen = []
    for group, vectors in groups:
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
        (vectors @ weight).sum().backward()
        assert not vectors.requires_grad
        seen += group
    assert sorted(seen) == list(range(5))
