"""What SECURITY.md promises of the code, read from the code: data never becomes a program."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import realm

SOURCES = sorted(Path(realm.__file__).parent.rglob("*.py"))
BAD_MODULES = {
    *("pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "jsonpickle"),
    *("xml.etree", "xml.dom", "xml.sax", "lxml", "xmlrpc"),
    *("code", "codeop", "runpy", "imp", "pty", "telnetlib", "ftplib", "urllib.request"),
    *("tarfile", "ctypes.util"),
}
"""They run what they read, expand entities, unpack where an archive says, or fetch."""
BAD_CALLS = {
    *("eval", "exec", "compile", "__import__", "breakpoint"),
    *("os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv", "os.startfile"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "shutil.unpack_archive", "mktemp", "tempfile.mktemp"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "torch.classes"),
    *("torch.serialization.add_safe_globals", "add_safe_globals"),
    *("importlib.reload", "SourceFileLoader", "spec_from_file_location"),
    *("importlib.util.spec_from_file_location", "pandas.read_pickle", "pd.read_pickle"),
    *("np.fromregex", "numpy.f2py.compile", "Markup", "markupsafe.Markup"),
}
"""They run a text, a file or an archive, whatever is in it, or take a text for a page's own."""
BAD_WORDS = {
    "shell": True,
    "trust_remote_code": True,
    "allow_pickle": True,
    "weights_only": False,
    "autoescape": False,
    "use_safetensors": False,
    "verify": False,
    "safe_mode": False,
}
"""Arguments with values that hand control to data."""

KNOWN = {("doctor.py", "importlib.import_module of something that was read")}
"""It looks whether packages work whose names stand in itself."""


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
    if name in BAD_CALLS or name.endswith((".extractall", ".from_string", ".read_pickle")):
        yield name
    if name in {"import_module", "importlib.import_module"} and not is_text(call.args[:1]):
        yield f"{name} of something that was read"
    words = {word.arg: word.value for word in call.keywords}
    for word, bad in BAD_WORDS.items():
        value = words.get(word)
        if isinstance(value, ast.Constant) and value.value is bad:
            yield f"{name}({word}={bad})"
    if name == "torch.load" and "weights_only" not in words:
        yield "torch.load without weights_only"
    if name in {"np.load", "numpy.load"} and "allow_pickle" not in words:
        yield "numpy.load without allow_pickle"
    if "yaml." in name and name.rpartition(".")[2] in {
        "load",
        "load_all",
        "unsafe_load",
        "full_load",
    }:
        yield name


def is_text(arguments: list[ast.expr]) -> bool:
    return all(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in arguments)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_runs_what_it_reads(source: Path) -> None:
    found = list(faults(ast.parse(source.read_text("utf-8"))))
    assert [one for one in found if (source.name, one) not in KNOWN] == []


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
        "yaml.unsafe_load(text)",
        "importlib.import_module(name)",
        "from importlib import import_module\nimport_module(told['class'])",
        "shutil.unpack_archive(path)",
        "archive.extractall(folder)",
        "import tarfile",
        "from lxml import etree",
        "torch.hub.load(name)",
        "environment.from_string(text)",
        "Markup(text)",
        "Model.from_pretrained(name, use_safetensors=False)",
    ],
)
def test_the_look_sees_what_it_looks_for(text: str) -> None:
    assert len(list(faults(ast.parse(text)))) == 1
