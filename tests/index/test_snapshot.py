"""A snapshot is what was built, or it is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, DamagedError
from realm.index.exact import search
from realm.index.snapshot import Snapshot, remove_old_snapshots, shard_names, snapshot_folder
from realm.model.embedder import Towers, embed_in_groups
from realm.storage import MANIFEST, checking, read_json, write_json


@pytest.fixture
def towers(make_towers: Callable[..., Towers]) -> Towers:
    return make_towers(share=False)


@pytest.fixture
def expected(store: PassageStore, towers: Towers) -> Tensor:
    """Embed_doc of every passage, row by row."""
    tokenizer = store.tokenizer
    sequences = [
        tokenizer.passage_input(
            store.title_wordpieces(row).tolist(), store.wordpieces(row).tolist(), 64
        )
        for row in range(len(store))
    ]
    with torch.no_grad():
        return embed_in_groups(towers.passage, sequences, pad_id=0, batch_tokens=64)


@pytest.mark.parametrize("shard_rows", [5, 1_000])
def test_a_round_trip_keeps_every_vector_in_its_row(
    shard_rows: int,
    store: PassageStore,
    towers: Towers,
    expected: Tensor,
    make_snapshot: Callable[..., Snapshot],
) -> None:
    made = make_snapshot(towers, shard_rows=shard_rows, step=7)
    for snapshot in (made, Snapshot.open(made.folder), Snapshot.open(made.folder, verify=True)):
        everything = torch.arange(len(store))
        assert len(snapshot) == len(store)
        torch.testing.assert_close(snapshot.exact[everything], expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(snapshot.scan[everything], snapshot.exact[everything].bfloat16())
        assert snapshot.step == 7
        assert snapshot.model_hash == made.model_hash
        vectors = snapshot.exact[everything]
        assert snapshot.max_norm == pytest.approx(float(vectors.norm(dim=-1).max()))
        rounding = (vectors - vectors.bfloat16().float()).norm(dim=-1).max()
        assert snapshot.max_rounding == pytest.approx(float(rounding))


@pytest.mark.parametrize("shard_rows", [5, 1_000])
def test_searching_it_is_a_float32_search_of_its_vectors(
    shard_rows: int, towers: Towers, expected: Tensor, make_snapshot: Callable[..., Snapshot]
) -> None:
    snapshot = make_snapshot(towers, shard_rows=shard_rows)
    queries = torch.randn(3, 16, requires_grad=True)
    scores, rows = snapshot.search(queries, 6)
    truth, places = search(queries.detach(), expected, 6)
    torch.testing.assert_close(scores, truth, rtol=1e-4, atol=1e-4)
    assert torch.equal(rows, places)
    assert not scores.requires_grad


def test_vectors_are_read_from_the_map_and_never_written(
    towers: Towers, make_snapshot: Callable[..., Snapshot]
) -> None:
    snapshot = make_snapshot(towers)
    before = (snapshot.folder / shard_names(0)[1]).read_bytes()
    for _, chunk in snapshot.exact.chunks(1_000):
        chunk.zero_()
    assert (snapshot.folder / shard_names(0)[1]).read_bytes() == before
    assert float(Snapshot.open(snapshot.folder, verify=True).exact[torch.tensor(3)].norm()) > 0


def test_vectors_found_in_it_can_stand_in_a_loss(
    towers: Towers, make_snapshot: Callable[..., Snapshot]
) -> None:
    """... also when it was opened in inference mode."""
    snapshot = make_snapshot(towers, shard_rows=10)
    with torch.inference_mode():
        inside = Snapshot.open(snapshot.folder)
    query = torch.randn(16, requires_grad=True)
    for opened in (snapshot, inside):
        (opened.exact[torch.tensor([[1, 15]])] @ query).sum().backward()
    assert query.grad.abs().sum() > 0


def test_another_corpus_is_refused(
    store: PassageStore,
    articles: list[dict[str, str]],
    towers: Towers,
    make_store: Callable[..., PassageStore],
    make_snapshot: Callable[..., Snapshot],
) -> None:
    snapshot = make_snapshot(towers)
    snapshot.check_passages(store.fingerprint)
    other = make_store(articles[:3])
    with pytest.raises(ArtifactError, match="built from passages") as error:
        snapshot.check_passages(other.fingerprint)
    assert store.fingerprint[:12] in str(error.value)
    assert other.fingerprint[:12] in str(error.value)


@pytest.mark.parametrize("shard", [0, 2])
@pytest.mark.parametrize("which", [0, 1])
def test_a_truncated_or_missing_shard_is_refused_on_opening(
    shard: int, which: int, towers: Towers, make_snapshot: Callable[..., Snapshot]
) -> None:
    folder = make_snapshot(towers, shard_rows=10).folder
    path = folder / shard_names(shard)[which]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=rf"{path.name} is damaged"):
        Snapshot.open(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "CHECKED_BYTES", 1_000)
        with pytest.raises(ArtifactError, match=rf"{path.name} has [\d,]+ bytes, expected"):
            Snapshot.open(folder)
    path.unlink()
    with pytest.raises(DamagedError, match=f"{path.name} is missing"):
        Snapshot.open(folder)


def test_a_flipped_bit_is_found_on_opening_and_in_a_large_one_by_verify(
    towers: Towers, make_snapshot: Callable[..., Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_snapshot(towers).folder
    path = folder / shard_names(0)[0]
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{path.name} is damaged: its checksum"):
        Snapshot.open(folder)
    monkeypatch.setattr(checking, "CHECKED_BYTES", 1_000)
    assert len(Snapshot.open(folder)) == 24
    with pytest.raises(ArtifactError, match="is damaged: its checksum"):
        Snapshot.open(folder, verify=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "passages"}, "holds 'passages', expected 'index'"),
        ({"format_version": 99}, "format version 99"),
        ({"content": {}}, "manifest.json is damaged .*dim"),
        ({"content": None}, "manifest.json is damaged"),
        ({"inputs": {}}, "manifest.json is damaged .*passages"),
    ],
)
def test_a_wrong_manifest_is_refused(
    change: dict[str, object], told: str, towers: Towers, make_snapshot: Callable[..., Snapshot]
) -> None:
    folder = make_snapshot(towers).folder
    write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), **change})
    with pytest.raises(ArtifactError, match=told):
        Snapshot.open(folder)


def test_a_passages_folder_is_no_snapshot(store: PassageStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected 'index'"):
        Snapshot.open(store.folder)
    with pytest.raises(ArtifactError, match="found no folder"):
        Snapshot.open(tmp_path / "absent")


def test_old_snapshots_of_a_run_are_removed_and_nothing_else(
    towers: Towers, make_snapshot: Callable[..., Snapshot], tmp_path: Path
) -> None:
    made = make_snapshot(towers).folder
    run = tmp_path / "run"
    for name in ("step-0", "step-5", "step-10", "step-best", ".step-15.partial"):
        shutil.copytree(made, run / "index" / name)
    remove_old_snapshots(run, keep={5})
    remove_old_snapshots(tmp_path / "no-run", keep={5})
    left = sorted(path.name for path in (run / "index").iterdir())
    assert left == [".step-15.partial", "step-5", "step-best"]
    assert snapshot_folder(run, 5).is_dir()
