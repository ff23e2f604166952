"""docs/api.md from the docstrings of the public names, which it demands to be complete.

The sources are read, not imported: what stands in the page is what stands in the file.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "realm"
SECTION = re.compile(r"^(Args|Returns|Yields|Raises):$")
ENTRY = re.compile(r"^    (\S[^:]*):\s*(.*)$")
MANY_ARGUMENTS = 3
"""From here on each argument is described."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading of the page, and the names below it."""

    title: str
    told: str
    names: tuple[str, ...]
    """`module:name`, or `module:*` for all public classes and functions of a module."""


@dataclass(slots=True)
class Docstring:
    """A docstring in Google style, taken apart."""

    text: str = ""
    arguments: dict[str, str] = field(default_factory=dict[str, str])
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict[str, str])


CHAPTERS = (
    Chapter(
        "Articles, passages, answers",
        "The nouns: plain frozen records.",
        ("records:*",),
    ),
    Chapter(
        "Stages",
        "One function for each verb that writes a folder or a report. Every folder is whole or "
        'absent; called again with the same inputs, a stage says that it is done ("already done") '
        "or goes on where it was stopped.",
        (
            "corpus/split:split",
            "masking/examples:mask",
            "training/ict:ict",
            "training/mlm:mlm",
            "training/pretrain:pretrain",
            "training/finetune:finetune",
            "training/classify:classify",
            "index/builder:build_index",
            "evaluation/evaluate:evaluate",
            "evaluation/calibrating:calibrate",
            "evaluation/comparing:compare",
            "aligning:align",
            "exchange/importing:import_weights",
            "exchange/exporting:export_run",
            "exchange/packing:pack_run",
        ),
    ),
    Chapter(
        "What stages return",
        "",
        (
            "corpus/split:SplitReport",
            "masking/examples:MaskReport",
            "checkpoint/run_folder:TrainReport",
            "evaluation/report:Report",
            "evaluation/report:Metric",
            "evaluation/report:QuestionRecord",
            "evaluation/report:write_report",
            "evaluation/comparing:Comparison",
            "aligning:AlignReport",
            "exchange/importing:ImportReport",
            "exchange/exporting:ExportReport",
            "exchange/packing:PackReport",
            "training/runlog:read_metrics",
        ),
    ),
    Chapter(
        "What stages read",
        "Folders that a stage wrote, opened; files of questions; settings.",
        (
            "corpus/store:PassageStore",
            "masking/store:ExampleStore",
            "index/snapshot:Snapshot",
            "evaluation/questions:read_questions",
            "checkpoint/folders:load_tokenizer",
            "encyclopedia/__init__:*",
            "config:load_config",
        ),
    ),
    Chapter(
        "A run at work",
        "One model over one folder of passages, without a library.",
        (
            "answering:Answerer",
            "asking:FolderAnswerer",
            "asking:ask_folder",
            "explaining:Explainer",
            "explaining:Explanation",
            "explaining:CandidateExplanation",
            "classifying:ClaimClassifier",
        ),
    ),
    Chapter(
        "Settings",
        "Frozen, checked when they are made. What each setting means stands in "
        "[configuration](configuration.md), by stage.",
        ("config:*Config",),
    ),
    Chapter(
        "Errors",
        "Everything that realm raises on purpose. A message says what was found, what was "
        "expected, what to do.",
        ("errors:*",),
    ),
)

INTRODUCTION = """
# Python reference

The public names, from their docstrings. Names that are not here may change without notice. Shapes
in signatures are [jaxtyping](https://docs.kidger.site/jaxtyping/)'s. To see the names at work, read
the [tutorial](ten-minutes.md).
"""


