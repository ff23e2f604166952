"""Seen in training? Test questions split by what the training set gives away (Lewis et al. 2021).

A model that learned its training questions by heart is right on their paraphrases, and on answers
it was taught. What it does on the others is what it can do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from realm.evaluation.metrics import compile_pattern, normalize_answer
from realm.evaluation.overlap import content_words
from realm.evaluation.questions import questions_fingerprint
from realm.records import Question

SAME_QUESTION = 0.6
"""Share of content words that two questions of one answer have in common (intersection over
union) from which on one counts as a paraphrase of the other."""
QUESTION, ANSWER, NONE = SPLITS = ("question", "answer only", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """A file of training questions, for the report."""

    name: str
    fingerprint: str
    num_questions: int


class TrainOverlap:
    """The training questions, ready to be compared with."""

    def __init__(self, files: Mapping[str, Sequence[Question]]) -> None:
        """Read training questions.

        Args:
            files: name of each file -> its questions.
        """
        self.sets = tuple(
            TrainingSet(name=name, fingerprint=questions_fingerprint(part), num_questions=len(part))
            for name, part in files.items()
        )
        self._questions = [question for part in files.values() for question in part]
        self._asked = {normalize_answer(question.question) for question in self._questions}
        self._by_answer = _numbered(_normalized(q.answers) for q in self._questions)
        self._by_text = _numbered(q.answers for q in self._questions)
        self._by_pattern = _numbered(q.answer_patterns for q in self._questions)
        self._words: dict[int, set[str]] = {}

    def split_of(self, question: Question) -> str:
        """Return what the training set holds of a question, one of SPLITS.

        question: a training question is equal after normalisation, whatever its answer; or has
        an answer of this one and SAME_QUESTION of the content words. answer only: else, and a
        training question has an answer of this one, both normalised. none: neither. Patterns
        are the answers of a question that has them: a training set shares one that is equal, or
        that fits one of its answers as `regex_match` does.
        """
        if normalize_answer(question.question) in self._asked:
            return QUESTION
        sharing = self._sharing(question)
        if not sharing:
            return NONE
        mine = content_words(question.question)
        is_same = any(
            _likeness(mine, self._words_of(number)) >= SAME_QUESTION for number in sharing
        )
        return QUESTION if is_same else ANSWER

    def _sharing(self, question: Question) -> set[int]:
        """Return the numbers of the training questions with an answer of this one."""
        found = [self._by_answer.get(key, []) for key in _normalized(question.answers)]
        for pattern in question.answer_patterns:
            found.append(self._by_pattern.get(pattern, []))
            if (regex := compile_pattern(pattern)) is not None:
                found += [numbers for text, numbers in self._by_text.items() if regex.match(text)]
        return {number for numbers in found for number in numbers}

    def _words_of(self, number: int) -> set[str]:
        if number not in self._words:
            self._words[number] = content_words(self._questions[number].question)
        return self._words[number]


def _numbered(keys: Iterable[Iterable[str]]) -> Mapping[str, list[int]]:
    """Return each key with the numbers of the questions that have it."""
    numbers: dict[str, list[int]] = {}
    for number, mine in enumerate(keys):
        for key in mine:
            numbers.setdefault(key, []).append(number)
    return numbers


def _normalized(answers: Iterable[str]) -> set[str]:
    """Return normalised answers; one with no word left ("The") stays as it is written."""
    return {normalize_answer(answer) or answer for answer in answers}


def _likeness(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
