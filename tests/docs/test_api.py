"""The Python reference: complete docstrings, and what becomes of them."""

import ast
import importlib

import api_reference
import docstrings
import pytest

COMPLETE = '''
def measure(passages: list[str], *, at: int, seed: int = 0) -> float:
    """Return how many there are.

    Second paragraph, with p(z|x) and a <tag>.

    Args:
        passages: the texts,
            in any order.
        at: depth.
        seed: of the draw.

    Returns:
        A share, 0 to 1.

    Raises:
        CorpusError: there are none.
    """
    if not passages:
        raise CorpusError("none")
    return 0.0
'''


def complaints(source: str) -> list[str]:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return docstrings.complaints_of(node)


def test_every_public_name_says_what_it_takes_returns_and_raises() -> None:
    assert api_reference.complaints() == []


def test_every_public_name_can_be_imported() -> None:
    lines = [
        line.removeprefix("from ").split(" import ")
        for line in api_reference.api_page().splitlines()
        if line.startswith("from realm")
    ]
    assert len(lines) > 60
    assert [
        (module, name)
        for module, name in lines
        if not hasattr(importlib.import_module(module), name)
    ] == []


def test_a_complete_docstring_is_taken_apart() -> None:
    assert complaints(COMPLETE) == []
    (node,) = ast.parse(COMPLETE).body
    assert isinstance(node, ast.FunctionDef)
    told = docstrings.parse(ast.get_docstring(node) or "")
    assert told.text.endswith("with p(z|x) and a <tag>.")
    assert told.arguments == {
        "passages": "the texts, in any order.",
        "at": "depth.",
        "seed": "of the draw.",
    }
    assert told.returns == "A share, 0 to 1."
    assert told.raises == {"CorpusError": "there are none."}


@pytest.mark.parametrize(
    ("gone", "complaint"),
    [
        ("        seed: of the draw.\n", "measure: Args and signature differ in seed"),
        ("        CorpusError: there are none.\n", "measure raises CorpusError"),
        (COMPLETE[COMPLETE.index("    Args:") : COMPLETE.index("    Returns:")], "and no Args"),
        (COMPLETE[COMPLETE.index('    """') : COMPLETE.index("    if")], "has no docstring"),
    ],
)
def test_what_is_missing_in_a_docstring_is_noticed(gone: str, complaint: str) -> None:
    (found,) = complaints(COMPLETE.replace(gone, ""))
    assert complaint in found


def test_what_is_returned_has_to_be_said() -> None:
    assert complaints('def size() -> int:\n    """The size."""') == [
        "size does not say what it returns"
    ]
    assert complaints('def size() -> int:\n    """Return the size."""') == []
    assert complaints('def close() -> None:\n    """Close it."""') == []


def test_methods_are_looked_at_too() -> None:
    source = (
        'class Lamp:\n    """A lamp."""\n    def light(self) -> None: ...\n    def _dim(self): ...'
    )
    assert complaints(source) == ["Lamp.light has no docstring"]


def test_incomplete_docstrings_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    chapter = api_reference.Chapter("Lost", "", ("cli/main:run", "cli/main:no_such_name"))
    monkeypatch.setattr(api_reference, "CHAPTERS", (chapter,))
    with pytest.raises(SystemExit, match="defines no no_such_name"):
        api_reference.api_page()


def test_a_signature_shows_values_and_a_line_for_each_of_many_arguments() -> None:
    page = api_reference.api_page()
    assert '    model: str | Path = "realm-mini",\n    *,\n    docs: ' in page
    assert "def read_questions(path: Path) -> list[Question]: ..." in page
    assert page.count("#### Realm.answer\n") == 1  # not once for each overload
