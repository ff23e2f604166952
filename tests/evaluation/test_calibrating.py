"""Calibration of a run: what is taken away, what is fitted, what is measured on what."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from realm.answering import Answerer, AnsweringLengths
from realm.checkpoint.parts import Model
from realm.config import CalibrateConfig
from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.evaluation.calibrating import (
    SPARE,
    Case,
    WithoutAnswers,
    answer_cases,
    calibrate,
    fit_and_measure,
)
from realm.model.confidence import evidence_features, sigmoid
from realm.model.realm import SpanInput
from realm.records import Evidence, Question
from realm.tokenizer import WordpieceTokenizer

Make = Callable[..., Any]
CONFIG = CalibrateConfig()
TOWNS = ("Toulouse", "Basel", "Brunswick", "Erlangen", "Halle", "Oslo", "Paris", "Koenigsberg")


def evidence(strength: float) -> Evidence:
    return Evidence(
        probability=sigmoid(2 * strength),  # twice too sure
        margin=0.5,
        best_logit=strength,
        score=0.0,
        score_gap=0.0,
        agreement=0.2,
        overlap=0.5,
    )


def cases(count: int, mean: float, seed: int) -> list[Case]:
    """Right as often as sigmoid(strength) says."""
    chance = np.random.default_rng(seed)
    strengths = chance.normal(mean, 1.5, size=count).tolist()
    return [
        Case(
            evidence=evidence(strength),
            probability=0.0,
            is_right=chance.random() < sigmoid(strength),
            is_refused=False,
        )
        for strength in strengths
    ]


def wrong(some: Sequence[Case]) -> list[Case]:
    return [replace(case, is_right=False) for case in some]


def test_too_sure_probabilities_are_put_right() -> None:
    asked = cases(2_000, 0.0, seed=0)
    calibrator, threshold, figures = fit_and_measure(asked, wrong(cases(1_000, -2, 1)), CONFIG)
    assert figures["raw"]["ece"] > 0.08
    assert figures["temperature"]["ece"] < 0.05
    assert figures["calibrated"]["ece"] < 0.05
    assert figures["calibrated"]["is_calibrated"]
    for strength in (-2.0, 0.0, 2.0):
        told = calibrator.probability(evidence(strength))
        assert told == pytest.approx(sigmoid(strength), abs=0.06)
    assert figures["share_of_without_answers_refused"] == pytest.approx(CONFIG.refuse, abs=0.05)
    assert figures["share_of_right_refused"] < 0.3
    assert figures["calibrated"]["min_probability"] == threshold
    assert 0 < threshold < 0.5


def test_figures_are_measured_on_the_half_that_was_not_fitted() -> None:
    """Evidence that is pure noise, with as many features as it takes to fit noise."""
    chance = np.random.default_rng(0)
    asked = [
        Case(
            evidence=Evidence(
                probability=chance.random(),
                margin=chance.random(),
                best_logit=chance.random(),
                score=chance.random(),
                score_gap=chance.random(),
                agreement=chance.random(),
                overlap=chance.random(),
            ),
            probability=0.0,
            is_right=number % 2 == 0,
            is_refused=False,
        )
        for number in range(60)
    ]
    _, _, figures = fit_and_measure(asked, [], CalibrateConfig(l2=1e-3))
    assert figures["calibrated"]["aurc"] > 0.4  # knowing nothing: 0.5; fitted to itself: below 0.4


def test_both_halves_hold_right_and_wrong_answers_whatever_their_order() -> None:
    asked = sorted(cases(40, 0.0, seed=3), key=lambda case: case.is_right)
    _, _, figures = fit_and_measure(asked, wrong(cases(20, -2, 4)), CONFIG)
    assert 0 < figures["accuracy"] < 1


def test_what_found_nothing_is_refused_and_fits_nothing() -> None:
    nothing = Case(evidence=None, probability=0.0, is_right=False, is_refused=True)
    asked = [*cases(100, 0.5, seed=5), *[nothing] * 10]
    _, threshold, figures = fit_and_measure(asked, [nothing] * 30, CONFIG)
    assert figures["share_of_without_answers_refused"] == 1
    assert threshold == pytest.approx(1e-4)
    assert figures["calibrated"]["share_refused"] == pytest.approx(10 / 110)


@pytest.mark.parametrize("is_right", [True, False])
def test_answers_of_one_kind_calibrate_nothing(is_right: bool) -> None:  # noqa: FBT001
    asked = [replace(case, is_right=is_right) for case in cases(50, 0.0, seed=6)]
    with pytest.raises(CorpusError, match="expected at least 10 right and 10 wrong"):
        fit_and_measure(asked, [], CONFIG)


# with a run


@pytest.fixture
def answerer(
    tokenizer: WordpieceTokenizer,
    store: PassageStore,
    make_towers: Make,
    make_reader: Make,
    make_snapshot: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> Answerer:
    """A run whose reader takes every town for the answer, in the order of their wordpieces."""
    model = Model(tokenizer=tokenizer, towers=make_towers(share=False), reader=make_reader())
    widths = model.need_reader().max_answer_wordpieces
    towns = {tokenizer.encode(town).ids[0] for town in TOWNS}

    def likes_towns(_: object, inputs: Sequence[SpanInput], __: object) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for item in inputs:
            body = item.ids[item.first : item.last + 1]
            ends = torch.arange(len(body))[:, None] + torch.arange(widths)
            logits = torch.where(ends < len(body), 0.0, float("-inf"))
            logits[:, 0] = torch.tensor([8 + n / 500 if n in towns else 0.0 for n in body])
            found.append(logits)
        return found

    monkeypatch.setattr("realm.reading.span_logits", likes_towns)
    monkeypatch.setattr("realm.evaluation.calibrating.LEAST", 3)
    lengths = AnsweringLengths(question=24, joint=96, num_passages=2)
    return Answerer(model, store, make_snapshot(model.towers), lengths=lengths, fingerprint="feed")


@pytest.fixture
def questions(answerer: Answerer) -> list[Question]:
    """Twelve that it answers right, since what it says is right, and twelve that it does not."""
    names = ("fermat", "euler", "gauss", "noether", "cantor", "abel", "galois", "hilbert")
    asked = [f"{word} {name}" for name in names for word in ("where was", "who is", "prize for")]
    said = [told.answers[0].text for told in answerer.answer(asked, num_answers=1)]
    return [
        Question(id=str(n), question=asked[n], answers=(said[n] if n % 2 else "zz",))
        for n in range(24)
    ]


def test_passages_with_an_answer_are_taken_away_and_others_move_up(
    answerer: Answerer, store: PassageStore
) -> None:
    question = Question(id="1", question="where was fermat born", answers=("Toulouse",))
    (all_rows, scores), *_ = answerer.retriever.retrieve([question.question], len(store))
    held = {row for row in all_rows if "Toulouse" in store[row].text}
    assert held
    without = WithoutAnswers(answerer.retriever, store, [question])
    assert (without.name, without.score_weight) == ("dense", 1.0)
    ((rows, kept_scores),) = without.retrieve([question.question], 4)
    expected = [(r, s) for r, s in zip(all_rows, scores, strict=True) if r not in held][:4]
    assert list(zip(rows, kept_scores, strict=True)) == expected


def test_it_looks_deeper_until_it_has_enough(store: PassageStore) -> None:
    class Deep:
        """A passage with the answer, again and again, and the others after them."""

        name = "deep"
        score_weight = 0.0

        def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
            rows = ([held] * (SPARE + 5) + others)[:k]
            return [(rows, [0.0] * len(rows)) for _ in questions]

    class Large:
        """The store, and many more passages."""

        def __len__(self) -> int:
            return 10_000

        def texts(self, rows: Sequence[int]) -> list[str]:
            return store.texts(rows)

    held = next(row for row in range(len(store)) if "Toulouse" in store[row].text)
    others = [row for row in range(len(store)) if "Toulouse" not in store[row].text]
    question = Question(id="1", question="where", answers=("Toulouse",))
    large = Large()
    ((rows, _),) = WithoutAnswers(Deep(), large, [question]).retrieve(["where"], 3)
    assert rows == others[:3]
    everything = Question(id="1", question="where", answer_patterns=(".",))
    ((rows, _),) = WithoutAnswers(Deep(), large, [everything]).retrieve(["where"], 3)
    assert rows == []


def test_cases_tell_right_from_wrong_and_one_that_cannot_be_asked_spoils_no_other(
    answerer: Answerer, questions: list[Question]
) -> None:
    unknown = Question(id="x", question="\u65e5\u672c", answers=("zz",))
    found = answer_cases(answerer, [*questions[:4], unknown], batch_size=5)
    assert [case.is_right for case in found] == [False, True, False, True, False]
    assert [case.evidence is None for case in found] == [False] * 4 + [True]
    assert [case.is_refused for case in found] == [False] * 4 + [True]


def test_without_their_passages_no_answer_is_right(
    answerer: Answerer, questions: list[Question]
) -> None:
    found = answer_cases(answerer, questions, without_answers=True)
    assert not any(case.is_right for case in found)
    assert answerer.retriever.name == "dense"


def test_a_run_is_calibrated_on_its_own_answers(
    answerer: Answerer, questions: list[Question]
) -> None:
    calls: list[tuple[int, int]] = []
    made = calibrate(
        answerer,
        questions,
        config=CalibrateConfig(batch_size=8, removed_share=0.25),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(8, 30), (16, 30), (24, 30), (30, 30)]
    assert (made.model_fingerprint, made.retriever, made.num_passages) == ("feed", "dense", 2)
    assert made.figures["num_questions"] == 24
    assert made.figures["num_without_answers"] == 6
    assert made.figures["accuracy"] == 0.5
    answerer.calibration = made
    (told,) = answerer.answer([questions[0].question])
    assert told.is_calibrated
    assert told.min_probability == made.min_probability
    assert told.evidence
    assert set(evidence_features(told.evidence)) == set(made.calibrator.names)


def test_the_same_questions_make_the_same_calibration(
    answerer: Answerer, questions: list[Question]
) -> None:
    config = CalibrateConfig(seed=1, limit=23, removed_share=0.1)
    assert calibrate(answerer, questions, config=config) == calibrate(
        answerer, questions, config=config
    )
