"""A run and questions -> the chance that its answers are right, and when to say "no answer".

The questions are answered twice: as they are, and, for a share of them, from what is left of the
retriever's list without the passages that hold an answer. The second kind is wrong, unless exact
match forgives what the search for answers does not, and shows what the evidence looks like where
the corpus does not know. Every figure is measured on the
half of the questions that the numbers behind it were not fitted to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from realm.answering import Answerer
from realm.checkpoint.calibration import Calibration
from realm.config import CalibrateConfig
from realm.errors import AnsweringError, CorpusError
from realm.evaluation.abstention import choose_threshold, measure_abstention, share_below
from realm.evaluation.metrics import answer_finder, exact_match, regex_match
from realm.evaluation.questions import questions_fingerprint
from realm.model.confidence import (
    Calibrator,
    fit_calibrator,
    fit_temperature,
    log_odds,
    sigmoid,
)
from realm.readable import counted
from realm.records import AnsweredQuestion, Evidence, Progress, Question
from realm.retrieval.dense import Retriever

LEAST = 10
"""Right answers, and wrong ones, without which nothing is fitted."""
SPARE = 95
"""Passages retrieved beyond those read, to make up for those taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question answered."""

    evidence: Evidence | None
    """None: nothing was found."""
    probability: float
    """Of the best answer, as the run says it; 0: nothing was found."""
    is_right: bool
    """Exact match or regex match."""
    is_refused: bool
    """Whether "no answer" was said."""


@runtime_checkable
class Texts(Protocol):
    """A passage store."""

    def __len__(self) -> int: ...

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the text of each row."""
        ...


class WithoutAnswers:
    """A retriever over passages from which all that hold an answer were taken."""

    def __init__(self, retriever: Retriever, store: Texts, questions: Sequence[Question]) -> None:
        self.name: str = retriever.name
        self.score_weight: float = retriever.score_weight
        self._retriever = retriever
        self._store = store
        self._finders: dict[str, list[Callable[[str], bool]]] = {}
        for question in questions:
            self._finders.setdefault(question.question, []).append(answer_finder(question))

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        """Return (rows, scores) of the k best passages without an answer, best first."""
        return [self._retrieve(question, k) for question in questions]

    def _retrieve(self, question: str, k: int) -> tuple[list[int], list[float]]:
        depth = k + SPARE
        while True:
            ((rows, scores),) = self._retriever.retrieve([question], depth)
            texts = self._store.texts(rows)
            held = [any(find(text) for find in self._finders[question]) for text in texts]
            kept = [place for place, holds in enumerate(held) if not holds][:k]
            if len(kept) == k or len(rows) < depth or depth >= len(self._store):
                return [rows[place] for place in kept], [scores[place] for place in kept]
            depth *= 4


def answer_cases(
    answerer: Answerer,
    questions: Sequence[Question],
    *,
    num_passages: int | None = None,
    batch_size: int = 16,
    without_answers: bool = False,
    progress: Progress | None = None,
) -> list[Case]:
    """Return one case a question, in order; one that cannot be asked found nothing.

    Args:
        answerer: the run.
        questions: with their answers.
        num_passages: passages read for each; None: the run's default.
        batch_size: questions answered together.
        without_answers: take away the passages that hold an answer.
        progress: called with (answered, questions).
    """
    if without_answers:
        answerer = answerer.with_retriever(
            WithoutAnswers(answerer.retriever, answerer.store, questions)
        )
    cases: list[Case] = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        answered = _ask(answerer, [question.question for question in batch], num_passages)
        cases += [_case(*pair) for pair in zip(batch, answered, strict=True)]
        if progress is not None:
            progress(len(cases), len(questions))
    return cases


