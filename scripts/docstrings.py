"""Docstrings in Google style: taken apart, and what is missing in them."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from signatures import Function, is_constructor, is_property, is_public, tree_of, type_text

SECTION = re.compile(r"^(Args|Returns|Yields|Raises):$")
ENTRY = re.compile(r"^    (\S[^:]*):\s*(.*)$")
MANY_ARGUMENTS = 3
"""From here on each argument is described."""


@dataclass(slots=True)
class Docstring:
    """A docstring in Google style, taken apart."""

    text: str = ""
    arguments: dict[str, str] = field(default_factory=dict[str, str])
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict[str, str])


def complaints_of(node: ast.ClassDef | Function, name: str = "") -> list[str]:
    """Return what is missing in a docstring, and in those of a class's public methods."""
    name = name or node.name
    told = parse(ast.get_docstring(node) or "")
    if not told.text:
        return [f"{name} has no docstring"]
    if isinstance(node, ast.ClassDef):
        own = (one for one in node.body if isinstance(one, Function) and _is_looked_at(one))
        return [line for one in own for line in complaints_of(one, f"{name}.{one.name}")]
    found: list[str] = []
    arguments = _arguments(node)
    if told.arguments and set(told.arguments) != set(arguments):
        wrong = sorted(set(told.arguments) ^ set(arguments))
        found.append(f"{name}: Args and signature differ in {', '.join(wrong)}")
    if not told.arguments and len(arguments) >= MANY_ARGUMENTS:
        found.append(f"{name} has {len(arguments)} arguments and no Args")
    if not _says_what_it_returns(node, told):
        found.append(f"{name} does not say what it returns")
    if missing := sorted(_raised(node) - set(told.raises)):
        found.append(f"{name} raises {', '.join(missing)} and has no such line in Raises")
    return found


def parse(docstring: str) -> Docstring:
    """Return a Google-style docstring's parts."""
    told = Docstring()
    text: list[str] = []
    section, entry = "", ""
    entries: dict[str, dict[str, str]] = {"Args": told.arguments, "Raises": told.raises}
    for line in docstring.splitlines():
        if match := SECTION.match(line):
            section, entry = match[1], ""
        elif section and line and not line.startswith(" "):
            section = ""
            text.append(line)
        elif not section:
            text.append(line)
        elif section in entries and (match := ENTRY.match(line)):
            entry = match[1]
            entries[section][entry] = match[2]
        elif section in entries and line.strip():
            entries[section][entry] = f"{entries[section][entry]} {line.strip()}".strip()
        else:
            told.returns = f"{told.returns} {line.strip()}".strip()
    told.text = "\n".join(text).strip()
    return told


def fields_of(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Yield (name, type, meaning) of a class's fields, described attributes and properties."""
    for line, text in _with_following(node.body):
        match line:
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                yield name, type_text(line.annotation), text
            case ast.FunctionDef(name="__init__"):
                for inner, told in _with_following(line.body):
                    match inner:
                        case (
                            ast.Assign(targets=[ast.Attribute(attr=name)])
                            | ast.AnnAssign(target=ast.Attribute(attr=name))
                        ) if told and not name.startswith("_"):
                            kind = getattr(inner, "annotation", None)
                            yield name, type_text(kind) if kind else "", told
                        case _:
                            pass
            case ast.FunctionDef() if is_public(line) and is_property(line):
                told = parse(ast.get_docstring(line) or "")
                yield line.name, type_text(line.returns), " ".join(told.text.split())
            case _:
                pass


def _with_following(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each statement with the string that stands below it."""
    for line, following in zip(body, [*body[1:], None], strict=True):
        match following:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield line, " ".join(text.split())
            case _:
                yield line, ""


def _arguments(node: Function) -> list[str]:
    """Return the names of what a caller passes."""
    told = node.args
    named = [one.arg for one in (*told.posonlyargs, *told.args, *told.kwonlyargs)]
    named += [f"*{told.vararg.arg}"] if told.vararg else []
    named += [f"**{told.kwarg.arg}"] if told.kwarg else []
    is_bound = named[:1] == ["self"] or is_constructor(node)
    return named[1:] if is_bound else named


def _raised(node: Function) -> set[str]:
    """Return the errors of realm that a function's own lines raise."""
    known = {one.name for one in tree_of("errors").body if isinstance(one, ast.ClassDef)}
    named = {
        one.exc.func.id
        for one in ast.walk(node)
        if isinstance(one, ast.Raise)
        and isinstance(one.exc, ast.Call)
        and isinstance(one.exc.func, ast.Name)
    }
    return named & known


def _is_looked_at(node: Function) -> bool:
    return is_public(node) or (node.name == "__init__" and ast.get_docstring(node) is not None)


def _says_what_it_returns(node: Function, told: Docstring) -> bool:
    is_plain = node.returns is None or ast.unparse(node.returns) in {"None", "Self"}
    if is_plain or is_constructor(node) or is_property(node) or told.returns:
        return True
    return any(word in told.text.lower() for word in ("return", "yield"))
