"""Exponents are those of the curve; what is measured is not measured again."""

from pathlib import Path

import growth
import pytest


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    amounts = [10.0, 100.0, 5_000.0]
    costs = [3.0 * amount**power for amount in amounts]
    assert growth.exponent(amounts, costs) == pytest.approx(power)


def test_a_cost_that_grows_faster_than_its_input_misses_the_target() -> None:
    def curve(power: float) -> growth.Points:
        sizes = (10.0, 100.0, 1_000.0)
        return {"split": [{"amount": n, "cpu": n**power, "wall": 1.0} for n in sizes]}

    (linear,), (quadratic,) = growth.exponents(curve(1.0)), growth.exponents(curve(2.0))
    assert linear.is_met
    assert quadratic.is_met is False


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def measured_point(curve: str, size: int, _work: Path, _data: Path) -> dict[str, float]:
        if (curve, size) == ("mask", 2):
            raise KeyboardInterrupt
        asked.append((curve, size))
        return {"amount": float(size), "cpu": 1.0, "wall": 1.0}

    sizes = {"split": (1, 2, 3), "mask": (1, 2)}
    monkeypatch.setattr(growth, "measured_point", measured_point)
    with pytest.raises(KeyboardInterrupt):
        growth.measured_points(sizes, tmp_path, tmp_path)
    assert asked == [("split", 1), ("mask", 1), ("split", 2)]
    points = growth.measured_points({"split": (1, 2, 3)}, tmp_path, tmp_path)
    assert asked[3:] == [("split", 3)]
    assert [point["amount"] for point in points["split"]] == [1.0, 2.0, 3.0]
    monkeypatch.setattr(growth, "sources", lambda: "others")
    growth.measured_points({"split": (1,)}, tmp_path, tmp_path)
    assert asked[4:] == [("split", 1)]


def test_every_curve_of_every_mode_can_be_measured() -> None:
    points = pytest.importorskip("growth_points")
    assert {curve for sizes in growth.SIZES.values() for curve in sizes} <= points.CURVES.keys()
