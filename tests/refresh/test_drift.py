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
