"""Risk, coverage and calibration error, counted by hand."""

import pytest

from realm.evaluation.abstention import (
    choose_threshold,
    ece_by_chance,
    expected_calibration_error,
    measure_abstention,
    risk_at,
    risk_curve,
    share_below,
)

TOLD = [0.9, 0.8, 0.6, 0.3]
RIGHT = [True, False, True, False]


def test_risk_is_the_share_of_wrong_answers_among_the_most_probable() -> None:
    assert risk_curve(TOLD, RIGHT).tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert risk_curve(TOLD[::-1], RIGHT[::-1]).tolist() == risk_curve(TOLD, RIGHT).tolist()


def test_equal_probabilities_stand_in_no_order() -> None:
    """Two of 0.5, one right: whichever comes first, half an error is expected of each."""
    for right in ([True, True, False], [True, False, True]):
        assert risk_curve([0.9, 0.5, 0.5], right).tolist() == pytest.approx([0, 1 / 4, 1 / 3])


def test_the_curve_is_read_at_the_fewest_answers_that_reach_a_coverage() -> None:
    risks = risk_curve(TOLD, RIGHT)
    assert [risk_at(risks, c) for c in (0.1, 0.25, 0.5, 0.51, 1.0)] == pytest.approx(
        [0, 0, 1 / 2, 1 / 3, 1 / 2]
    )


def test_no_question_has_no_risk() -> None:
    with pytest.raises(ValueError, match="no question"):
        risk_curve([], [])


def test_calibration_error_with_bins_of_equal_numbers() -> None:
    """Bins {0.3, 0.6} and {0.8, 0.9}: told 0.45, right 0.5; told 0.85, right 0.5."""
    found = expected_calibration_error(TOLD, RIGHT, bins=2)
    assert found == pytest.approx(0.5 * 0.05 + 0.5 * 0.35)


def test_calibration_error_with_bins_of_equal_width() -> None:
    """Bins below and from 0.5: {0.3} wrong; {0.6, 0.8, 0.9}: told 2.3, two right."""
    found = expected_calibration_error(TOLD, RIGHT, bins=2, equal_mass=False)
    assert found == pytest.approx((0.3 + 0.3) / 4)
    assert expected_calibration_error([1.0, 0.0], [True, False], equal_mass=False) == 0


def test_more_bins_than_questions_are_no_trouble() -> None:
    assert expected_calibration_error([0.75], [True]) == pytest.approx(0.25)


def test_right_probabilities_show_an_error_by_chance_alone() -> None:
    """One question of 0.5 is always 0.5 away; a thousand of them are nearly calibrated."""
    assert ece_by_chance([0.5]) == pytest.approx(0.5)
    assert 0.02 < ece_by_chance([0.5] * 1_000) < 0.08
    assert ece_by_chance([0.0, 1.0]) == 0


def test_the_threshold_is_the_least_that_refuses_enough() -> None:
    unanswerable = [0.4, 0.1, 0.2, 0.3]
    assert choose_threshold(unanswerable, 0.75) == pytest.approx(0.3001)
    assert choose_threshold(unanswerable, 0.5) == pytest.approx(0.2001)
    assert choose_threshold(unanswerable, 0.51) == pytest.approx(0.3001)
    assert choose_threshold([], 0.7) == 0
    for share in (0.1, 0.3, 0.7, 0.99):
        told = [number / 1_000 for number in range(0, 1_000, 7)]
        assert share_below(told, choose_threshold(told, share)) >= share
    for number in range(10_000):  # 0.0003 was its own threshold, and not refused
        assert choose_threshold([number / 10_000], 1.0) == pytest.approx((number + 1) / 10_000)


def test_all_numbers_of_a_set_of_questions() -> None:
    found = measure_abstention(TOLD, RIGHT, min_probability=0.7)
    assert found.num_questions == 4
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.4 + 0.3) / 4)  # four bins of one
    assert found.share_refused == pytest.approx(0.5)
    assert found.share_of_right_refused == pytest.approx(0.5)
    assert found.accuracy_of_answered == pytest.approx(0.5)
    assert dict(found.risk_at_coverage)[1.0] == pytest.approx(0.5)


def test_what_found_nothing_counts_as_refused_without_any_threshold() -> None:
    found = measure_abstention([0.0, 0.9], [False, True])
    assert found.share_refused == pytest.approx(0.5)
    assert found.share_of_right_refused == 0
    assert found.accuracy_of_answered == 1


def test_nothing_answered_and_nothing_right_are_no_trouble() -> None:
    found = measure_abstention([0.1, 0.2], [False, False], min_probability=0.5)
    assert (found.share_refused, found.accuracy_of_answered) == (1, 0)
    assert found.share_of_right_refused == 0


def test_the_lines_say_whether_the_probabilities_are_calibrated() -> None:
    raw = measure_abstention(TOLD, RIGHT).lines(10)
    assert raw[0] == "probabilities  not calibrated: the reader's own"
    assert not any("no answer" in line for line in raw)
    told = measure_abstention(TOLD, RIGHT, min_probability=0.7, is_calibrated=True).lines(17)
    assert told[0] == "probabilities      calibrated"
    assert "no answer          50.0 (below 0.7)" in told
    assert "right if answered  50.0" in told
