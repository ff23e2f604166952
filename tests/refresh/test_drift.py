"""Drift: the fall of the rank correlation since the last refresh."""

import pytest

from realm.refresh.drift import NUM_FIRST, Drift


def test_a_fall_is_told_relative_to_what_a_fresh_index_reaches() -> None:
    drift = Drift()
    for _ in range(NUM_FIRST):
        assert drift.fall == 0.0
        drift.observe(0.95)
    assert drift.fall == 0.0
    for _ in range(60):
        drift.observe(0.75)
    assert drift.fall == pytest.approx(0.2, abs=1e-3)
    drift.restart()
    assert drift.fall == 0.0


def test_one_bad_step_is_no_drift_and_a_rise_is_none() -> None:
    drift = Drift()
    for value in [0.9] * NUM_FIRST + [0.5]:
        drift.observe(value)
    assert drift.fall == pytest.approx(0.08)
    for _ in range(30):
        drift.observe(0.99)
    assert drift.fall == 0.0


def test_it_goes_on_after_a_kill() -> None:
    drift, again = Drift(), Drift()
    for value in (0.9, 0.9, 0.9, 0.9, 0.9, 0.6):
        drift.observe(value)
    again.restore(drift.state())
    assert again.fall == drift.fall > 0.0


def test_in_a_rolling_refresh_it_falls_from_the_best_that_patches_have_reached() -> None:
    """Published at 0.8, while the index is still the old one; patches lift it to 0.95."""
    drift = Drift(is_rolling=True)
    for value in [0.8] * NUM_FIRST + [0.95] * 40:
        drift.observe(value)
    assert drift.fall == 0.0
    for _ in range(40):
        drift.observe(0.85)
    again = Drift(is_rolling=True)
    again.restore(drift.state())
    assert again.fall == drift.fall == pytest.approx(0.1, abs=1e-3)
    drift.restart()
    for value in [0.8] * NUM_FIRST + [0.7] * 40:
        drift.observe(value)
    assert drift.fall == pytest.approx(0.1, abs=1e-3)


def test_the_state_of_an_older_release_is_gone_on_from() -> None:
    drift = Drift()
    drift.restore({"first": [0.9] * NUM_FIRST, "now": 0.7})
    assert drift.fall == pytest.approx(0.2)
