"""An approximate index finds nearly what exact search finds, and says how nearly."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.config import ApproximateConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.index import approximate
from realm.index.approximate import ApproximateIndex, build_approximate, recall_against_exact
from realm.index.builder import publish_vectors
from realm.index.ivfpq import choose_layout
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.records import MaskedExample
from realm.retrieval.candidates import CandidateFinder
from realm.retrieval.dense import DenseRetriever
from realm.storage import MANIFEST, Request, read_json

DIM, ROWS = 32, 3_000
SMALL = ApproximateConfig(lists=16, bits=4, probes=8, recall_queries=64)
MakeSnapshot = Callable[..., Snapshot]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeSnapshot:
    """Publish clustered vectors as a snapshot."""

    def make(rows: int = ROWS, *, seed: int = 0) -> Snapshot:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(40, DIM, generator=generator)
        chosen = torch.randint(40, (rows,), generator=generator)
        vectors = centres[chosen] + 0.5 * torch.randn(rows, DIM, generator=generator)
        vectors = torch.nn.functional.layer_norm(vectors, (DIM,))
        request = Request(
            kind="index",
            settings={"step": 7, "shard_rows": 1_000},
            inputs={"passages": "made up", "embedder": str(seed)},
        )
        folder = tmp_path_factory.mktemp("snapshot") / "index"
        publish_vectors(
            lambda part: vectors[part.start : part.stop],
            folder,
            request,
            num_passages=rows,
            dim=DIM,
        )
        return Snapshot.open(folder)

    return make


@pytest.fixture(scope="module")
def snapshot(make: MakeSnapshot) -> Snapshot:
    pytest.importorskip("faiss", reason="needs the extra: ann")
    return make()


@pytest.fixture(scope="module")
def index(snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> ApproximateIndex:
    return build_approximate(snapshot, tmp_path_factory.mktemp("ann") / "out", config=SMALL)


@pytest.fixture
def queries(snapshot: Snapshot) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return snapshot.exact[torch.arange(0, ROWS, 60)] + 0.2 * torch.randn(
        50, DIM, generator=generator
    )


def test_most_of_what_exact_search_finds_is_found(
    index: ApproximateIndex, queries: torch.Tensor
) -> None:
    assert recall_against_exact(index, queries, 8) > 0.9
    assert len(index) == ROWS
    assert index.step == 7


def test_scores_are_exact_and_in_order(
    index: ApproximateIndex, snapshot: Snapshot, queries: torch.Tensor
) -> None:
    scores, rows = index.search(queries, 5)
    products = torch.einsum("qd,qkd->qk", queries, snapshot.exact[rows])
    torch.testing.assert_close(scores, products)
    assert torch.equal(scores, scores.sort(dim=-1, descending=True).values)
    assert all(len(set(row)) == 5 for row in rows.tolist())


def test_with_every_list_and_all_rescored_it_is_exact(
    index: ApproximateIndex, snapshot: Snapshot, queries: torch.Tensor
) -> None:
    everything = ApproximateIndex.open(index.folder, snapshot, probes=16, widen=ROWS)
    assert recall_against_exact(everything, queries, 8) == 1.0


def test_more_probes_find_more(
    index: ApproximateIndex, snapshot: Snapshot, queries: torch.Tensor
) -> None:
    found = [
        recall_against_exact(
            ApproximateIndex.open(index.folder, snapshot, probes=probes), queries, 50
        )
        for probes in (1, 4, 16)
    ]
    assert found[0] < found[1] < found[2]


def test_the_manifest_records_recall_and_how_it_was_measured(
    index: ApproximateIndex, snapshot: Snapshot, queries: torch.Tensor, tmp_path: Path
) -> None:
    content = read_json(index.folder / MANIFEST)["content"]
    assert content["recall"] == index.recall > 0.8
    assert (content["recall_at"], content["recall_queries"]) == (8, 64)
    assert content["recall_queries_are"] == "passages"
    given = build_approximate(snapshot, tmp_path / "out", config=SMALL, queries=queries)
    content = read_json(given.folder / MANIFEST)["content"]
    assert content["recall_queries_are"] == "given"
    assert content["recall_queries"] == 50
    assert given.recall == pytest.approx(recall_against_exact(given, queries, 8))


def test_a_bad_index_says_so(snapshot: Snapshot, tmp_path: Path) -> None:
    """Recall is measured, not assumed: one probe and no widening find less."""
    poor = ApproximateConfig(
        lists=64, bits=4, subquantizers=1, probes=1, widen=1, recall_queries=64
    )
    assert build_approximate(snapshot, tmp_path / "out", config=poor).recall < 0.6


def test_queries_whose_lists_are_too_short_are_searched_exactly(
    snapshot: Snapshot, queries: torch.Tensor, tmp_path: Path
) -> None:
    config = ApproximateConfig(lists=256, bits=4, probes=1, recall_queries=8)
    narrow = build_approximate(snapshot, tmp_path / "out", config=config)
    scores, rows = narrow.search(queries, 500)
    expected_scores, expected = snapshot.search(queries, 500)
    assert (rows >= 0).all()
    assert torch.equal(rows, expected)
    assert torch.equal(scores, expected_scores)


def test_vectors_are_added_in_portions_and_trained_on_a_sample(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "ROWS_AT_ONCE", 300)
    told: list[tuple[int, int]] = []
    config = ApproximateConfig(lists=16, bits=4, training_rows=500, recall_queries=8)
    built = build_approximate(
        snapshot,
        tmp_path / "out",
        config=config,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[0] == (300, ROWS)
    assert told[-1] == (ROWS, ROWS)
    assert read_json(built.folder / MANIFEST)["content"]["training_rows"] == 500


def test_equal_requests_give_equal_indexes_and_are_done_once(
    index: ApproximateIndex, snapshot: Snapshot, tmp_path: Path
) -> None:
    again = build_approximate(snapshot, tmp_path / "out", config=SMALL)
    fingerprints = [read_json(i.folder / MANIFEST)["fingerprint"] for i in (index, again)]
    assert fingerprints[0] == fingerprints[1]
    before = (again.folder / MANIFEST).stat().st_mtime_ns
    build_approximate(snapshot, again.folder, config=SMALL)
    assert (again.folder / MANIFEST).stat().st_mtime_ns == before
    other = ApproximateConfig(lists=8, bits=4)
    with pytest.raises(ArtifactError, match="lists"):
        build_approximate(snapshot, again.folder, config=other)
    assert build_approximate(snapshot, again.folder, config=other, rebuild=True)


def test_another_snapshot_is_refused(index: ApproximateIndex, make: MakeSnapshot) -> None:
    with pytest.raises(ArtifactError, match="was built from snapshot"):
        ApproximateIndex.open(index.folder, make(seed=1))


def test_a_damaged_index_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    built = build_approximate(snapshot, tmp_path / "out", config=SMALL)
    (built.folder / approximate.FILE).write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="is damaged"):
        ApproximateIndex.open(built.folder, snapshot)
    with pytest.raises(ArtifactError, match="expected 'approximate'"):
        ApproximateIndex.open(snapshot.folder, snapshot)


@pytest.mark.parametrize("k", [0, ROWS + 1])
def test_an_impossible_k_is_refused(index: ApproximateIndex, queries: torch.Tensor, k: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to {ROWS}"):
        index.search(queries, k)


def test_the_passages_are_checked_as_a_snapshots_are(index: ApproximateIndex) -> None:
    index.check_passages("made up")
    with pytest.raises(ArtifactError, match="was built from passages"):
        index.check_passages("others")


def test_without_faiss_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r'pip install "realm-lm\[ann\]"'):
        approximate.import_faiss()


@pytest.mark.parametrize(
    ("settings", "passages", "told"),
    [
        ({}, 511, "at least 512 passages"),
        ({"subquantizers": 5}, 10_000, "does not divide"),
        ({"lists": 20_000}, 10_000, "expected at most so many"),
        ({"training_rows": 10}, 10_000, "cannot fit"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    settings: dict[str, int], passages: int, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        choose_layout(ApproximateConfig(**settings), num_passages=passages, dim=DIM)


def test_automatic_sizes_follow_the_number_of_passages() -> None:
    layouts = {
        count: choose_layout(ApproximateConfig(), num_passages=count, dim=128)
        for count in (100_000, 1_000_000, 1_000_000_000)
    }
    assert [layout.lists for layout in layouts.values()] == [512, 2_048, 65_536]
    assert {layout.passage_bytes for layout in layouts.values()} == {40}
    assert layouts[1_000_000].training_rows == 64 * 2_048
    assert layouts[1_000_000_000].index_bytes(1_000_000_000, 128) == pytest.approx(40e9, rel=0.01)


def test_retrievers_search_it_as_they_search_a_snapshot(
    make_store: Callable[..., PassageStore],
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
    articles: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    pytest.importorskip("faiss", reason="needs the extra: ann")
    store = make_store([{**one, "id": f"{one['id']}-{n}"} for n in range(2) for one in articles])
    towers = make_towers()
    exact = make_snapshot(towers, store)
    config = ApproximateConfig(lists=4, bits=4, probes=4, widen=len(exact), recall_queries=8)
    index = build_approximate(exact, tmp_path / "out", config=config)
    example = make_example(store, 0, "Fermat")
    vectors = torch.randn(1, towers.passage.dim)
    finder = CandidateFinder(store, num_candidates=4, overlap_limit=0.6)
    scores = [finder.find(one, vectors, [example])[1] for one in (index, exact)]
    torch.testing.assert_close(*scores, equal_nan=True)
    questions = ["who was born in toulouse?"]
    found = [
        DenseRetriever(towers.query, one, store.tokenizer, question_wordpieces=32).retrieve(
            questions, 5
        )
        for one in (index, exact)
    ]
    assert found[0][0][1] == pytest.approx(found[1][0][1])  # every article stands there twice
