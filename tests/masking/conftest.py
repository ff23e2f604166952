"""A small tokenizer, passages in memory and bracketed test sets for the tests of masking."""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from realm.records import Passage
from realm.storage import fingerprint_of
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

WORDS = ("the", "of", "and", "in", "was", "a", "is", "born", "city", "capital", "river", "1990")
SUFFIXES = ("s", "ing", "land", "ed")
BRACKETS = re.compile(r"\[([^\]]*)\]")
MakePassage = Callable[..., Passage]


class Bracketed(NamedTuple):
    """A sentence of a test set, whose file has its spans in square brackets."""

    text: str
    """Without the brackets."""
    spans: list[tuple[int, int]]

    def found(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
        """Return how many spans are right, were found, and were wanted."""
        return len(set(spans) & set(self.spans)), len(spans), len(self.spans)


@dataclass
class MemorySource:
    """Passages in memory: all that masking wants of a passage store."""

    passages: Sequence[Passage]
    tokenizer: WordpieceTokenizer
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint_of([passage.sha256 for passage in self.passages])

    def __len__(self) -> int:
        return len(self.passages)

    def __getitem__(self, row: int) -> Passage:
        return self.passages[row]


@pytest.fixture(scope="session")
def tokenizer() -> WordpieceTokenizer:
    characters = string.ascii_lowercase + string.digits
    pieces = [
        *WORDS,
        *string.punctuation,
        *characters,
        *(f"##{piece}" for piece in (*SUFFIXES, *characters)),
    ]
    return WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *dict.fromkeys(pieces)])


@pytest.fixture(scope="session")
def read_bracketed() -> Callable[[str], list[Bracketed]]:
    """Read a test set beside this file: one sentence a line, # before a remark."""

    def parse(line: str) -> Bracketed:
        text, spans, end = "", list[tuple[int, int]](), 0
        for match in BRACKETS.finditer(line):
            text += line[end : match.start()]
            spans.append((len(text), len(text) + len(match[1])))
            text += match[1]
            end = match.end()
        return Bracketed(text + line[end:], spans)

    def read(name: str) -> list[Bracketed]:
        lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
        return [parse(line) for line in lines if line and not line.startswith("#")]

    return read


@pytest.fixture
def make_passage() -> MakePassage:
    def make(*sentences: str, row: int = 0, title: str = "A title") -> Passage:
        text, offsets = "", list[tuple[int, int]]()
        for sentence in sentences:
            text += " " if text else ""
            offsets.append((len(text), len(text) + len(sentence)))
            text += sentence
        return Passage(
            row=row,
            id=f"{row}#0",
            article_id=str(row),
            title=title,
            text=text,
            start=0,
            end=len(text),
            sentences=tuple(offsets),
        )

    return make


@pytest.fixture
def make_source(tokenizer: WordpieceTokenizer) -> Callable[..., MemorySource]:
    def make(*passages: Passage) -> MemorySource:
        return MemorySource(passages, tokenizer)

    return make
