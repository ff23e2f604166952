"""What leads on from a command line that cannot be parsed: the verb meant, and an example."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

QUESTION = 'realm ask "When does the library close?" --docs notes/'
MEANT: Mapping[str, Mapping[str, str]] = {
    "realm": {
        **dict.fromkeys(("answer", "chat", "find", "qa", "query", "question", "search"), "ask"),
        **dict.fromkeys(("add", "library", "list", "ls", "remove", "rm", "watch"), "docs"),
        **dict.fromkeys(("page", "run", "start", "ui", "web"), "serve"),
        **dict.fromkeys(("check", "info"), "doctor"),
        **dict.fromkeys(("convert", "download"), "import"),
        **dict.fromkeys(("eval", "measure", "test"), "evaluate"),
        **dict.fromkeys(("demo", "example", "init", "tutorial"), "quickstart"),
        "chunk": "split",
        "embed": "index",
        "fine-tune": "finetune",
        "tensorboard": "report",
        "train": "pretrain",
    },
    "realm docs": {
        **dict.fromkeys(("create", "import", "new", "put", "update"), "add"),
        **dict.fromkeys(("del", "delete", "rm"), "remove"),
        **dict.fromkeys(("follow", "sync"), "watch"),
        **dict.fromkeys(("ls", "show"), "list"),
        **dict.fromkeys(("build", "index", "rebuild"), "reindex"),
    },
}
"""Verbs that people try, by what they stand behind, and the verb that is meant."""
UNKNOWN = re.compile(r"No such command '(?P<word>.*?)'\.(?P<similar> Did you mean .*)?", re.DOTALL)
EXAMPLE = "Example: "
WORDS_AMISS = ("Missing argument", "Missing option", "Got unexpected extra argument")


def as_typed(arguments: Sequence[str]) -> list[str]:
    """Return what is parsed: `realm`, `realm help VERB`, `realm docs` show their help."""
    match list(arguments):
        case [] | ["help"]:
            return ["--help"]
        case ["help", *verbs]:
            return [*verbs, "--help"]
        case ["docs"]:
            return ["docs", "--help"]
        case ["version"]:
            return ["--version"]
        case other:
            return other


def lead_on(message: str, path: str, explained: str) -> str:
    """Return what a parser says of a command, with what was probably meant and where to look.

    Args:
        message: what it found.
        path: what was typed up to the verb where it was, as `realm docs`.
        explained: that verb's help.
    """
    told = " ".join(message.split()).replace(": Value error, ", ": ")  # pydantic's, not ours
    if unknown := UNKNOWN.fullmatch(message):
        meant = _meant(unknown["word"], path)
        told = f"No such command '{unknown['word']}'. {meant}" if meant else told
    elif path == "realm" and told.startswith("No such option"):
        told = f"{told.rstrip('.')}. Options stand behind a verb, as in `{QUESTION}`"
    elif told.startswith(WORDS_AMISS) and (example := _example(explained)):
        told = f"{told.rstrip('.')}. For example: `{example}`"
    end = "" if told.endswith("?") else "."
    return f"{told.rstrip('.')}{end} Look at `{path} --help`"


def _meant(word: str, path: str) -> str:
    """Return what to say of a word that is no verb, '' where nothing comes to mind."""
    if meant := MEANT.get(path, {}).get(word):
        return f"Did you mean '{meant}'?"
    if path == "realm" and (" " in word or word.endswith("?")):
        return f"A question is asked with a verb: `{QUESTION}`"
    if path == "realm" and Path(word).exists():
        return f"A verb comes first, as in `{QUESTION}`"
    return ""


def _example(explained: str) -> str:
    """Return the first example in a verb's help, '' where there is none."""
    lines = (line.strip() for line in explained.splitlines())
    return next((line[len(EXAMPLE) :] for line in lines if line.startswith(EXAMPLE)), "")
