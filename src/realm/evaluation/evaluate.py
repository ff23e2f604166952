"""Answerer x questions -> report: exact match, recall, reader oracle, each with an interval."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol, runtime_checkable

import numpy as np

from realm.config import EvaluateConfig
from realm.errors import AnsweringError, ArtifactError, ConfigError, CorpusError, RealmError
from realm.evaluation.abstention import Abstention, measure_abstention
from realm.evaluation.metrics import (
    answer_finder,
    bootstrap_interval,
    exact_match,
    hits_at_k,
    reciprocal_ranks,
    regex_match,
    token_f1,
)
from realm.evaluation.overlap import THIRDS, overlap_thirds
from realm.evaluation.questions import questions_fingerprint
from realm.evaluation.report import Metric, OverlapThird, QuestionRecord, Report
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
    ) -> list[AnsweredQuestion]:
        """Return one result a question, in order.

        Args:
            questions: a batch.
            num_passages: how many passages the reader reads.
            num_retrieved: how many rows `passage_rows` lists, read or not.
        """
        ...


@runtime_checkable
class Passages(Protocol):
    """The passages that the answerer searches."""

    @property
    def fingerprint(self) -> str:
        """Hash of all passages."""
        ...

    def __len__(self) -> int: ...

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the text of each row, without its title."""
        ...


