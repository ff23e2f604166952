"""The pages agree with the code: settings, verbs, options, functions, links."""

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import typer

from realm.cli.main import build_app
from realm.config import SECTIONS, load_config
from realm.study.settings import StudySettings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "realm"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\w*)\s*$")
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
COMMAND = re.compile(r"^\s*(?:\$ |Example: )?(realm\s.*)$")
SHELL_ENDS = {"|", ">", ">>", "2>", "&&", "||", ";", "&"}
FUNCTION = re.compile(r"`([\w/]+\.py)::([\w.]+)`")
DOTTED = re.compile(r"`realm\.([\w.]+)\.(\w+)`")
SETTING = re.compile(rf"`({'|'.join(SECTIONS)})\.([a-z_.]+)(?: = ([^`]+))?`")
MAX_README_LINES = 150


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


@cache
def blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


def blocks_of(page: Path) -> Iterator[Block]:
    fence, language, lines = "", "", list[str]()
    for line in page.read_text(encoding="utf-8").splitlines():
        found = FENCE.match(line)
        if found and not fence:
            fence, language, lines = found[1], found[2], []
        elif found and found[1] == fence and not found[2]:
            yield Block(page, language, "\n".join(lines))
            fence = ""
        else:
            lines.append(line)
    assert not fence, f"{page}: a fenced block is not closed"


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^\s*(```+|~~~+).*?^\s*\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Return (page, command line) of every `realm ...` in a fenced block."""
    return [
        (block.page.name, match[1])
        for block in blocks()
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines()
        if (match := COMMAND.match(line))
    ]


@cache
def verbs() -> Any:
    return typer.main.get_command(build_app())


@cache
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def test_generated_pages_agree_with_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("name", "now", "then"),
    [
        ("configuration.md", "`288`", "`289`"),
        ("cli.md", "realm ask", "realm query"),
        ("api.md", "### Realm\n", "### Kingdom\n"),
        ("performance.md", "<!-- benchmark: embedding -->\n", "<!-- benchmark: embedding -->\nx"),
    ],
)
def test_a_page_that_differs_is_noticed(
    name: str, now: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_docs()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_docs.py"])
    assert module.main() == 0
    monkeypatch.setattr(sys, "argv", ["make_docs.py", "--check"])
    assert module.main() == 0
    page = tmp_path / "docs" / name
    page.write_text(page.read_text("utf-8").replace(now, then, 1), encoding="utf-8")
    before = page.read_bytes()
    assert module.main() == 1
    assert page.read_bytes() == before


def test_every_verb_and_every_setting_has_its_line() -> None:
    cli = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert [verb for verb in verbs().commands if f"\n## {verb}\n" not in cli] == []
    configuration = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    module = make_docs()
    for section in SECTIONS:
        part = configuration.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        names = module.stage_config(section).model_fields
        assert [name for name in names if f"\n| `{name}` |" not in part] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path) -> None:
    broken: list[str] = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        headings = (
            {slug(h) for h in HEADING.findall(prose(file))} if file.suffix == ".md" else set()
        )
        if not file.exists() or (anchor and anchor not in headings):
            broken.append(target)
    assert broken == []


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) < MAX_README_LINES


def test_there_are_commands_to_check() -> None:
    shown = {line.split()[1] for _, line in commands()}
    assert shown >= {"split", "mask", "ict", "mlm", "pretrain", "finetune", "evaluate", "ask"}


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_shown_is_one(page: str, line: str) -> None:
    """Verbs, options, required arguments, choices, and the settings of --set."""
    del page
    words = shlex.split(line, comments=True)[1:]
    ends = [number for number, word in enumerate(words) if word in SHELL_ENDS]
    words = words[: ends[0]] if ends else words
    if words and words[0].startswith("-"):
        assert set(words) <= {"--version", "--help", "-h"}
        return
    name = words[0]
    assert name in verbs().commands
    verb = verbs().commands[name]
    if set(words) & {"--help", "-h"}:
        return
    parent = verbs().make_context("realm", [], resilient_parsing=True)
    context = verb.make_context(name, words[1:], parent=parent)
    if context.params.get("sets"):
        cls = make_docs().stage_config(name)
        load_config(cls, section=name, overrides=context.params["sets"])


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        test_every_command_shown_is_one("page", 'realm ask "Why?" --model run --frobnicate')


@pytest.mark.parametrize("block", [b for b in blocks() if b.language in {"toml", "json", "python"}])
def test_blocks_of_data_and_code_can_be_read(block: Block, tmp_path: Path) -> None:
    match block.language:
        case "json":
            json.loads(block.text)
        case "python":
            for line in ast.walk(ast.parse(block.text)):
                if isinstance(line, ast.ImportFrom) and str(line.module).startswith("realm."):
                    file = str(line.module).removeprefix("realm.").replace(".", "/") + ".py"
                    assert [one.name for one in line.names if not exists(file, one.name)] == []
        case _:
            file = tmp_path / "settings.toml"
            file.write_text(block.text, encoding="utf-8")
            sections = tomllib.loads(block.text)
            if "study" in sections:
                assert StudySettings.load(file).rows
                return
            for section in sections:
                load_config(make_docs().stage_config(section), section=section, file=file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_function_and_setting_named_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    dotted = [(f"{module.replace('.', '/')}.py", name) for module, name in DOTTED.findall(text)]
    named = [*FUNCTION.findall(text), *dotted]
    assert [f"{file}::{name}" for file, name in named if not exists(file, name)] == []
    for section, key, value in SETTING.findall(text):
        settings = load_config(
            make_docs().stage_config(section),
            section=section,
            overrides=[f"{key}={value}"] if value else [],
        )
        found: object = settings
        for part in key.split("."):
            found = getattr(found, part)


def exists(file: str, name: str) -> bool:
    """Return whether a file below src/realm defines a class, a function or a method."""
    path = SOURCE / file
    if not path.is_file():  # a package
        path = path.with_suffix("") / "__init__.py"
    if not path.is_file():
        return False
    body: list[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    for node in body:  # what a package hands on
        if isinstance(node, ast.ImportFrom) and path.name == "__init__.py":
            handed = [one.name for one in node.names]
            if name.partition(".")[0] in handed:
                module = str(node.module).removeprefix("realm.").replace(".", "/")
                return exists(f"{module}.py", name)
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part
        ]
        if not found:
            return False
        body = found[0].body
    return True
