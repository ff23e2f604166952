"""Series as they are drawn."""

import re

import pytest

from realm.reporting.charts import Line, draw_lines, grouped, smoothed
from realm.reporting.numbers import change, number

pytest.importorskip("matplotlib", reason="the extra plot is not installed")


def test_a_long_series_becomes_means_of_neighbours() -> None:
    points = [(step, float(step)) for step in range(1_000)]
    means = grouped(points, 100)
    assert len(means) == 100
    assert means[0] == (4.5, 4.5)
    assert grouped(points[:5], 100) == points[:5]


def test_smoothing_keeps_ends_and_level() -> None:
    points = [(step, float(step % 2)) for step in range(200)]
    found = smoothed(points)
    assert len(found) == 200
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert found[100][1] == pytest.approx(0.5, abs=0.1)
    straight = [(float(step), 2.0 * step) for step in range(100)]
    assert [y for _, y in smoothed(straight)] == pytest.approx([y for _, y in straight])


def test_an_outlier_does_not_squeeze_the_rest_flat() -> None:
    points = [(step, 1.0 + (step % 5) / 10) for step in range(100)]
    usual = draw_lines("a", [Line(label="x", points=points, color=1)], described="")
    points[50] = (50, 1e6)
    spiked = draw_lines("a", [Line(label="x", points=points, color=1)], described="")
    assert "1,000,000" not in spiked.svg
    assert "1.2" in usual.svg
    assert "1.2" in spiked.svg or "1.5" in spiked.svg


@pytest.mark.filterwarnings("error")
def test_a_held_out_point_is_never_taken_for_an_outlier() -> None:
    """Drawn beyond the axes, it had the layout give up: a chart of no size."""
    noisy = [(step, 6.0 * 0.5**step + 0.5) for step in range(1, 400)]
    lines = [
        Line(label="training", points=noisy, color=1),
        Line(label="held out", points=[(0, 6.5), (400, 0.5)], color=2, is_held_out=True),
    ]
    drawing = draw_lines("a", lines, described="")
    assert re.search(r"<text[^>]*>\s*6\s*</text>", drawing.svg)


def test_drawings_of_one_page_share_no_ids() -> None:
    line = Line(label="x", points=[(0, 1.0), (1, 2.0)], color=1, is_held_out=True)
    one, two = (draw_lines(name, [line], described='a "quoted" <name>') for name in ("a", "b"))
    assert 'id="a-' in one.svg
    assert 'id="a-' not in two.svg
    assert 'aria-label="a &quot;quoted&quot; &lt;name&gt;"' in one.svg
    assert one.keys == (("x", 1, True),)


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.5478, "share", "54.8 %"),
        (0.0001, "share", "0.01 %"),
        (-1.5, "nats", "\N{MINUS SIGN}1.50"),
        (1_234.0, "steps", "1,234"),
        (90.0, "seconds", "1.5 min"),
        (12_345.6, "number", "12,346"),
        (0.012345, "number", "0.0123"),
        (-999.4, "number", "\N{MINUS SIGN}999"),
        (999.7, "number", "1,000"),
    ],
)
def test_numbers_have_their_units(value: float, unit: str, told: str) -> None:
    assert number(value, unit) == told  # type: ignore[arg-type]


def test_changes_have_their_sign() -> None:
    assert change(0.05, "share") == "+5.0"
    assert change(-0.5, "nats") == "\N{MINUS SIGN}0.50"
    assert change(-1_234.0) == "\N{MINUS SIGN}1,234"
    assert change(0.012345) == "+0.0123"