def draw(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """Return at most `limit` of the questions (None: all), in random order."""
    order = np.random.default_rng(seed).permutation(len(questions))[:limit]
    return [questions[number] for number in order.tolist()]


def calibrate(
    answerer: Answerer,
    questions: Sequence[Question],
    *,
    config: CalibrateConfig,
    progress: Progress | None = None,
) -> Calibration:
    """Return a calibration fitted to the run's answers, with its figures.

    Args:
        answerer: the run, with the retriever that it is going to be asked with.
        questions: with their answers, not trained on; `config.limit` draws from them.
        config: the settings.
        progress: called with (answered, to answer).

    Raises:
        CorpusError: too few of the answers are right, or too few wrong.
    """
    asked = draw(questions, config.limit, config.seed)
    removed = asked[: round(config.removed_share * len(asked))]
    total = len(asked) + len(removed)
    num_passages = config.num_passages or answerer.lengths.num_passages

    settings: dict[str, Any] = {"num_passages": num_passages, "batch_size": config.batch_size}
    cases = answer_cases(answerer, asked, progress=_after(progress, 0, total), **settings)
    told = _after(progress, len(asked), total)
    without = answer_cases(answerer, removed, without_answers=True, progress=told, **settings)
    calibrator, threshold, figures = fit_and_measure(cases, without, config)
    return Calibration(
        model_fingerprint=answerer.model_fingerprint,
        retriever=answerer.retriever.name,
        num_passages=num_passages,
        calibrator=calibrator,
        min_probability=threshold,
        figures=figures,
        settings=config.as_dict(),
        inputs={
            "questions": questions_fingerprint(questions),
            "passages": answerer.corpus_fingerprint,
        },
    )


def fit_and_measure(
    cases: Sequence[Case], without: Sequence[Case], config: CalibrateConfig
) -> tuple[Calibrator, float, dict[str, Any]]:
    """Return the calibrator of all cases, the default threshold, and figures by cross-fitting.

    Args:
        cases: questions as they are asked.
        without: the first of them again, without the passages that hold an answer.
        config: the settings.

    Raises:
        CorpusError: too few of the answers are right, or too few wrong.
    """
    right = [case.is_right for case in cases]
    if min(sum(right), len(right) - sum(right)) < LEAST:
        raise CorpusError(
            f"found {counted(sum(right), 'right answer')} to {counted(len(right), 'question')}, "
            "expected at least "
            f"{LEAST} right and {LEAST} wrong ones to calibrate with; give more questions "
            "(--set limit=none takes all), such as the run can answer in part"
        )
    halves = _halves(right)
    told, told_without = [0.0] * len(cases), [0.0] * len(without)
    scaled = [0.0] * len(cases)
    for half in (0, 1):
        fitted = [case for case, h in zip(cases, halves, strict=True) if h != half]
        fitted_without = [c for c, h in zip(without, halves, strict=False) if h != half]
        calibrator = _fit(fitted, fitted_without, config)
        temperature = _plain_temperature(fitted)
        for number, case in enumerate(cases):
            if halves[number] == half and case.evidence is not None:
                told[number] = calibrator.probability(case.evidence)
                scaled[number] = sigmoid(log_odds(case.evidence.probability) / temperature)
        for number, case in enumerate(without):
            if halves[number] == half and case.evidence is not None:
                told_without[number] = calibrator.probability(case.evidence)
    threshold = choose_threshold(told_without, config.refuse)
    raw = [case.evidence.probability if case.evidence else 0.0 for case in cases]
    calibrated = measure_abstention(told, right, min_probability=threshold, is_calibrated=True)
    figures = {
        "num_questions": len(cases),
        "num_without_answers": len(without),
        "accuracy": sum(right) / len(right),
        "raw": measure_abstention(raw, right).as_json(),
        "temperature": measure_abstention(scaled, right).as_json(),
        "calibrated": calibrated.as_json(),
        **_other_half_refusals(told, told_without, right, halves, config.refuse),
    }
    return _fit(cases, without, config), threshold, figures


def _after(progress: Progress | None, done: int, total: int) -> Progress | None:
    """Return the progress of one part of all that is answered."""
    if progress is None:
        return None
    return lambda part, _: progress(done + part, total)


def _halves(right: Sequence[bool]) -> list[int]:
    """Return 0 or 1 for each question, with equal numbers of right and wrong ones in both."""
    seen = {True: 0, False: 0}
    halves: list[int] = []
    for is_right in right:
        halves.append(seen[is_right] % 2)
        seen[is_right] += 1
    return halves


def _fit(cases: Sequence[Case], without: Sequence[Case], config: CalibrateConfig) -> Calibrator:
    known = [(case.evidence, case.is_right, True) for case in cases if case.evidence]
    known += [(case.evidence, case.is_right, False) for case in without if case.evidence]
    evidence, is_right, is_asked = zip(*known, strict=True)
    return fit_calibrator(evidence, is_right, is_asked, l2=config.l2)


def _plain_temperature(cases: Sequence[Case]) -> float:
    """Return T of the baseline: sigmoid(log odds of the reader's own probability / T)."""
    known = [(case.evidence, case.is_right) for case in cases if case.evidence]
    odds = [log_odds(evidence.probability) for evidence, _ in known]
    right = [float(is_right) for _, is_right in known]
    logits, labels = (torch.tensor(values, dtype=torch.float64) for values in (odds, right))
    return fit_temperature(logits, labels, with_shift=False)[0]


def _other_half_refusals(
    told: Sequence[float],
    told_without: Sequence[float],
    right: Sequence[bool],
    halves: Sequence[int],
    refuse: float,
) -> dict[str, float]:
    """Return the shares refused in each half by the threshold that the other half chooses."""
    refused_without, refused_right = 0.0, 0.0
    for half in (0, 1):
        others = [p for p, h in zip(told_without, halves, strict=False) if h != half]
        threshold = choose_threshold(others, refuse)
        mine = [p for p, h in zip(told_without, halves, strict=False) if h == half]
        good = [
            p for p, h, is_right in zip(told, halves, right, strict=True) if h == half and is_right
        ]
        refused_without += share_below(mine, threshold) * len(mine)
        refused_right += share_below(good, threshold) * len(good)
    return {
        "share_of_without_answers_refused": refused_without / max(1, len(told_without)),
        "share_of_right_refused": refused_right / sum(right),
    }


def _ask(
    answerer: Answerer, questions: Sequence[str], num_passages: int | None
) -> list[AnsweredQuestion]:
    """Answer a batch; where it fails, each question alone; who cannot be asked finds nothing."""
    try:
        return answerer.answer(questions, num_passages=num_passages, num_answers=1)
    except AnsweringError:
        if len(questions) == 1:
            return [AnsweredQuestion(question=questions[0], answers=())]
        return [_ask(answerer, [question], num_passages)[0] for question in questions]


def _case(question: Question, answered: AnsweredQuestion) -> Case:
    best = answered.answers[0] if answered.answers else None
    said = best.text if best else ""
    return Case(
        evidence=answered.evidence,
        probability=best.probability if best else 0.0,
        is_right=exact_match(said, question) or regex_match(said, question.answer_patterns),
        is_refused=answered.is_refused,
    )
