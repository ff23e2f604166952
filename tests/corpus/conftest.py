"""A small tokenizer and small files for the tests of the corpus."""

import json
import string
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

WORDS = tuple("the of and in is was april month year history first second one two".split())  # noqa: SIM905

WriteJsonl = Callable[[str, Iterable[dict[str, object]]], Path]


def small_tokenizer() -> WordpieceTokenizer:
    characters = string.ascii_lowercase + string.digits + "日本語一二👩👧🇩🇪"
    pieces = [
        *WORDS,
        *string.punctuation,
        *characters,
        *(f"##{character}" for character in characters),
    ]
    return WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *dict.fromkeys(pieces)])


@pytest.fixture(scope="session")
def tokenizer() -> WordpieceTokenizer:
    return small_tokenizer()


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteJsonl:
    def write(name: str, records: Iterable[dict[str, object]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write
