"""The dense retriever: embed the question, search the snapshot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot
from realm.model.bert import build_bert
from realm.model.embedder import MeanEmbedder, Towers
from realm.retrieval.dense import DenseRetriever
from realm.tokenizer import WordpieceTokenizer

QUESTIONS = ["Where was Fermat born?", "Who changed set theory for ever, and in which town?"]


@pytest.fixture
def retriever(
    make_towers: Callable[..., Towers],
    make_snapshot: Callable[..., Snapshot],
    tokenizer: WordpieceTokenizer,
) -> DenseRetriever:
    towers = make_towers(share=False)
    return DenseRetriever(towers.query, make_snapshot(towers), tokenizer, question_wordpieces=32)


def test_passages_come_with_their_inner_products_best_first(retriever: DenseRetriever) -> None:
    with torch.no_grad():
        vectors = retriever.embed(QUESTIONS)
    truth = vectors @ retriever.snapshot.exact[torch.arange(24)].T
    for number, (rows, scores) in enumerate(retriever.retrieve(QUESTIONS, 5)):
        expected = truth[number].sort(descending=True)
        assert rows == expected.indices[:5].tolist()
        assert scores == pytest.approx(expected.values[:5].tolist(), rel=1e-4)


def test_it_finds_at_most_what_there_is(retriever: DenseRetriever) -> None:
    ((rows, scores),) = retriever.retrieve(QUESTIONS[:1], 1_000)
    assert sorted(rows) == list(range(24))
    assert len(scores) == 24


def test_no_questions_find_nothing(retriever: DenseRetriever) -> None:
    assert retriever.retrieve([], 5) == []


def test_a_question_is_embedded_alike_alone_and_among_others(retriever: DenseRetriever) -> None:
    with torch.no_grad():
        together = retriever.embed(QUESTIONS)
        alone = retriever.embed(QUESTIONS[1:])
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-5)


def test_embeddings_carry_gradients_for_training_also_after_retrieving(
    retriever: DenseRetriever,
) -> None:
    """Answering runs in inference mode; nothing of it may be left in a later loss."""
    retriever.retrieve(QUESTIONS, 5)
    vectors = retriever.embed(QUESTIONS)
    _, found = retriever.snapshot.search(vectors, 4)
    torch.einsum("qd,qkd->qk", vectors, retriever.snapshot.exact[found]).sum().backward()
    assert retriever.tower.projection.weight.grad.abs().sum() > 0


def test_a_plain_sentence_encoder_can_be_the_tower(
    bert_shape: dict[str, Any], store: PassageStore, tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    tower = MeanEmbedder(build_bert(bert_shape)).eval()
    snapshot = build_index(
        tower,
        store,
        tmp_path / "plain",
        version=EmbedderVersion(model_hash="plain"),
        config=IndexConfig(),
    )
    found = DenseRetriever(
        tower,
        snapshot,
        tokenizer,
        question_wordpieces=64,
        name="minilm",
        score_weight=0.0,
    )
    ((rows, scores),) = found.retrieve([store.text(9)], 3)
    assert len(rows) == 3
    assert all(-1.001 <= score <= 1.001 for score in scores)
    assert (found.name, found.score_weight) == ("minilm", 0.0)
