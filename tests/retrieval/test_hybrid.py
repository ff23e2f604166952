"""BM25 and dense scores summed: what either proposes is ranked by both."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.retrieval import hybrid as module
from realm.retrieval.bm25 import Bm25Retriever
from realm.retrieval.dense import DenseRetriever
from realm.retrieval.hybrid import HybridRetriever
from realm.tokenizer import WordpieceTokenizer

QUESTIONS = ["Where was Fermat born?", "Who changed set theory for ever, and in which town?", "zzz"]


@pytest.fixture
def dense(
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    tokenizer: WordpieceTokenizer,
) -> DenseRetriever:
    towers = make_towers(share=False)
    return DenseRetriever(towers.query, make_snapshot(towers), tokenizer, question_wordpieces=32)


@pytest.fixture
def lexical(store: PassageStore) -> Bm25Retriever:
    return Bm25Retriever.open(store)


def everything(dense: DenseRetriever, lexical: Bm25Retriever, weight: float) -> torch.Tensor:
    """Both scores of all passages, summed."""
    with torch.no_grad():
        scores = dense.embed(QUESTIONS) @ dense.snapshot.exact[torch.arange(24)].T
    words = np.stack([lexical.scores(question) for question in QUESTIONS])
    return scores + weight * torch.from_numpy(words)


@pytest.mark.parametrize("weight", [0.01, 1.0, 100.0])
def test_the_best_by_the_sum_come_first(
    dense: DenseRetriever, lexical: Bm25Retriever, weight: float
) -> None:
    truth = everything(dense, lexical, weight).sort(descending=True)
    found = HybridRetriever(dense, lexical, lexical_weight=weight).retrieve(QUESTIONS, 6)
    for number, (rows, scores) in enumerate(found):
        assert scores == pytest.approx(truth.values[number, :6].tolist(), rel=1e-4)
        assert rows == truth.indices[number, :6].tolist()


def test_each_retriever_proposes_some_and_the_other_weighs_them(
    dense: DenseRetriever, lexical: Bm25Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_DEPTH", 1)
    (rows, _), *_ = HybridRetriever(dense, lexical, lexical_weight=1.0).retrieve(QUESTIONS, 1)
    (by_words, _), *_ = lexical.retrieve(QUESTIONS, 1)
    (by_vector, _), *_ = dense.retrieve(QUESTIONS, 1)
    total = everything(dense, lexical, 1.0)[0]
    assert rows == [max([*by_words, *by_vector], key=lambda row: float(total[row]))]


def test_a_passage_can_be_weighed_without_being_found(
    dense: DenseRetriever, lexical: Bm25Retriever
) -> None:
    hybrid = HybridRetriever(dense, lexical, lexical_weight=2.0)
    expected = 2.0 * lexical.scores(QUESTIONS[0])[[5, 0, 23]]
    assert hybrid.weigh(QUESTIONS[0], torch.tensor([5, 0, 23])).tolist() == pytest.approx(
        expected.tolist()
    )


def test_the_whole_corpus_can_be_asked_for(dense: DenseRetriever, lexical: Bm25Retriever) -> None:
    for rows, scores in HybridRetriever(dense, lexical, lexical_weight=1.0).retrieve(
        QUESTIONS, 1_000
    ):
        assert sorted(rows) == list(range(24))
        assert scores == sorted(scores, reverse=True)