def api_page() -> str:
    """Return docs/api.md without its first line.

    Raises:
        SystemExit: a public name has no docstring, or one that leaves something out.
    """
    if found := complaints():
        raise SystemExit("\n".join(found))
    parts = [INTRODUCTION.strip()]
    parts.append("\n".join(_contents(chapter) for chapter in CHAPTERS))
    for chapter in CHAPTERS:
        parts += [f"## {chapter.title}", *([chapter.told] if chapter.told else [])]
        if chapter.title == "Settings":
            parts.append(_settings(chapter))
            continue
        for module, node in _nodes(chapter):
            parts += [f"### {node.name}", *_described(module, node)]
    return "\n\n".join(parts)


def complaints() -> list[str]:
    """Return what is missing in the docstrings of the public names."""
    found: list[str] = []
    for chapter in CHAPTERS:
        for module, node in _nodes(chapter):
            found += [f"{_dotted(module)}.{line}" for line in complaints_of(node)]
    return found


def complaints_of(node: ast.ClassDef | Function, name: str = "") -> list[str]:
    """Return what is missing in a docstring, and in those of a class's public methods."""
    name = name or node.name
    told = parse(ast.get_docstring(node) or "")
    if not told.text:
        return [f"{name} has no docstring"]
    if isinstance(node, ast.ClassDef):
        own = (one for one in node.body if isinstance(one, Function) and _is_public(one))
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


def _nodes(chapter: Chapter) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield each name's module (a path below src/realm without suffix) and definition."""
    for entry in chapter.names:
        module, _, wanted = entry.partition(":")
        known = {
            node.name: node
            for node in _tree(module).body
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")
        }
        names = [name for name in known if name.endswith(wanted.removeprefix("*"))]
        for name in names if wanted.startswith("*") else [wanted]:
            if name not in known:
                raise SystemExit(f"src/realm/{module}.py defines no {name}")
            yield module, known[name]


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))


def _described(module: str, node: ast.ClassDef | Function) -> list[str]:
    """Return the paragraphs below a name's heading."""
    come = f"from {_dotted(module)} import {node.name}"
    if not isinstance(node, ast.ClassDef):
        return [_code(come, "", _signature(node)), *_paragraphs(node)]
    bases = ", ".join(ast.unparse(one) for one in node.bases)
    head = ["", f"class {node.name}({bases}): ..."] if bases else []
    parts = [_code(come, *head), *_paragraphs(node), *_table_of_fields(node)]
    for one in node.body:
        if isinstance(one, Function) and _is_public(one) and not _is_property(one):
            parts += [f"#### {node.name}.{one.name}", _code(_signature(one)), *_paragraphs(one)]
    return parts


def _paragraphs(node: ast.ClassDef | Function) -> list[str]:
    """Return a docstring as Markdown: text, arguments, what is returned, what is raised."""
    told = parse(ast.get_docstring(node) or "")
    parts = [_plain(told.text)]
    if told.arguments:
        rows = [f"| `{name}` | {_cell(text)} |" for name, text in told.arguments.items()]
        parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]))
    if told.returns:
        parts.append(f"**Returns** {_plain(told.returns)}")
    if told.raises:
        lines = [f"- `{name}`: {_plain(text)}" for name, text in told.raises.items()]
        parts.append("\n".join(["**Raises**", "", *lines]))
    return parts


def _table_of_fields(node: ast.ClassDef) -> list[str]:
    rows = [
        f"| `{name}` | {_cell(f'`{kind}`') if kind else ''} | {_cell(told)} |"
        for name, kind, told in _fields(node)
    ]
    return ["\n".join(["| attribute | type | meaning |", "|---|---|---|", *rows])] if rows else []


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Yield (name, type, meaning) of a class's fields, described attributes and properties."""
    for line, text in _with_following(node.body):
        match line:
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                yield name, _type(line.annotation), text
            case ast.FunctionDef(name="__init__"):
                for inner, told in _with_following(line.body):
                    match inner:
                        case (
                            ast.Assign(targets=[ast.Attribute(attr=name)])
                            | ast.AnnAssign(target=ast.Attribute(attr=name))
                        ) if told and not name.startswith("_"):
                            kind = getattr(inner, "annotation", None)
                            yield name, _type(kind) if kind else "", told
                        case _:
                            pass
            case ast.FunctionDef() if _is_public(line) and _is_property(line):
                told = parse(ast.get_docstring(line) or "")
                yield line.name, _type(line.returns), " ".join(told.text.split())
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


