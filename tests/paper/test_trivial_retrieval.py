"""Prohibiting trivial retrievals: z must not be the text that x was made from (section 3.4)."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood
from realm.model.realm import Budget, read_candidates, score_candidates
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW, CandidateFinder

SENTENCE = "In the year 1607 Fermat was born in the old house near the harbour of Toulouse."
OTHERS = [
    "A prize for number theory and a street in Toulouse are named after a lawyer.",
    "The letters of Euler changed graph theory and the street where everybody lived.",
    "Everybody in Basel still knows the old family of Euler and the child.",
    "Hilbert wanted a child to become a judge in the town of Koenigsberg.",
    "A student of Abel lived in Oslo and changed group theory for ever.",
]


def queries_that_find(snapshot: Snapshot, row: int) -> Tensor:
    """Return a query whose nearest passage is `row`."""
    return snapshot.exact[torch.tensor([row])] * 10


@pytest.fixture
def finder_of() -> Callable[..., CandidateFinder]:
    def make(store: PassageStore, num_candidates: int = 4, **settings: object) -> CandidateFinder:
        settings = {"overlap_limit": 0.6, **settings}
        return CandidateFinder(store, num_candidates=num_candidates, **settings)

    return make


@pytest.fixture
def others(make_store: Callable[..., PassageStore]) -> Callable[..., PassageStore]:
    """Return a maker of a store with some unrelated passages and what else is given."""

    def make(*texts: str) -> PassageStore:
        articles = [
            {"id": f"a{n}", "title": f"Of {n}", "text": text}
            for n, text in enumerate([*texts, *OTHERS])
        ]
        return make_store(articles)

    return make


def test_the_own_passage_is_left_out_by_identity(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
    finder_of: Callable[..., CandidateFinder],
) -> None:
    """X = Z: title and text hash alike, even where no trigram limit is reached."""
    snapshot = make_snapshot(make_towers())
    example = make_example(store, 4, "Basel")
    query = queries_that_find(snapshot, 4)
    assert snapshot.search(query, 1)[1].item() == 4
    stripped = dataclasses.replace(example, original_ids=(1, 1, 1, 1))  # overlaps with nothing
    rows, _ = finder_of(store).find(snapshot, query, [stripped])
    assert 4 not in rows[0]
    allowed, _ = finder_of(store, exclude_own=False).find(snapshot, query, [example])
    assert allowed[0][1] == 4


def test_the_own_passage_is_left_out_by_overlap_when_x_and_z_are_cut_differently(
    store: PassageStore,
    articles: list[dict[str, str]],
    make_store: Callable[..., PassageStore],
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
    finder_of: Callable[..., CandidateFinder],
) -> None:
    """The released code compares hashes only, so that its filter never fires here."""
    whole = make_store(articles, max_wordpieces=100)
    assert len(whole) < len(store)
    example = make_example(whole, 0, "1607")
    assert example.origin_sha256 not in {store.sha256(row) for row in range(len(store))}
    snapshot = make_snapshot(make_towers())
    rows, _ = finder_of(store).find(snapshot, queries_that_find(snapshot, 0), [example])
    assert example.sentence in store.text(0)
    assert 0 not in rows[0]


@pytest.mark.parametrize(
    ("copy", "is_own"),
    [
        (SENTENCE, True),
        (SENTENCE.replace("1607", "1601"), True),
        (f"Euler still knows: {SENTENCE} A street in Basel.", True),
        ("In the year 1607 a judge in Toulouse wanted a street near the harbour.", False),
    ],
)
def test_near_duplicates_count_as_the_own_passage(
    *,
    copy: str,
    is_own: bool,
    others: Callable[..., PassageStore],
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
    finder_of: Callable[..., CandidateFinder],
) -> None:
    """A passage that holds most of the sentence's trigrams would give the answer away."""
    store = others(SENTENCE, copy + " A house.")
    example = make_example(store, 0, "Fermat")
    snapshot = make_snapshot(make_towers(), store)
    rows, _ = finder_of(store).find(snapshot, queries_that_find(snapshot, 1), [example])
    assert 0 not in rows[0]
    assert (1 not in rows[0]) == is_own


def test_num_candidates_counts_the_null_passage(
    store: PassageStore,
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
    finder_of: Callable[..., CandidateFinder],
) -> None:
    """The k = 8 of the paper is the null passage and 7 others, all of them found."""
    snapshot = make_snapshot(make_towers())
    rows, _ = finder_of(store, 8).find(
        snapshot, queries_that_find(snapshot, 0), [make_example(store, 0, "Fermat")]
    )
    assert len(rows[0]) == 8
    assert rows[0][0] == NULL_ROW
    assert MISSING_ROW not in rows[0]
    assert len(set(rows[0])) == 8


def test_a_tiny_corpus_is_filled_up_with_candidates_of_no_probability(
    others: Callable[..., PassageStore],
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
    make_snapshot: Callable[..., Snapshot],
    make_example: Callable[..., MaskedExample],
    finder_of: Callable[..., CandidateFinder],
    lengths: Lengths,
    budget: Budget,
) -> None:
    """Three passages, one of them its own: null, two others, and five that do not exist."""
    store = others(SENTENCE)
    towers, encoder = make_towers(), make_encoder()
    example = make_example(store, 0, "1607", "Fermat")
    snapshot = make_snapshot(towers, store)
    rows, stale = finder_of(store, 8).find(snapshot, torch.randn(1, 16), [example])
    assert rows[0][0] == NULL_ROW
    assert sorted(rows[0][1:6]) == [1, 2, 3, 4, 5]
    assert rows[0][6:] == [MISSING_ROW, MISSING_ROW]
    assert stale[0].isnan().tolist() == [True, *[False] * 5, True, True]

    def log_p(chosen: list[int]) -> tuple[Tensor, Tensor]:
        batch = candidate_batch(store, [example], [chosen], lengths)
        scores = score_candidates(towers, batch, budget)
        log_probs = read_candidates(encoder, batch, budget)
        return scores, marginal_log_likelihood(scores, log_probs, batch.mask_is_real)

    scores, with_missing = log_p(rows[0])
    assert scores.softmax(dim=-1)[0, 6:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(with_missing, log_p(rows[0][:6])[1])
    with_missing.sum().backward()
    assert all(p.grad.isfinite().all() for p in towers.parameters() if p.grad is not None)
