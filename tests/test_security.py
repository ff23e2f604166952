"""What SECURITY.md promises of the code, read from the code: data never becomes a program."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import realm

SOURCES = sorted(Path(realm.__file__).parent.rglob("*.py"))
BAD_MODULES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "xml.etree"}
"""They run what they read, or expand entities."""
BAD_CALLS = {"eval", "exec", "compile", "__import__"}
BAD_WORDS = {
    "shell": True,
    "trust_remote_code": True,
    "allow_pickle": True,
    "weights_only": False,
    "autoescape": False,
}
"""Arguments with values that hand control to data."""


def faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_bad(alias.name))
        elif isinstance(node, ast.ImportFrom) and is_bad(node.module or ""):
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from faults_of_call(node)


def is_bad(module: str) -> bool:
    return any(module == bad or module.startswith(f"{bad}.") for bad in BAD_MODULES)


def faults_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    if name in BAD_CALLS or name in {"os.system", "os.popen"}:
        yield name
    words = {word.arg: word.value for word in call.keywords}
    for word, bad in BAD_WORDS.items():
        value = words.get(word)
        if isinstance(value, ast.Constant) and value.value is bad:
            yield f"{name}({word}={bad})"
    if name == "torch.load" and "weights_only" not in words:
        yield "torch.load without weights_only"
    if name in {"np.load", "numpy.load"} and "allow_pickle" not in words:
        yield "numpy.load without allow_pickle"
    if name.endswith("yaml.load"):
        yield name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_runs_what_it_reads(source: Path) -> None:
    assert list(faults(ast.parse(source.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import xml.etree.ElementTree as et",
        "eval(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "yaml.load(text)",
    ],
)
def test_the_look_sees_what_it_looks_for(text: str) -> None:
    assert len(list(faults(ast.parse(text)))) == 1
