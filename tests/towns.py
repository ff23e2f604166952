"""A made-up world of forty short articles, and the command line called as a user calls it."""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "na", "pu", "re", "si", "to", "va", "zu")
TRADES = ("painter", "baker", "sailor", "teacher", "singer")
RIVERS = ("Olma", "Tersa", "Wirra", "Yond")
NUM_PLACES = 20
FOLDERS = {
    "split": "passages",
    "mask": "examples",
    "ict": "ict",
    "mlm": "mlm",
    "index": "index",
    "pretrain": "pretrain",
    "finetune": "qa",
}
"""Each stage, in order, and the folder that it writes."""
SHAPE = "scratch:1x32"
TRAIN = """
batch_size = 4
threads = 1
autocast = "none"
held_out = 0.1
log_every_steps = 1
eval_every_steps = 4
save_every_steps = 2
steps = 4
"""
SETTINGS = f"""
[split]
max_wordpieces = 32
[ict]{TRAIN}
projection_size = 16
[mlm]{TRAIN}
[pretrain]{TRAIN}
num_candidates = 4
num_eval_examples = 8
refresh = {{ mode = "sync", every_steps = 2, max_staleness_steps = 4 }}
[finetune]{TRAIN}
[evaluate]
bootstrap_samples = 100
"""


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one error message, after a look that it is one."""
        lines = self.err.strip().splitlines()
        told = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert self.code == 2, (self.code, self.err)
        assert told == [len(lines) - 1], self.err
        assert "Traceback" not in self.err
        return lines[-1].removeprefix("error: ")


Run = Callable[..., Result]


def name_of(number: int) -> str:
    """Return a made-up word that no other number has."""
    base = len(SYLLABLES)
    parts = (number % base, (number * 5 + 3) % base, (number // base + 7) % base)
    return "".join(SYLLABLES[part] for part in parts).capitalize()


def articles(num_places: int = NUM_PLACES) -> list[dict[str, str]]:
    """Return an article on each town and one on a person born there: every fact is told twice."""
    told: list[dict[str, str]] = []
    for number in range(num_places):
        town, person = name_of(number), name_of(number + 50)
        year, trade = 1700 + 7 * number, TRADES[number % len(TRADES)]
        river = RIVERS[number % len(RIVERS)]
        told += [
            {
                "id": f"town-{number}",
                "title": town,
                "text": (
                    f"{town} is a small town on the river {river}. "
                    f"The {trade} {person} was born in {town} in the year {year}. "
                    f"Every summer the people of {town} sail down the {river} to the sea."
                ),
            },
            {
                "id": f"person-{number}",
                "title": person,
                "text": (
                    f"{person} was a {trade} from the town of {town}. "
                    f"In {year} the family lived near the river {river}, where {person} was born. "
                    f"A street in {town} is named after the {trade} {person}."
                ),
            },
        ]
    return told


def questions(num_places: int = NUM_PLACES) -> list[dict[str, object]]:
    """Return a question on each town."""
    return [
        {"question": f"Who was born in {name_of(number)}?", "answers": [name_of(number + 50)]}
        for number in range(num_places)
    ]


def write_lines(path: Path, records: Sequence[object]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_world(folder: Path) -> Path:
    """Write articles.jsonl, questions.jsonl, vocab.txt and settings.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    written = write_lines(folder / "articles.jsonl", articles())
    write_lines(folder / "questions.jsonl", questions())
    words = sorted(set(re.findall(r"\w+|[^\w\s]", written.read_text("utf-8").lower())))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *words, *"?!", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = "".join(f"{piece}\n" for piece in dict.fromkeys(pieces))
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    (folder / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


def stats(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def visible(folder: Path) -> list[str]:
    """Return what a user sees in a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


class World:
    """The made-up world on disk, the command of each stage, and helpers that tests share."""

    articles = staticmethod(articles)
    write_lines = staticmethod(write_lines)
    stats = staticmethod(stats)
    visible = staticmethod(visible)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, Result] = {}

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def command(self, verb: str, out: Path | None = None, **instead: Path) -> list[object]:
        """Return a stage's command.

        Args:
            verb: The stage.
            out: Another folder to write.
            **instead: Another file or folder in place of one of the world's.
        """

        def at(name: str) -> Path:
            return instead.get(name.partition(".")[0], self.folder / name)

        arguments: dict[str, list[object]] = {
            "split": [at("articles.jsonl"), "--tokenizer", self / "vocab.txt"],
            "mask": [at("passages")],
            "ict": [at("passages"), "--init", SHAPE],
            "mlm": [at("passages"), "--init", SHAPE],
            "index": [self / "ict", at("passages")],
            "pretrain": [
                *(self / "examples", at("passages"), "--embedder", at("ict")),
                *("--encoder", self / "mlm"),
            ],
            "finetune": [at("questions.jsonl"), self / "passages", "--model", self / "pretrain"],
        }
        if verb == "mlm" and "passages" not in instead:
            arguments["mlm"] += ["--examples", self / "examples"]
        ended = ["--out", out or self / FOLDERS[verb], "--config", self / "settings.toml"]
        return [verb, *arguments[verb], *ended]

    def make(self, call: Run) -> "World":
        """Run every stage; return the world itself."""
        for verb in FOLDERS:
            self.results[verb] = call(*self.command(verb))
            assert self.results[verb].code == 0, self.results[verb].err
        return self


def call_realm(*arguments: object) -> Result:
    """Run the entry point in this process, as from a shell."""
    from realm.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["realm", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Result(code, out.getvalue(), err.getvalue())
