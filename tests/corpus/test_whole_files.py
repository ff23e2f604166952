"""A text file is read alike, whether its folder is asked or a library takes it in."""

from pathlib import Path

import pytest

from realm.corpus import whole_files
from realm.corpus.documents import read_document
from realm.corpus.folder import TextFile, read_files
from realm.corpus.reading import BAD_UTF8, BINARY, TOO_LONG
from realm.records import Skipped


@pytest.mark.parametrize(
    ("content", "text", "reasons"),
    [
        ("one\nträd".encode(), "one\nträd", {}),
        (b"\xef\xbb\xbfmarked", "marked", {}),
        (b"fine\nb\xe9b\xe9", None, {BAD_UTF8: ["notes.txt:2"]}),
        (b"\x7fELF\0\xff", None, {BINARY: ["notes.txt:1"]}),
        (b"z" * 101, None, {TOO_LONG: ["notes.txt:1"]}),
    ],
)
def test_both_read_the_same_and_say_the_same_of_what_is_no_text(
    content: bytes,
    text: str | None,
    reasons: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whole_files, "TEXT_LIMIT", 100)
    file = TextFile(name="notes.txt", path=tmp_path / "notes.txt")
    file.path.write_bytes(content)
    asked, taken_in = Skipped(), Skipped()
    articles = [found.article.text for found, _ in read_files([file], asked)]
    document = read_document(file, taken_in)
    assert articles == ([] if text is None else [text])
    assert (None if document is None else document.text) == text
    assert asked.examples == taken_in.examples == reasons
