"""One question and what was said to it -> what is right, and where an answer stands."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from realm.config import EvaluateConfig
from realm.errors import RealmError
from realm.evaluation.measuring import Depths
from realm.evaluation.metrics import answer_finder, exact_match, regex_match, token_f1
from realm.evaluation.report import QuestionRecord, ShownEvidence
from realm.records import Answer, AnsweredQuestion, Question


@runtime_checkable
class Told(Protocol):
    """One answer, wherever it comes from."""

    @property
    def text(self) -> str:
        """Its words."""
        ...

    @property
    def probability(self) -> float:
        """p(y|x)."""
        ...


@runtime_checkable
class Replied(Protocol):
    """What an answerer says to one question: an AnsweredQuestion, or answers without passages."""

    @property
    def answers(self) -> Sequence[Told]:
        """Best first; empty when nothing was found."""
        ...

    @property
    def passage_rows(self) -> tuple[int, ...]:
        """Every retrieved row, best first."""
        ...

    @property
    def read_rows(self) -> tuple[int, ...]:
        """The rows that were read."""
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


def judge(
    question: Question,
    answered: Replied | None,
    passages: Passages,
    config: EvaluateConfig,
    depths: Depths,
    *,
    error: RealmError | None = None,
) -> QuestionRecord:
    """Return what was found of one question.

    Args:
        question: with what counts as right.
        answered: what was said to it; None: nothing.
        passages: where the retrieved rows have their texts.
        config: decides the rules of the matches.
        depths: how many of the retrieved rows count.
        error: why nothing was said.
    """
    answered = answered or AnsweredQuestion(question=question.question, answers=())
    best = answered.answers[0] if answered.answers else None
    prediction = best.text if best else ""
    exact = exact_match(prediction, question, config.normalizer) if question.answers else None
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
        f1=token_f1(prediction, question, config.normalizer) if question.answers else None,
        regex_match=regex,
        rank=rank,
        answer_was_read=answer_was_read,
        error=f"{type(error).__name__}: {error}" if error else None,
        evidence=ShownEvidence.of(best) if isinstance(best, Answer) else None,
        refused=answered.is_refused if isinstance(answered, AnsweredQuestion) else not best,
    )


def _find(
    answered: Replied, passages: Passages, depths: Depths, found: Callable[[str], bool]
) -> tuple[int | None, bool]:
    """Return the rank of the first passage with an answer, and whether a read one has it."""
    retrieved = answered.passage_rows[: depths.num_retrieved]
    rows = list(dict.fromkeys([*retrieved, *answered.read_rows]))
    texts = dict(zip(rows, passages.texts(rows), strict=True)) if rows else {}
    rank = next((i for i, row in enumerate(retrieved, start=1) if found(texts[row])), None)
    return rank, any(found(texts[row]) for row in answered.read_rows)
