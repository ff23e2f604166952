"""Groups of questions, by hand."""

import pytest

from realm.evaluation.breakdown import QUESTION_WORDS, breakdowns, question_word, rank_group
from realm.evaluation.report import QuestionRecord


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Who wrote Emma?", "who"),
        ("who's the author of emma", "who"),
        ("whos the author of emma", "who"),
        ("To whom was it given?", "who"),
        ("Whose idea was it?", "who"),
        ("WHAT is it?", "what"),
        ("whats it", "what"),
        ("When was it?", "when"),
        ("Where's it?", "where"),
        ("In which year did it end?", "which"),
        ("Why not?", "why"),
        ("How did it end?", "how"),
        ("The sun is how far away?", "how"),
        ("How many died?", "how many/much"),
        ("For how  much was it sold?", "how many/much"),
        ("How, many ask, did it end?", "how"),
        ("How long, and how many times?", "how"),  # the first one counts
        ("How many people know who did it?", "how many/much"),
        ("Name the town whose mayor wrote it", "who"),
        ("The whole show and somewhat of a whatnot", "other"),  # whole words only
        ("Name the capital of Peru", "other"),
        ("Is it?", "other"),
        ("", "other"),
    ],
)
def test_the_first_question_word_decides(question: str, word: str) -> None:
    assert question_word(question) == word
    assert word in QUESTION_WORDS


@pytest.mark.parametrize(
    ("rank", "group"),
    [
        (1, "1"),
        (2, "2-5"),
        (5, "2-5"),
        (6, "6-20"),
        (20, "6-20"),
        (21, "21-100"),
        (100, "21-100"),
        (101, "over 100"),
        (None, "not found"),
    ],
)
def test_ranks_fall_into_groups(rank: int | None, group: str) -> None:
    assert rank_group(rank) == group


def record(
    question: str,
    *,
    right: bool = True,
    rank: int | None = None,
    seen: str | None = None,
    regex: bool = False,
) -> QuestionRecord:
    return QuestionRecord(
        id=question,
        question=question,
        answers=() if regex else ("a",),
        answer_patterns=("a",) if regex else (),
        prediction="a",
        probability=1.0,
        right=right,
        exact_match=None if regex else right,
        f1=None if regex else float(right),
        regex_match=right if regex else None,
        rank=rank,
        answer_was_read=False,
        error=None,
        train_overlap=seen,
    )


RECORDS = [
    record("Who a?", rank=1, seen="question"),
    record("Who b?", right=False, rank=3, seen="none"),
    record("Who c?", right=False, seen="none"),
    record("Where d?", rank=1, seen="answer only"),
    record("Name e", right=False, rank=30, seen="none"),
]


def test_every_group_has_its_share_right_and_an_interval() -> None:
    found = breakdowns(RECORDS, retrieves=True)
    shares = {
        name: {group: (m.mean, m.num_questions) for group, m in one.groups.items()}
        for name, one in found.items()
    }
    assert shares == {
        "question_word": {
            "who": (pytest.approx(1 / 3), 3),
            "where": (1.0, 1),
            "other": (0.0, 1),
        },
        "train_overlap": {"question": (1.0, 1), "answer only": (1.0, 1), "none": (0.0, 3)},
        "gold_rank": {"1": (1.0, 2), "2-5": (0.0, 1), "21-100": (0.0, 1), "not found": (0.0, 1)},
    }
    who = found["question_word"].groups["who"]
    assert 0.0 < who.low < who.mean < who.high < 1.0
    one = found["question_word"].groups["other"]
    assert (one.low, one.high) == (0.0, pytest.approx(0.793, abs=0.001))  # one tells little
    assert list(found["gold_rank"].groups) == ["1", "2-5", "21-100", "not found"]  # in order
    assert {one.metric for one in found.values()} == {"exact_match"}


def test_what_is_not_known_is_not_broken_down() -> None:
    found = breakdowns([record("Who?")], retrieves=False)
    assert set(found) == {"question_word"}


@pytest.mark.parametrize(
    ("records", "metric"),
    [
        ([record("Who?")], "exact_match"),
        ([record("Who?", regex=True)], "regex_match"),
        ([record("Who?"), record("Who?", regex=True)], "right"),
    ],
)
def test_right_is_named_after_what_questions_have(
    records: list[QuestionRecord], metric: str
) -> None:
    assert breakdowns(records, retrieves=True)["question_word"].metric == metric
