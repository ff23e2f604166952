"""Evidence, counted by hand."""

import pytest

from realm.model.evidence import measure_evidence


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
