"""docs/ten-minutes.md runs as it stands, and prints what it says."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "ten-minutes.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\b\d+\.\d+\b|\b\d+(?=%)")
TOLERANCE = 0.15
"""Of figures with a decimal point: other processors round otherwise."""
MAX_PERCENT_APART = 25


def blocks() -> Iterator[tuple[str, str | None]]:
    """Yield (code, what it prints); None where the page does not say."""
    found = BLOCK.findall(PAGE.read_text("utf-8"))
    for (kind, text), (next_kind, following) in zip(found, [*found[1:], ("", "")], strict=True):
        if kind == "python":
            yield text, following if next_kind == "text" else None


def agree(printed: str, told: str) -> bool:
    """Return whether two texts are equal, figures aside, and their figures are near each other."""
    if NUMBER.sub("#", printed) != NUMBER.sub("#", told):
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(told), strict=True)
    return all(
        abs(float(one) - float(other)) <= (TOLERANCE if "." in other else MAX_PERCENT_APART)
        for one, other in pairs
    )


def test_every_block_runs_in_order_and_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {"__name__": "ten_minutes"}
    for code, told in blocks():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - our own page
        assert (told or "") == "" or agree(printed.getvalue(), told or ""), printed.getvalue()


def test_the_page_says_what_most_blocks_print() -> None:
    told = [text for _, text in blocks() if text]
    assert len(told) >= 10


@pytest.mark.parametrize(
    ("printed", "told", "expected"),
    [
        ("noon\n", "noon\n", True),
        ("noon\n", "seven\n", False),
        ("p 0.81\n", "p 0.80\n", True),
        ("p 0.31\n", "p 0.80\n", False),
        ("3 steps\n", "4 steps\n", False),
        ("13%\n", "14%\n", True),
        ("13%\n", "80%\n", False),
    ],
)
def test_figures_may_differ_a_little_and_words_not(
    printed: str, told: str, *, expected: bool
) -> None:
    assert agree(printed, told) is expected
