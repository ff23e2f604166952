"""What is told of an evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.errors import ArtifactError
from realm.reporting.evaluations import (
    Evaluation,
    examples_of,
    failures_of,
    find_evaluations,
    read_evaluation,
)

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def of(evaluation: Make) -> Callable[..., Evaluation]:
    def make(*records: dict[str, Any], **more: Any) -> Evaluation:
        return Evaluation(path=Path("e.json"), content=evaluation(questions=list(records), **more))

    return make


def test_failures_tell_retriever_and_reader_apart(
    of: Callable[..., Evaluation], question: Make
) -> None:
    found = failures_of(
        of(
            question(0, right=True),
            question(1, right=False),
            question(2, right=False, rank=9, answer_was_read=False),
            question(3, right=False, rank=None, answer_was_read=False),
            question(4, right=False, rank=None, answer_was_read=False),
        )
    )
    assert found is not None
    told = (found.right, found.misread, found.not_read, found.not_found, found.total)
    assert told == (1, 1, 1, 2, 5)


def test_who_searches_nothing_has_no_such_failures(
    of: Callable[..., Evaluation], question: Make
) -> None:
    closed = question(0, right=True, rank=None, answer_was_read=False)
    settings = {"num_passages": 5, "num_retrieved": 0}
    assert failures_of(of(closed, settings=settings)) is None


def test_who_finds_nothing_has_failures(of: Callable[..., Evaluation], question: Make) -> None:
    found = failures_of(of(question(0, right=False, rank=None, answer_was_read=False)))
    assert found is not None
    assert (found.not_found, found.total) == (1, 1)


def test_thirds_say_what_they_measure(evaluation: Make) -> None:
    """Questions with patterns alone have no exact match: their thirds are of recall."""
    share = {"mean": 0.5, "low": 0.4, "high": 0.6, "num_questions": 20}
    for metric, told in (("exact_match", "exact match"), ("recall@1", "recall@1")):
        metrics = {metric: share, "recall@5": {**share, "mean": 0.8}}
        third = {"low": 0.0, "high": 0.4, "metrics": metrics}
        content = evaluation(overlap_thirds={"least": third, "most": third})
        *_, table = Evaluation(path=Path("e.json"), content=content).breakdowns()
        assert table.title.endswith(f"its passage holds: {told}")
        assert [row.mean for row in table.rows] == [0.5, 0.5]


def test_examples_are_half_right_where_there_are_enough(
    of: Callable[..., Evaluation], question: Make
) -> None:
    records = [question(number, right=number < 12) for number in range(40)]
    shares = {
        number: sum(one.is_right for one in examples_of(of(*records), number))
        for number in (10, 30, 60)
    }
    assert shares == {10: 5, 30: 12, 60: 12}
    assert len(examples_of(of(*records), 30)) == 30
    assert examples_of(of(*records), 10) == examples_of(of(*reversed(records)), 10)


def test_an_error_is_why(of: Callable[..., Evaluation], question: Make) -> None:
    record = question(0, right=False, error="AnsweringError: too long", evidence=None)
    (one,) = examples_of(of(record), 5)
    assert one.why == "AnsweringError: too long"


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"kind": "comparison"}')
    with pytest.raises(ArtifactError, match="found kind 'comparison'"):
        read_evaluation(tmp_path / "a.json")


def test_evaluations_are_found_by_any_fingerprint_of_the_model(
    evaluation: Make, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "e.json").write_text(json.dumps(evaluation(), indent=2))
    assert len(find_evaluations(tmp_path / "run", {"ab" * 32, "cd" * 32})) == 1
    assert find_evaluations(tmp_path / "run", {"cd" * 32}) == []
