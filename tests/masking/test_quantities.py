"""Quantities in English text: with their units, and numbers that say nothing."""

import pytest

from realm.masking.quantities import find_quantities

CASES = [
    # money
    ("It cost $5 million to build.", ["$5 million"]),
    ("It cost US$1,000 to build.", ["US$1,000"]),
    ("It cost £3.5bn to build.", ["£3.5bn"]),
    ("It cost €20–30 to enter.", ["€20–30"]),  # noqa: RUF001
    ("It cost 5 million dollars.", ["5 million dollars"]),
    # shares
    ("About 45 percent agree.", ["45 percent"]),
    ("About 4.5% agree.", ["4.5%"]),
    ("About 10–15 per cent agree.", ["10–15 per cent"]),  # noqa: RUF001
    ("It fell by 3 percentage points.", ["3 percentage points"]),
    ("Some two-thirds of them agree.", ["two-thirds"]),
    # measures
    ("The wall is 12 km long.", ["12 km"]),
    ("The park covers 12.5 square kilometres.", ["12.5 square kilometres"]),
    ("The farm has 200 acres.", ["200 acres"]),
    ("A 200-metre tower stands there.", ["200-metre"]),
    ("He is 5 feet 11 inches tall.", ["5 feet 11 inches"]),
    ("It weighs 5 to 10 kg when wet.", ["5 to 10 kg"]),
    ("It was −40 °C at night.", ["−40 °C"]),  # noqa: RUF001
    ("It holds 640 KB of memory.", ["640 KB"]),
    ("It runs at 1.5 GHz.", ["1.5 GHz"]),
    ("The war lasted twenty-five years.", ["twenty-five years"]),
    ("A 12-year-old boy won.", ["12-year-old"]),
    ("It lies 4.2 light-years away.", ["4.2 light-years"]),
    # large and spelled numbers
    ("It has 12,500 inhabitants.", ["12,500"]),
    ("It sold 1,234 copies.", ["1,234"]),
    ("Between 5,000–6,000 came.", ["5,000–6,000"]),  # noqa: RUF001
    ("Some three million people live there.", ["three million"]),
    ("Two hundred and six bones make it.", ["Two hundred and six"]),
    ("Half a million people came.", ["Half a million"]),
    ("A hundred years went by.", ["A hundred years"]),
    ("It sold 12 million copies.", ["12 million"]),
    ("The ratio is 3.14 or so.", ["3.14"]),
    # counts: the number alone
    ("The chain has 45 islands.", ["45"]),
    ("The band has seven members.", ["seven"]),
    ("They have 3 children.", ["3"]),
    # scores
    ("They won 3–1 at home.", ["3–1"]),  # noqa: RUF001
    # numbers that say nothing, or are labels
    ("They have two brothers and one sister.", []),
    ("See chapter 3 and section 4.5 again.", []),
    ("Version 2.0 came later.", []),
    ("Apollo 11 astronauts returned.", []),
    ("At 10:30 it began.", []),
    ("The 2nd and third rows were empty.", []),
    ("Hundreds of them ran.", []),
    ("A one-off, at once, for one.", []),
    ("He was number 7 across the board.", []),
    ("There were 5 of them.", []),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_quantities_are_found_with_their_units_and_nothing_else(
    text: str, expected: list[str]
) -> None:
    assert [text[span.start : span.end] for span in find_quantities(text)] == expected


def test_a_quantity_is_labelled_as_one() -> None:
    assert find_quantities("12 km")[0].label == "QUANTITY"
