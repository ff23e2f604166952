"""docs/api.md from the docstrings of the public names, which it demands to be complete.

The sources are read, not imported: what stands in the page is what stands in the file.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from docstrings import complaints_of, fields_of, parse
from signatures import Function, dotted, is_property, is_public, signature, tree_of


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading of the page, and the names below it."""

    title: str
    told: str
    names: tuple[str, ...]
    """`module:name`, or `module:*` for all public classes and functions of a module."""
    with_constructors: bool = False
    """Whether the classes are made by calling them."""


SHORT = {"library/loading:load": "realm", "records:Document": "realm"}
"""Names that a package above their module hands on; realm.config hands on all of its rooms'."""
ROOMS_OF_SETTINGS = ("data", "training", "index", "joint", "questions")
"""Of the package realm.config, which hands on all of its classes."""
CHAPTERS = (
    Chapter(
        "Ask",
        "A model and documents in one object.",
        (
            "library/loading:load",
            "library/face:Realm",
            "library/results:Answered",
            "library/results:PlacedAnswer",
            "library/results:PlacedMention",
            "library/results:ReadPassage",
            "library/results:PlaceInDocument",
            "library/results:SearchResult",
            "explaining:Explanation",
            "explaining:CandidateExplanation",
        ),
    ),
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
            "checkpoint/run_records:read_metrics",
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
            "config/files:load_config",
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
            "classifying:ClaimClassifier",
        ),
    ),
    Chapter(
        "Look at runs",
        "Curves as data, and as a page ([reports](reports.md)).",
        (
            "reporting/curves:find_runs",
            "reporting/curves:read_curves",
            "reporting/curves:Curves",
            "reporting/report:write_run_report",
        ),
    ),
    Chapter(
        "In other systems",
        "See [adapters](adapters.md).",
        (
            "adapters/haystack:RealmRetriever",
            "adapters/haystack:RealmReader",
            "adapters/mcp:build_server",
            "adapters/mcp:serve",
            "adapters/mcp:Opening",
        ),
        with_constructors=True,
    ),
    Chapter(
        "Settings",
        "Frozen, checked when they are made. What each setting means stands in "
        "[configuration](configuration.md), by stage.",
        tuple(f"config/{room}:*Config" for room in ROOMS_OF_SETTINGS),
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
            parts += [f"### {node.name}", *_described(module, node, chapter)]
    return "\n\n".join(parts)


def complaints() -> list[str]:
    """Return what is missing in the docstrings of the public names."""
    found: list[str] = []
    for chapter in CHAPTERS:
        for module, node in _nodes(chapter):
            found += [f"{dotted(module)}.{line}" for line in complaints_of(node)]
    return found


def _nodes(chapter: Chapter) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield each name's module (a path below src/realm without suffix) and definition."""
    for entry in chapter.names:
        module, _, wanted = entry.partition(":")
        known = {
            node.name: node
            for node in tree_of(module).body
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")
        }
        names = [name for name in known if name.endswith(wanted.removeprefix("*"))]
        for name in names if wanted.startswith("*") else [wanted]:
            if name not in known:
                raise SystemExit(f"src/realm/{module}.py defines no {name}")
            yield module, known[name]


def _described(module: str, node: ast.ClassDef | Function, chapter: Chapter) -> list[str]:
    """Return the paragraphs below a name's heading."""
    shown = SHORT.get(f"{module}:{node.name}", dotted(re.sub("^config/.*", "config", module)))
    come = f"from {shown} import {node.name}"
    if not isinstance(node, ast.ClassDef):
        return [_code(come, "", "", signature(module, node)), *_paragraphs(node)]
    bases = ", ".join(ast.unparse(one) for one in node.bases)
    head = ["", "", f"class {node.name}({bases}): ..."] if bases else []
    parts = [_code(come, *head), *_paragraphs(node), *_table_of_fields(node)]
    for one in node.body:
        if not isinstance(one, Function) or is_property(one):
            continue
        if one.name == "__init__" and chapter.with_constructors:
            parts += [_code(signature(module, one)), *_paragraphs(one)]
        if is_public(one):
            parts += [
                f"#### {node.name}.{one.name}",
                _code(signature(module, one)),
                *_paragraphs(one),
            ]
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
        for name, kind, told in fields_of(node)
    ]
    return ["\n".join(["| attribute | type | meaning |", "|---|---|---|", *rows])] if rows else []


def _settings(chapter: Chapter) -> str:
    """Return the classes of settings as a table; their fields stand in another page."""
    rows = []
    for _, node in _nodes(chapter):
        first = (ast.get_docstring(node) or "").split("\n\n")[0]
        rows.append(f"| `realm.config.{node.name}` | {_cell(first)} |")
    return "\n".join(["| class | what it sets |", "|---|---|", *rows])


def _contents(chapter: Chapter) -> str:
    head = f"- [{chapter.title}](#{_anchor(chapter.title)})"
    if chapter.title == "Settings":
        return head
    names = [node.name for _, node in _nodes(chapter)]
    return f"{head}: {', '.join(f'[{name}](#{_anchor(name)})' for name in names)}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _code(*lines: str) -> str:
    """Return lines as a block of code, with the quotes that `ruff format` wants."""
    text = "\n".join(lines)
    if '"' not in text:
        text = text.replace("'", '"')
    return f"```python\n{text}\n```"


def _plain(text: str) -> str:
    """Return text as Markdown that shows it as it is."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")
