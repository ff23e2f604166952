"""A claim in the documents that names a test names one that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("SECURITY.md", "docs/reliability.md")
NAMED = re.compile(r"`(tests/[\w/.]+?)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_are_there(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text("utf-8"))
    assert len(named) >= 4
    missing = [f"{place}::{name}" for place, name in named if not is_there(ROOT / place, name)]
    assert missing == []


def is_there(place: Path, name: str) -> bool:
    if not name:
        return place.exists()
    if not place.is_file():
        return False
    tree = ast.parse(place.read_text("utf-8"))
    return any(isinstance(one, ast.FunctionDef) and one.name == name for one in tree.body)


def test_a_test_that_is_not_there_is_missed() -> None:
    assert is_there(Path(__file__), "test_named_tests_are_there")
    assert not is_there(Path(__file__), "test_that_nobody_wrote")
    assert not is_there(ROOT / "tests/nowhere.py", "")
