"""Write the reference pages in docs/ from the code; --check fails where they differ."""

import argparse
import ast
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from api_reference import api_page
from performance_tables import performance_page
from pydantic.fields import FieldInfo
from reliability import reliability_page

from realm import config
from realm.cli.main import build_app
from realm.config import SECTIONS, Config

SOURCE = Path(__file__).parent.parent
ROOT = SOURCE
"""Where the pages are written."""
WIDTH = 100
"""Columns of the help texts."""
PERFORMANCE = "docs/performance.md"
"""Its tables alone are written here."""
BOUNDS = {"ge", "gt", "le", "lt"}
COMMAND = ".venv/bin/python scripts/make_docs.py"
NOTE = f"<!-- Written by scripts/make_docs.py. Do not edit: run {COMMAND} -->"
Group = Any
"""Typer's command group; typer brings its own copy of click, whose classes have no public name."""

CONFIGURATION = """
# Configuration

Every stage has a table of settings. All have a default. There are three ways to change them.
Later ones win:

1. the default, as listed here;
2. the table of the same name in a TOML file: `--config settings.toml`;
3. single settings on the command line: `--set batch_size=16`, which may be repeated.

One TOML file can serve all stages. Each verb reads its own table and leaves the others alone:

```toml
[split]
max_wordpieces = 128

[pretrain]
steps = 2000
num_candidates = 6

[pretrain.refresh]
every_steps = 100

[pretrain.optimizer]
learning_rate = 5e-5
```

- A dot reaches into a nested table: `--set refresh.every_steps=100`. What you leave out of a
  nested table keeps the stage's own default.
- Values of `--set` are written as in TOML. Quotes around strings may be left out. `none` stands
  for "not set". TOML has no such value: leave the key out.
- An unknown key, a wrong type or an impossible value is refused before anything starts. The
  message names the key and lists what exists.
- The resolved settings stand in the manifest of every folder that a stage writes. A folder that
  was made with other settings is never reused silently. See [data flow](data-flow.md).
- `ict --init X` and `mlm --init X` are short for `--set encoder.init=X`. `mask --scheme` and
  `mask --tagger` set the settings of these names. All four win over `--set`.

"Paper" in a description is Guu et al. 2020 (arXiv 2002.08909). "Released" is the code that its
authors published.
"""

CLI = """
# Command line

`realm VERB --help` prints the texts below. Exit codes: 0 is done, 2 is an error that one can act
on (one line on standard error, nothing lost), 130 is Ctrl-C (the same command resumes). `realm
doctor` ends with 1 where something that is needed is broken.

Results go to standard output. Progress, metrics and hints go to standard error. Every verb that
tells something takes `--json`: standard output is then one JSON object on one line, and nothing
else. Bars and colours are for terminals; `NO_COLOR=1` turns colours off there, too.

`realm --install-completion`, once, makes bash, zsh, fish and PowerShell complete verbs, options
and files (`--show-completion` prints the script, to put it elsewhere).

The settings of `--set` and `--config` are described in
[configuration](configuration.md).
"""


def main() -> int:
    """Write the pages, or with --check return 1 and say where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on differences")
    is_check = parser.parse_args().check
    pages = {
        "docs/configuration.md": configuration_page(),
        "docs/cli.md": cli_page(),
        "docs/api.md": f"{NOTE}\n\n{api_page()}\n",
        PERFORMANCE: performance_page(
            (SOURCE / PERFORMANCE).read_text(encoding="utf-8"), SOURCE / "benchmarks" / "results"
        ),
        "docs/reliability.md": reliability_page(),
    }
    stale = [name for name, text in pages.items() if not _agrees(name, text, is_check=is_check)]
    if stale:
        sys.stderr.write(f"{', '.join(stale)} differ from the code; run {COMMAND}\n")
    return int(bool(stale))


def configuration_page() -> str:
    """Return docs/configuration.md: one table of settings a stage."""
    docs = field_docs()
    parts = [NOTE, CONFIGURATION.strip(), _contents(SECTIONS)]
    for section in SECTIONS:
        cls = stage_config(section)
        rows = _rows(cls(), docs)
        parts += [
            f"## {section}",
            f"{_sentence(cls.__doc__)} Class `realm.config.{cls.__name__}`.",
            "\n".join(["| setting | type | default | description |", "|---|---|---|---|", *rows]),
        ]
    return "\n\n".join(parts) + "\n"


def cli_page() -> str:
    """Return docs/cli.md: the help of the command and of each verb."""
    group: Group = typer.main.get_command(build_app())
    context = group.make_context("realm", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = [NOTE, CLI.strip(), _contents(list(group.commands)), "## realm"]
    parts.append(_fenced(_help(group, context)))
    for name, verb in group.commands.items():
        told = verb.make_context(name, [], parent=context, resilient_parsing=True)
        parts += [f"## {name}", _fenced(_help(verb, told))]
        for inner, part in getattr(verb, "commands", {}).items():
            within = part.make_context(inner, [], parent=told, resilient_parsing=True)
            parts += [f"### {name} {inner}", _fenced(_help(part, within))]
    page = "\n\n".join(parts) + "\n"
    return page.replace("(they stand below)", "(see configuration.md)")


def stage_config(section: str) -> type[Config]:
    """Return the settings class of a stage: SplitConfig for split."""
    cls: type[Config] = getattr(config, f"{section.capitalize()}Config")
    return cls


def field_docs() -> dict[str, dict[str, str]]:
    """Return class -> field -> the string that stands below the field in realm/config."""
    found: dict[str, dict[str, str]] = {}
    files = sorted(Path(config.__file__).parent.glob("*.py"))
    for cls in [node for file in files for node in ast.parse(file.read_text("utf-8")).body]:
        if not isinstance(cls, ast.ClassDef):
            continue
        docs = found.setdefault(cls.name, {})
        for line, following in zip(cls.body, cls.body[1:], strict=False):
            match line, following:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    docs[name] = " ".join(text.split())
                case _:
                    pass
    return found


def _rows(settings: Config, docs: Mapping[str, Mapping[str, str]], prefix: str = "") -> list[str]:
    """Return a line of the table for each setting; nested tables with a dot.

    Raises:
        SystemExit: a setting has no description.
    """
    rows: list[str] = []
    for name, field in type(settings).model_fields.items():
        value: object = getattr(settings, name)
        told = _described(type(settings), name, docs)
        if isinstance(value, Config):
            inner = _rows(value, docs, f"{prefix}{name}.")
            note = f"A table of its own, see below. {told}".strip()
            rows += [_row(f"{prefix}{name}", "table", "", note), *inner]
            continue
        if not told:
            raise SystemExit(f"realm/config: {type(settings).__name__}.{name} has no docstring")
        rows.append(_row(f"{prefix}{name}", _type(field), f"`{_toml(value)}`", told))
    return rows


def _row(*cells: str) -> str:
    first, *rest = (cell.replace("|", "\\|") for cell in cells)
    return f"| `{first}` | {' | '.join(rest)} |"


def _described(cls: type[Config], name: str, docs: Mapping[str, Mapping[str, str]]) -> str:
    """Return a field's own description, else the one it has in a base class."""
    for base in cls.__mro__:
        if text := docs.get(base.__name__, {}).get(name):
            return text
    return ""


