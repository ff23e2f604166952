"""JSON lines -> questions: NQ-open, WebQuestions, CuratedTREC, SQuAD-open and your own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from realm.errors import CorpusError
from realm.evaluation.json_lines import read_objects, whole
from realm.evaluation.metrics import compile_pattern
from realm.records import Question, Skipped
from realm.storage import fingerprint_of

_OF_CLAIMS = "Claims are learned by `realm finetune --task classify`; ask that run about them"
_EXAMPLE = '{"question": "who wrote Emma", "answers": ["Jane Austen"]}'


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a JSON-lines file, in file order.

    Keys of a line: `question`; `answers` or `answer` (a string or a list of strings), or
    `answer_patterns` (regexes, CuratedTREC); optional `id` (default or null: `line-N`) and
    `passage_id`. Other keys are ignored, blank lines too, repeated answers collapse, repeated
    questions stay.

    Args:
        path: a file named *.jsonl, or *.jsonl.gz, .bz2 or .zst.

    Raises:
        CorpusError: the file is missing, damaged or empty, or a line is no question.
    """
    return [
        _parse(line, f"{path}:{number}", default_id=f"line-{number}")
        for number, line in read_objects(path, noun="question", example=_EXAMPLE)
    ]


def questions_fingerprint(questions: Iterable[Question]) -> str:
    """Return the sha256 of what is asked and what counts as right, in order, ids aside."""
    return fingerprint_of([[q.question, q.answers, q.answer_patterns] for q in questions])


def keep_short_answers(
    questions: Sequence[Question], max_tokens: int
) -> tuple[list[Question], Skipped]:
    """Return the questions with their short answers alone, and counts of what was dropped.

    NQ-open kept answers of at most 5 tokens. It counted the tokens of a web page; here they are
    words between white space, which drop 3 of 61,145 answers of its training set, where every
    punctuation mark as a token of its own would drop 564. Patterns stay.

    Args:
        questions: with answers of any length.
        max_tokens: words of the longest answer that is kept.
    """
    kept: list[Question] = []
    dropped = Skipped()
    for question in questions:
        answers = tuple(a for a in question.answers if len(a.split()) <= max_tokens)
        for answer in set(question.answers) - set(answers):
            dropped.add("long answers", f"{question.id}: {answer}")
        if answers or question.answer_patterns:
            kept.append(replace(question, answers=answers))
        else:
            dropped.add("questions without a short answer", question.id)
    return kept, dropped


def _parse(line: Mapping[str, Any], place: str, *, default_id: str) -> Question:
    question = line.get("question")
    if not isinstance(question, str) or not question.strip():
        found = f"{question!r} as" if "question" in line else f"keys {sorted(line)} and no"
        told = f"{place}: found {found} question, expected a text that is not empty"
        raise CorpusError(f"{told}. {_OF_CLAIMS}" if "claim" in line else told)
    patterns = _texts(line, "answer_patterns", place)
    answers = _texts(line, "answers", place) or _texts(line, "answer", place)
    if not answers and not patterns:
        raise CorpusError(
            f"{place}: found no answers among keys {sorted(line)}, expected `answers` (a list of "
            "strings), `answer` or `answer_patterns` (a list of regexes) with at least one entry"
        )
    for pattern in patterns:
        if compile_pattern(pattern) is None:
            raise CorpusError(
                f"{place}: found answer pattern {pattern!r}, expected a regex that Python compiles"
            )
    given, passage_id = line.get("id"), line.get("passage_id")
    return Question(
        id=default_id if given is None else whole(str(given), place),
        question=whole(question.strip(), place),
        answers=answers,
        answer_patterns=patterns,
        passage_id=None if passage_id is None else whole(str(passage_id), place),
    )


def _texts(line: Mapping[str, Any], key: str, place: str) -> tuple[str, ...]:
    """Return the strings under `key`, each once, in order; none where there is no such key."""
    value: object = line.get(key)
    entries = cast("list[object]", value) if isinstance(value, list) else [value]
    if value is None:
        return ()
    kept: dict[str, None] = {}
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip():
            raise CorpusError(
                f"{place}: found {entry!r} in {key}, expected strings that are not empty"
            )
        kept[whole(entry, place)] = None
    return tuple(kept)
