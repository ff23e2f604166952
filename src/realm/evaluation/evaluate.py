"""Answerer x questions -> report: exact match, recall, reader oracle, each with an interval."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Protocol, runtime_checkable

import numpy as np

from realm.config import EvaluateConfig
from realm.errors import AnsweringError, ArtifactError, ConfigError, CorpusError, RealmError
from realm.evaluation.abstention import Abstention, measure_abstention
from realm.evaluation.breakdown import breakdowns
from realm.evaluation.judging import Passages, Replied, judge
from realm.evaluation.measuring import Depths, measure, thirds
from realm.evaluation.metrics import NORMALIZERS
from realm.evaluation.questions import keep_short_answers, questions_fingerprint
from realm.evaluation.report import QuestionRecord, Report
from realm.evaluation.train_overlap import TrainOverlap
from realm.readable import counted
from realm.records import AnsweredQuestion, Progress, Question, Skipped


@runtime_checkable
class Answerer(Protocol):
    """What is evaluated: a model with its index."""

    @property
    def model_name(self) -> str:
        """Name of the model, for the report."""
        ...

    @property
    def model_fingerprint(self) -> str:
        """Hash of the parameters."""
        ...

    @property
    def corpus_fingerprint(self) -> str:
        """Hash of the passages that are searched."""
        ...

    def answer(
        self, questions: Sequence[str], *, num_passages: int, num_retrieved: int
    ) -> Sequence[Replied]:
        """Return one result a question, in order.

        Args:
            questions: a batch.
            num_passages: how many passages the reader reads.
            num_retrieved: how many rows `passage_rows` lists, read or not.
        """
        ...


def evaluate(
    answerer: Answerer,
    passages: Passages,
    questions: Sequence[Question],
    *,
    config: EvaluateConfig,
    split_name: str,
    retriever_name: str = "realm",
    retrieves: bool = True,
    overlap: Callable[[Question], float | None] = lambda _: None,
    train_overlap: TrainOverlap | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return how well the answerer does on the questions.

    exact_match and f1 count questions with answer strings, regex_match those with patterns.
    recall@k: an answer stands in one of the first k passages. reader_oracle@n: in one of the n
    passages that were read. mean_reciprocal_rank: over the passages retrieved, which are as many
    as the largest k. Each k and n is at most the corpus. A question on which the answerer raises
    a RealmError counts as wrong everywhere and among the report's failures. All of these judge the
    best guess, whether it was said or kept back as too improbable; `abstention` tells them apart.

    Args:
        answerer: answers in batches of `config.batch_size`.
        passages: those that the answerer searches.
        questions: the whole split; `config.limit` draws from it.
        config: the settings.
        split_name: name of the split, for the report.
        retriever_name: name of what retrieves, for the report.
        retrieves: whether the answerer finds passages; one that does not is measured by its
            answers alone, and nothing is said about passages.
        overlap: share of a question's words that stand in its gold passage (`gold_overlap`);
            where at least three are known, the report compares thirds.
        train_overlap: the training set, to split the questions by what it gives away.
        progress: called with (answered, asked) after each batch.

    Raises:
        CorpusError: there is no question (with an answer of `max_answer_tokens`) or no passage.
        ArtifactError: the answerer searches other passages.
        ConfigError: a k below 1.
        AnsweringError: no question could be answered.
    """
    _check(answerer, passages, questions, config)
    depths = Depths.of(config, len(passages)) if retrieves else Depths.none()
    allowed, dropped = _allowed(questions, config)
    asked = _sample(allowed, config)
    failures = Skipped()
    records: list[QuestionRecord] = []
    seconds: list[float] = []
    said: Replied | None = None
    for start in range(0, len(asked), config.batch_size):
        batch = asked[start : start + config.batch_size]
        for question, reply in zip(batch, _ask(answerer, batch, depths), strict=True):
            if reply.error is not None:
                failures.add(type(reply.error).__name__, f"{question.id}: {reply.error}")
            judged = judge(question, reply.answered, passages, config, depths, error=reply.error)
            seen = train_overlap.split_of(question) if train_overlap else None
            records.append(replace(judged, overlap=overlap(question), train_overlap=seen))
            seconds.append(reply.seconds)
            said = reply.answered or said
        if progress is not None:
            progress(len(records), len(asked))
    if failures.total == len(records):
        raise AnsweringError(
            f"none of {counted(len(records), 'question')} could be answered; the first: "
            f"{records[0].question[:80]!r}, {records[0].error}"
        )
    return Report(
        model=answerer.model_name,
        model_fingerprint=answerer.model_fingerprint,
        retriever=retriever_name,
        corpus_fingerprint=passages.fingerprint,
        num_corpus_passages=len(passages),
        split=split_name,
        split_fingerprint=questions_fingerprint(questions),
        num_split_questions=len(questions),
        normalizer=NORMALIZERS[config.normalizer],
        settings={**config.as_dict(), "num_retrieved": depths.num_retrieved},
        metrics=measure(records, config, depths),
        thirds=thirds(records, config, depths),
        breakdowns=breakdowns(records, retrieves=retrieves),
        median_seconds_per_question=median(seconds),
        records=tuple(records),
        failures=failures.counts,
        abstention=_abstention(records, said),
        dropped=dropped.counts,
        training_sets=tuple(asdict(one) for one in train_overlap.sets) if train_overlap else (),
    )