def _type(field: FieldInfo) -> str:
    """Return a type and its bounds in words: `integer, 8 to 512`."""
    words, bounds = _kind(field.annotation), _bounds(field)
    if " or none" in words and bounds:
        return f"{words.removesuffix(' or none')}, {bounds}, or none"
    return f"{words}, {bounds}" if bounds else words


def _kind(annotation: Any) -> str:  # noqa: ANN401 - types have no common type
    names = {int: "integer", float: "number", bool: "true or false", str: "string"}
    if annotation in names:
        return names[annotation]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if typing.get_origin(annotation) in {types.UnionType, typing.Union}:
        kinds = [_kind(part) for part in arguments if part is not types.NoneType]
        return " or ".join([*kinds, *(["none"] if types.NoneType in arguments else [])])
    return f"list of {_kind(arguments[0])}s"


def _bounds(field: FieldInfo) -> str:
    told = {key: getattr(part, key) for part in field.metadata for key in BOUNDS & {*dir(part)}}
    low, above, high, below = (told.get(key) for key in ("ge", "gt", "le", "lt"))
    lower = f"from {low}" if low is not None else f"above {above}" if above is not None else ""
    upper = f"to {high}" if high is not None else f"below {below}" if below is not None else ""
    return f"{lower} {upper}".strip()


def _toml(value: object) -> str:
    """Return a default as it is written in TOML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(part) for part in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _help(command: Group, context: Any) -> str:  # noqa: ANN401 - see Group
    """Return a help text as plain lines, the docstring's own line breaks kept."""
    for one in (command, *getattr(command, "commands", {}).values()):
        one.rich_markup_mode = None  # plain text instead of boxes
    formatter = context.make_formatter()
    command.format_usage(context, formatter)
    told = (command.help or "").strip().splitlines()
    formatter.write("\n" + "".join(f"  {line}".rstrip() + "\n" for line in told))
    command.format_options(context, formatter)
    command.format_epilog(context, formatter)
    plain = formatter.getvalue().replace("\\[", "[")  # escaped for boxes only
    lines = [line.rstrip() for line in plain.splitlines()]
    return "\n".join(_without_commands(lines)).strip("\n")


def _without_commands(lines: list[str]) -> list[str]:
    """Drop the list of verbs, which plain help cuts short; the page lists them itself."""
    if "Commands:" not in lines:
        return lines
    first = lines.index("Commands:")
    after = next((n for n in range(first, len(lines)) if not lines[n]), len(lines))
    return [*lines[:first], *lines[after + 1 :]]


def _contents(names: typing.Sequence[str]) -> str:
    return "Sections: " + ", ".join(f"[{name}](#{name})" for name in names) + "."


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def _agrees(name: str, text: str, *, is_check: bool) -> bool:
    """Write a page; with `is_check`, only show how it differs from what is there."""
    path = ROOT / name
    found = path.read_text(encoding="utf-8") if path.is_file() else ""
    if found == text:
        return True
    if not is_check:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return True
    lines = difflib.unified_diff(found.splitlines(), text.splitlines(), name, "the code", n=0)
    sys.stderr.write("\n".join([*lines][:40]) + "\n")
    return False


if __name__ == "__main__":
    sys.exit(main())