def evaluate(
    answerer: Answerer,
    passages: Passages,
    questions: Sequence[Question],
    *,
    config: EvaluateConfig,
    split_name: str,
    retriever_name: str = "realm",
    overlap: Callable[[Question], float | None] = lambda _: None,
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
        overlap: share of a question's words that stand in its gold passage (`gold_overlap`);
            where at least three are known, the report compares thirds.
        progress: called with (answered, asked) after each batch.

    Raises:
        CorpusError: there is no question or no passage.
        ArtifactError: the answerer searches other passages.
        ConfigError: a k below 1.
        AnsweringError: no question could be answered.
    """
    _check(answerer, passages, questions, config)
    depths = _Depths.of(config, len(passages))
    asked = _sample(questions, config)
    failures = Skipped()
    records: list[QuestionRecord] = []
    seconds: list[float] = []
    said: AnsweredQuestion | None = None
    for start in range(0, len(asked), config.batch_size):
        batch = asked[start : start + config.batch_size]
        for question, reply in zip(batch, _ask(answerer, batch, depths), strict=True):
            if reply.error is not None:
                failures.add(type(reply.error).__name__, f"{question.id}: {reply.error}")
            judged = _judge(question, reply, passages, config, depths)
            records.append(replace(judged, overlap=overlap(question)))
            seconds.append(reply.seconds)
            said = reply.answered or said
        if progress is not None:
            progress(len(records), len(asked))
    if failures.total == len(records):
        raise AnsweringError(
            f"none of {len(records):,} questions could be answered; the first: "
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
        settings={**config.as_dict(), "num_retrieved": depths.num_retrieved},
        metrics=_metrics(records, config, depths),
        thirds=_thirds(records, config, depths),
        median_seconds_per_question=median(seconds),
        records=tuple(records),
        failures=failures.counts,
        abstention=_abstention(records, said),
    )


@dataclass(frozen=True, slots=True)
class _Depths:
    """How many passages count, at most the corpus."""

    recall_at: tuple[int, ...]
    num_passages: int
    num_retrieved: int

    @classmethod
    def of(cls, config: EvaluateConfig, num_corpus: int) -> "_Depths":
        recall_at = tuple(sorted({min(k, num_corpus) for k in config.recall_at}))
        num_passages = min(config.num_passages, num_corpus)
        return cls(recall_at, num_passages, max(*recall_at, num_passages, 1))


@dataclass(frozen=True, slots=True)
class _Reply:
    answered: AnsweredQuestion | None
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


def _sample(questions: Sequence[Question], config: EvaluateConfig) -> list[Question]:
    """Return all questions, or `config.limit` drawn at random, in file order."""
    if config.limit is None or config.limit >= len(questions):
        return list(questions)
    random = np.random.default_rng(config.seed)
    drawn = random.choice(len(questions), size=config.limit, replace=False)
    return [questions[number] for number in sorted(drawn.tolist())]


def _ask(answerer: Answerer, batch: Sequence[Question], depths: _Depths) -> list[_Reply]:
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


def _judge(
    question: Question,
    reply: _Reply,
    passages: Passages,
    config: EvaluateConfig,
    depths: _Depths,
) -> QuestionRecord:
    answered = reply.answered or AnsweredQuestion(question=question.question, answers=())
    best = answered.answers[0] if answered.answers else None
    prediction = best.text if best else ""
    exact = exact_match(prediction, question) if question.answers else None
    patterns = question.answer_patterns
    regex = regex_match(prediction, patterns, config.regex_mode) if patterns else None
    rank, answer_was_read = _find(answered, passages, depths, answer_finder(question))
    return QuestionRecord(
        id=question.id,
        question=question.question,
        answers=question.answers,
        answer_patterns=patterns,
        prediction=prediction,
        probability=best.probability if best else 0.0,
        right=bool(exact or regex),
        exact_match=exact,
        f1=token_f1(prediction, question) if question.answers else None,
        regex_match=regex,
        rank=rank,
        answer_was_read=answer_was_read,
        error=f"{type(reply.error).__name__}: {reply.error}" if reply.error else None,
        refused=answered.is_refused,
    )


def _find(
    answered: AnsweredQuestion, passages: Passages, depths: _Depths, found: Callable[[str], bool]
) -> tuple[int | None, bool]:
    """Return the rank of the first passage with an answer, and whether a read one has it."""
    retrieved = answered.passage_rows[: depths.num_retrieved]
    rows = list(dict.fromkeys([*retrieved, *answered.read_rows]))
    texts = dict(zip(rows, passages.texts(rows), strict=True)) if rows else {}
    rank = next((i for i, row in enumerate(retrieved, start=1) if found(texts[row])), None)
    return rank, any(found(texts[row]) for row in answered.read_rows)


def _abstention(
    records: Sequence[QuestionRecord], said: AnsweredQuestion | None
) -> Abstention | None:
    """Return what the probabilities are worth; one of the answers tells the threshold."""
    if said is None:
        return None
    return measure_abstention(
        [record.probability for record in records],
        [record.right for record in records],
        min_probability=said.min_probability,
        is_calibrated=said.is_calibrated,
    )


def _metrics(
    records: Sequence[QuestionRecord], config: EvaluateConfig, depths: _Depths
) -> dict[str, Metric]:
    ranks = [record.rank for record in records]
    values = {
        "exact_match": [float(r.exact_match) for r in records if r.exact_match is not None],
        "f1": [r.f1 for r in records if r.f1 is not None],
        "regex_match": [float(r.regex_match) for r in records if r.regex_match is not None],
    }
    for k in depths.recall_at:
        values[f"recall@{k}"] = hits_at_k(ranks, k)
    values[f"reader_oracle@{depths.num_passages}"] = [float(r.answer_was_read) for r in records]
    values["mean_reciprocal_rank"] = reciprocal_ranks(ranks)
    measured: dict[str, Metric] = {}
    for name, numbers in values.items():
        if numbers:
            interval = bootstrap_interval(
                numbers, samples=config.bootstrap_samples, seed=config.seed
            )
            measured[name] = Metric(
                mean=interval.mean,
                low=interval.low,
                high=interval.high,
                num_questions=len(numbers),
            )
    return measured


def _thirds(
    records: Sequence[QuestionRecord], config: EvaluateConfig, depths: _Depths
) -> dict[str, OverlapThird]:
    """Return the numbers of each third by overlap; exact match and recall, which compare."""
    parts = overlap_thirds([r.overlap for r in records], [r.id for r in records])
    chosen = [[records[number] for number in part] for part in parts]
    measured = [_metrics(part, config, depths) for part in chosen]
    shared = [name for name in measured[0] if all(name in one for one in measured)] if parts else []
    return {
        name: OverlapThird(
            low=min(record.overlap or 0.0 for record in part),
            high=max(record.overlap or 0.0 for record in part),
            metrics={key: metrics[key] for key in shared if _compares(key)},
        )
        for name, part, metrics in zip(THIRDS[: len(parts)], chosen, measured, strict=True)
    }


def _compares(name: str) -> bool:
    return name == "exact_match" or name.startswith("recall@")
