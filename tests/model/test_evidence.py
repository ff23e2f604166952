"""Evidence, counted by hand; the null logit of a reader that has one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from realm.model.evidence import measure_evidence, null_logits
from realm.model.inputs import Inputs
from realm.model.realm import Budget

Make = Callable[..., Any]
BUDGET = Budget(pad_id=0, batch_tokens=64)


def test_evidence_is_what_can_be_counted_by_hand() -> None:
    found = measure_evidence(
        {"oslo": 0.2, "paris": 0.5, "basel": 0.1},
        {0: "paris", 1: "oslo", 3: "paris"},
        num_read=4,
        best_logit=7.0,
        scores=[10.0, 8.0, 6.0, 4.0, 2.0, 0.0],
        overlap=0.75,
    )
    assert found.probability == pytest.approx(0.5)
    assert found.margin == pytest.approx(0.3)
    assert found.best_logit == 7
    assert found.score == 10
    assert found.score_gap == pytest.approx(5)  # the mean of passages 2 to 5 is 5
    assert found.agreement == pytest.approx(0.5)
    assert found.overlap == pytest.approx(0.75)
    assert found.p_null is None


def test_one_string_of_one_passage_has_no_second() -> None:
    found = measure_evidence(
        {"oslo": 1.0 + 1e-7}, {0: "oslo"}, num_read=1, best_logit=1.0, scores=[3.0], overlap=0.0
    )
    assert found.probability == 1
    assert found.margin == pytest.approx(1)
    assert found.score_gap == 0


def test_a_reader_without_a_null_logit_tells_none(make_reader: Make) -> None:
    assert null_logits(make_reader(), ([2, 9, 3, 3], [0, 0, 0, 1]), BUDGET).shape == (0,)


def test_a_reader_with_one_reads_the_question_alone(make_reader: Make) -> None:
    reader = make_reader()
    seen: list[Inputs] = []

    def read_null(inputs: Inputs) -> torch.Tensor:
        seen.append(inputs)
        return torch.tensor([1.5], dtype=torch.bfloat16)

    reader.reads_null = True
    reader.null_logits = read_null
    found = null_logits(reader, ([2, 9, 3, 3], [0, 0, 0, 1]), BUDGET)
    assert (found.tolist(), found.dtype) == ([1.5], torch.float32)
    assert seen[0].ids.tolist() == [[2, 9, 3, 3]]
    assert seen[0].segments.tolist() == [[0, 0, 0, 1]]
