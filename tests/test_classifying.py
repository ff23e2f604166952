"""Labels of claims add up to one, and each comes with the passage that speaks most for it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from realm.checkpoint.parts import Model
from realm.classifying import ClaimClassifier, classified_as_json
from realm.config import ClassifyConfig, EvaluateConfig
from realm.corpus.store import PassageStore
from realm.errors import AnsweringError, ConfigError
from realm.evaluation.claims import evaluate_claims
from realm.model.bert import build_bert
from realm.model.classifier import Classifier, label_logits
from realm.records import Claim
from realm.retrieval.reading import joint_inputs
from realm.tokenizer import WordpieceTokenizer

Make = Callable[..., Any]
CLAIMS = ["fermat was born in basel", "euler changed graph theory"]
CONFIG = ClassifyConfig(question_wordpieces=24, joint_wordpieces=96, num_passages=4)


@pytest.fixture
def classifier(
    tokenizer: WordpieceTokenizer,
    make_towers: Make,
    bert_shape: dict[str, Any],
    store: PassageStore,
    make_snapshot: Make,
) -> ClaimClassifier:
    towers = make_towers(share=False)
    part = Classifier(build_bert(bert_shape), labels=["no", "perhaps", "yes"])
    torch.nn.init.normal_(part.output.weight, std=2.0)
    model = Model(tokenizer=tokenizer, towers=towers, classifier=part)
    return ClaimClassifier(model, store, make_snapshot(towers), config=CONFIG)


def test_labels_are_ranked_by_a_probability_that_adds_up_to_one(
    classifier: ClaimClassifier,
) -> None:
    for said in classifier.classify(CLAIMS):
        told = [one.probability for one in said.labels]
        assert sum(told) == pytest.approx(1.0)
        assert told == sorted(told, reverse=True)
        assert {one.label for one in said.labels} == {"no", "perhaps", "yes"}
        assert said.label == said.labels[0].label


def test_probabilities_and_evidence_are_those_of_a_plain_loop(
    classifier: ClaimClassifier, store: PassageStore
) -> None:
    said = classifier.classify(CLAIMS, num_passages=3)
    retrieved = classifier.retriever.retrieve(CLAIMS, 3)
    for claim, found, (rows, scores) in zip(CLAIMS, said, retrieved, strict=True):
        assert found.read_rows == tuple(rows)
        ids = store.tokenizer.encode(claim).ids
        with torch.no_grad():
            logits = label_logits(
                classifier.classifier, joint_inputs(store, ids, rows, 96), classifier.budget
            )
        p_passage, p_label = torch.tensor(scores).softmax(dim=0), logits.softmax(dim=-1)
        for one in found.labels:
            number = classifier.labels.index(one.label)
            parts = [float(p_passage[i] * p_label[i, number]) for i in range(3)]
            assert one.probability == pytest.approx(sum(parts), abs=1e-5)
            best = parts.index(max(parts))
            assert one.passage == store[rows[best]]
            assert one.passage_probability == pytest.approx(float(p_passage[best]), abs=1e-5)
            assert one.label_probability == pytest.approx(float(p_label[best, number]), abs=1e-5)


def test_as_many_passages_are_read_as_in_training_unless_one_says_otherwise(
    classifier: ClaimClassifier, store: PassageStore
) -> None:
    assert len(classifier.classify(CLAIMS)[0].read_rows) == 4
    assert len(classifier.classify(CLAIMS, num_passages=1)[0].read_rows) == 1
    assert len(classifier.classify(CLAIMS, num_passages=999)[0].read_rows) == len(store)
    with pytest.raises(ConfigError, match="found 0 passages"):
        classifier.classify(CLAIMS, num_passages=0)


def test_no_claims_no_labels(classifier: ClaimClassifier) -> None:
    assert classifier.classify([]) == []


@pytest.mark.parametrize(
    ("claim", "told"),
    [("", "no word that the model knows"), ("fermat " * 40, "the claim has 40 wordpieces")],
)
def test_a_claim_that_cannot_be_read(classifier: ClaimClassifier, claim: str, told: str) -> None:
    with pytest.raises(AnsweringError, match=told):
        classifier.classify([claim])


class LexicalOnly:
    """Finds passages for claims about Fermat, as BM25 finds those that share a word."""

    name, score_weight = "bm25", 0.0

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        return [([0, 1][:k], [2.0, 1.0][:k]) if "fermat" in q else ([], []) for q in questions]


def test_a_claim_that_shares_no_word_with_any_passage_fails_alone(
    classifier: ClaimClassifier,
) -> None:
    classifier.retriever = LexicalOnly()
    with pytest.raises(AnsweringError, match="shares a word with the claim 'euler changed"):
        classifier.classify(CLAIMS)
    asked = [Claim(id=str(n), claim=claim, label="yes") for n, claim in enumerate(CLAIMS)]
    report = evaluate_claims(classifier, asked, config=EvaluateConfig(), split_name="dev")
    assert report.failures == {"AnsweringError": 1}
    assert [one.error is None for one in report.records] == [True, False]


def test_a_retriever_of_another_scale_weighs_all_passages_alike(
    classifier: ClaimClassifier,
) -> None:
    classifier.retriever.score_weight = 0.0
    assert classifier.classify(CLAIMS)[0].labels[0].passage_probability == pytest.approx(0.25)


def test_what_is_printed_as_json(classifier: ClaimClassifier, store: PassageStore) -> None:
    said = classifier.classify(CLAIMS)[0]
    found = json.loads(json.dumps(classified_as_json(said)))
    assert found["claim"] == CLAIMS[0]
    assert [one["label"] for one in found["labels"]] == [one.label for one in said.labels]
    first, best = found["labels"][0], said.labels[0]
    assert first["probability"] == best.probability
    assert first["passage"]["text"] == store[best.passage.row].text
    assert first["passage"]["probability"] == best.passage_probability
    assert first["passage"]["label_probability"] == best.label_probability