def _settings(chapter: Chapter) -> str:
    """Return the classes of settings as a table; their fields stand in another page."""
    rows = []
    for module, node in _nodes(chapter):
        first = (ast.get_docstring(node) or "").split("\n\n")[0]
        rows.append(f"| `{_dotted(module)}.{node.name}` | {_cell(first)} |")
    return "\n".join(["| class | what it sets |", "|---|---|", *rows])


def _contents(chapter: Chapter) -> str:
    head = f"- [{chapter.title}](#{_anchor(chapter.title)})"
    if chapter.title == "Settings":
        return head
    names = [node.name for _, node in _nodes(chapter)]
    return f"{head}: {', '.join(f'[{name}](#{_anchor(name)})' for name in names)}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _signature(node: Function) -> str:
    """Return a function's first lines, an argument a line where they are many."""
    head = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    decorators = [ast.unparse(one) for one in node.decorator_list if _is_told(one)]
    arguments = ast.unparse(node.args)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{head} {node.name}({arguments}){returns}: ..."
    if len(line) > 100:
        parts = _split_arguments(arguments)
        line = "\n".join(
            [f"{head} {node.name}(", *(f"    {part}," for part in parts), f"){returns}: ..."]
        )
    return "\n".join([*(f"@{one}" for one in decorators), line])


def _split_arguments(arguments: str) -> list[str]:
    """Return the arguments of a signature, taken apart at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _arguments(node: Function) -> list[str]:
    """Return the names of what a caller passes."""
    told = node.args
    named = [one.arg for one in (*told.posonlyargs, *told.args, *told.kwonlyargs)]
    named += [f"*{told.vararg.arg}"] if told.vararg else []
    named += [f"**{told.kwarg.arg}"] if told.kwarg else []
    is_bound = named[:1] == ["self"] or _is_constructor(node)
    return named[1:] if is_bound else named


def _raised(node: Function) -> set[str]:
    """Return the errors of realm that a function's own lines raise."""
    known = {one.name for one in _tree("errors").body if isinstance(one, ast.ClassDef)}
    named = {
        one.exc.func.id
        for one in ast.walk(node)
        if isinstance(one, ast.Raise)
        and isinstance(one.exc, ast.Call)
        and isinstance(one.exc.func, ast.Name)
    }
    return named & known


def _is_public(node: Function) -> bool:
    is_setter = any(ast.unparse(one).endswith(".setter") for one in node.decorator_list)
    return not node.name.startswith("_") and not is_setter


def _is_property(node: Function) -> bool:
    return any("property" in ast.unparse(one) for one in node.decorator_list)


def _is_constructor(node: Function) -> bool:
    return any(ast.unparse(one) == "classmethod" for one in node.decorator_list)


def _says_what_it_returns(node: Function, told: Docstring) -> bool:
    is_plain = node.returns is None or ast.unparse(node.returns) in {"None", "Self"}
    if is_plain or _is_constructor(node) or _is_property(node) or told.returns:
        return True
    return any(word in told.text.lower() for word in ("return", "yield"))


def _is_told(decorator: ast.expr) -> bool:
    return ast.unparse(decorator) in {"classmethod", "staticmethod"}


def _type(annotation: ast.expr | None) -> str:
    match annotation:
        case None:
            return ""
        case ast.Constant(value=str(text)):
            return text
        case _:
            return ast.unparse(annotation)


def _dotted(module: str) -> str:
    return f"realm.{module.replace('/', '.')}".removesuffix(".__init__")


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _plain(text: str) -> str:
    """Return text as Markdown that shows it as it is."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")