@dataclass(frozen=True, slots=True)
class _Reply:
    answered: Replied | None
    error: RealmError | None
    seconds: float


def _check(
    answerer: Answerer,
    passages: Passages,
    questions: Sequence[Question],
    config: EvaluateConfig,
) -> None:
    if not questions:
        raise CorpusError("found no question to evaluate on, expected at least one")
    if len(passages) == 0:
        raise CorpusError("found no passage to search, expected at least one")
    if not config.recall_at or min(config.recall_at) < 1:
        raise ConfigError(
            f"recall_at: found {list(config.recall_at)}, expected numbers of passages from 1 on, "
            "e.g. --set recall_at=[1,5,20,100]"
        )
    if answerer.corpus_fingerprint != passages.fingerprint:
        raise ArtifactError(
            f"the model searches passages {answerer.corpus_fingerprint[:12]}, found passages "
            f"{passages.fingerprint[:12]}; give the passages that its index was built from, or "
            "build the index again"
        )


def _allowed(
    questions: Sequence[Question], config: EvaluateConfig
) -> tuple[Sequence[Question], Skipped]:
    """Return the questions that `config.max_answer_tokens` leaves, and what it dropped."""
    if config.max_answer_tokens is None:
        return questions, Skipped()
    kept, dropped = keep_short_answers(questions, config.max_answer_tokens)
    if not kept:
        raise CorpusError(
            f"found no answer of at most {counted(config.max_answer_tokens, 'word')} in "
            f"{counted(len(questions), 'question')}, expected some; raise or leave out "
            "max_answer_tokens"
        )
    return kept, dropped


def _sample(questions: Sequence[Question], config: EvaluateConfig) -> list[Question]:
    """Return all questions, or `config.limit` drawn at random, in file order."""
    if config.limit is None or config.limit >= len(questions):
        return list(questions)
    random = np.random.default_rng(config.seed)
    drawn = random.choice(len(questions), size=config.limit, replace=False)
    return [questions[number] for number in sorted(drawn.tolist())]


def _ask(answerer: Answerer, batch: Sequence[Question], depths: Depths) -> list[_Reply]:
    """Answer a batch; where it fails, each question alone, so that one cannot spoil the rest."""
    start = time.perf_counter()
    try:
        answered = answerer.answer(
            [question.question for question in batch],
            num_passages=depths.num_passages,
            num_retrieved=depths.num_retrieved,
        )
    except RealmError as error:
        if len(batch) > 1:
            return [reply for question in batch for reply in _ask(answerer, [question], depths)]
        return [_Reply(None, error, time.perf_counter() - start)]
    seconds = (time.perf_counter() - start) / len(batch)
    return [_Reply(one, None, seconds) for one in answered]


def _abstention(records: Sequence[QuestionRecord], said: Replied | None) -> Abstention | None:
    """Return what the probabilities are worth; one of the answers tells the threshold."""
    if said is None:
        return None
    told = said if isinstance(said, AnsweredQuestion) else None  # closed-book: no threshold
    return measure_abstention(
        [record.probability for record in records],
        [record.right for record in records],
        min_probability=told.min_probability if told else 0.0,
        is_calibrated=told is not None and told.is_calibrated,
    )
