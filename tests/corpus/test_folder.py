"""Somebody's own files become passages of known file and line; nothing stops at a bad one."""

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from realm.config import SplitConfig
from realm.corpus import reading
from realm.corpus.folder import find_files, hash_files, list_files, read_files, split_files
from realm.corpus.places import PLACES, Places
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, CorpusError
from realm.records import Article, Skipped
from realm.storage import Request, write_json
from realm.tokenizer import WordpieceTokenizer

CONFIG = SplitConfig(max_wordpieces=24, drop_titles=())


def read(docs: Path, skipped: Skipped | None = None) -> dict[str, Article]:
    skipped = Skipped() if skipped is None else skipped
    files = list_files(docs, skipped)
    return {found.article.id: found.article for found, _ in read_files(files, skipped)}


def split(
    docs: Path, out: Path, tokenizer: WordpieceTokenizer, skipped: Skipped | None = None
) -> PassageStore:
    skipped = Skipped() if skipped is None else skipped
    files = list_files(docs, skipped)
    split_files(
        docs,
        files,
        out,
        hashes=hash_files(files),
        config=CONFIG,
        tokenizer=tokenizer,
        skipped=skipped,
    )
    return PassageStore.open(out)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "notes"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "hidden.txt").write_text("hidden")
    (folder / ".hidden.md").write_text("hidden")
    lines = ["```", "# code", "```", "# The town #", "", "Fermat was born.", "Euler was born."]
    (folder / "town.md").write_text("\n".join(lines))
    (folder / "sub" / "a.TXT").write_bytes(b"\xef\xbb\xbfThe house.\r\nThe street.\r\n")
    records = [
        json.dumps({"id": "x", "title": "Abel", "text": "A prize.\nA street."}),
        "",
        json.dumps({"text": "No id."}),
    ]
    (folder / "sub" / "deep" / "r.jsonl.gz").write_bytes(gzip.compress("\n".join(records).encode()))
    return folder


def test_files_at_any_depth_are_articles(docs: Path) -> None:
    found = read(docs)
    assert list(found) == [
        "sub/a.TXT",
        "sub/deep/r.jsonl.gz/x",
        "sub/deep/r.jsonl.gz/3",
        "town.md",
    ]
    assert found["town.md"].title == "The town"
    assert found["town.md"].text == (docs / "town.md").read_text()
    assert found["sub/a.TXT"] == Article(
        id="sub/a.TXT", title="a", text="The house.\r\nThe street.\r\n"
    )
    assert found["sub/deep/r.jsonl.gz/x"].title == "Abel"


def test_titles_of_a_corpus_to_leave_out_are_titles_like_others_here(docs: Path) -> None:
    (docs / "list.md").write_text("# List of streets\nThe street.")
    assert read(docs)["list.md"].title == "List of streets"


def test_what_cannot_be_used_is_counted_by_reason(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (docs / "photo.jpg").write_bytes(b"\xff\xd8")
    (docs / "zero.txt").write_bytes(b"text\0text")
    (docs / "latin.txt").write_bytes(b"one\ncaf\xe9")
    (docs / "empty.md").write_text(" \n")
    (docs / "long.txt").write_text("x" * 2_000)
    (docs / "gone.txt").symlink_to(docs / "nowhere")
    (docs / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "Lost."}\n' * 500)[:-20])
    (docs / "bad.jsonl").write_text('{"text": 5}\n{"text":\n{"text": "Kept."}\n')
    monkeypatch.setattr("realm.corpus.whole_files.TEXT_LIMIT", 1_000)
    skipped = Skipped()
    found = read(docs, skipped)
    assert [name for name in found if not name.startswith(("sub", "cut"))] == [
        "bad.jsonl/3",
        "town.md",
    ]
    places = {reason: sorted(places) for reason, places in skipped.examples.items()}
    assert places == {
        reading.NOWHERE: ["gone.txt:1"],
        reading.OTHER_IN_FOLDER: ["photo.jpg:1"],
        reading.BINARY: ["zero.txt:1"],
        reading.BAD_UTF8: ["latin.txt:2"],
        reading.NO_TEXT: ["empty.md:1"],
        reading.TOO_LONG: ["long.txt:1"],
        reading.NOT_READ: ["cut.jsonl.gz:1"],
        reading.BAD_TYPE: ["bad.jsonl:1"],
        reading.BAD_JSON: ["bad.jsonl:2"],
    }


def test_links_to_other_folders_are_counted_and_listed_in_order(docs: Path, tmp_path: Path) -> None:
    """They were passed over in silence; only links to files were told."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.md").write_text("Of nobody's business.")
    (docs / "shared").symlink_to(elsewhere)
    (docs / "again").symlink_to(docs / "sub")
    for name in ("c.pdf", "a.pdf", "b.pdf"):
        (docs / name).write_bytes(b"x")
    skipped = Skipped()
    names = [file.name for file in list_files(docs, skipped)]
    assert names == ["sub/a.TXT", "sub/deep/r.jsonl.gz", "town.md"]
    assert skipped.examples == {
        reading.OUTSIDE: ["shared:1"],
        reading.OTHER_IN_FOLDER: ["a.pdf:1", "b.pdf:1", "c.pdf:1"],
    }


def test_a_file_that_may_not_be_opened_is_counted(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise CorpusError(f"{path} is unreadable")

    for place in ("folder", "whole_files"):
        monkeypatch.setattr(f"realm.corpus.{place}.read_blocks", refuse)
    skipped = Skipped()
    assert read(docs, skipped) == {}
    assert skipped.counts == {reading.NOT_READ: 3}


def test_what_realm_made_is_passed_over(docs: Path, tokenizer: WordpieceTokenizer) -> None:
    """Else what is kept of files among them would be read again at every question."""
    before = read(docs)
    names = [file.name for file in list_files(docs, Skipped())]
    skipped = Skipped()
    split(docs, docs / "cache" / "passages-1", tokenizer, skipped)
    assert (docs / "cache" / "passages-1" / "skipped.jsonl").is_file()
    (docs / "run").mkdir()
    write_json(docs / "run" / "request.json", Request(kind="run").as_json())
    (docs / "run" / "metrics.jsonl").write_text('{"step": 1, "text": "no text of theirs"}\n')
    again = Skipped()
    assert read(docs, again) == before
    assert again.counts == skipped.counts
    assert [file.name for file in list_files(docs, Skipped())] == names
    (docs / "site").mkdir()
    (docs / "site" / "manifest.json").write_text('{"name": "of a web page", "kind": "page"}')
    (docs / "site" / "index.md").write_text("Gauss was born.")
    assert read(docs).keys() - before.keys() == {"site/index.md"}


def test_a_single_file_is_read_by_its_name(docs: Path) -> None:
    assert list(read(docs / "sub" / "a.TXT")) == ["a.TXT"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gone", "found no file or folder .*gone; expected .txt and .md"),
        ("a.parquet", "is of no kind that is read.*realm split"),
        ("a.pdf", r"is of no kind that is read.*with `pdftotext a\.pdf`"),
        ("a b.docx", r"is of no kind that is read.*with `pandoc 'a b\.docx' -o 'a b\.md'`"),
        ("a.zip", "is of no kind that is read.*Unpack it first"),
        ("a.jpg", "is of no kind that is read.*Make it text first"),
        ("empty", "found no text in .*empty; expected .txt"),
        ("photos", r"found no text in .*photos \(left out: 1 not a .txt, .md or .jsonl file\)"),
    ],
)
def test_where_there_is_nothing_to_read_it_says_what_is_read(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    for other in ("a.parquet", "a.pdf", "a b.docx", "a.zip", "a.jpg"):
        (tmp_path / other).write_bytes(b"x")
    with pytest.raises(CorpusError, match=told):
        list_files(tmp_path / name, Skipped())


def test_every_word_of_a_passage_is_found_in_its_file_and_line(
    docs: Path, tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    store = split(docs, tmp_path / "out", tokenizer)
    places = Places.open(tmp_path / "out", num_passages=len(store))
    seen: dict[str, set[int]] = {}
    for passage in store:
        for start, end in passage.sentences:
            place = places.of(passage, passage.start + start)
            seen.setdefault(place.file, set()).add(place.line)
            if place.file.endswith(".gz"):
                continue
            lines = (docs / place.file).read_bytes().decode("utf-8-sig").split("\n")
            first = passage.text[start:end].split("\n")[0].strip()
            assert first in lines[place.line - 1]
    assert seen["sub/a.TXT"] == {1, 2}
    assert seen["sub/deep/r.jsonl.gz"] == {1, 3}
    assert {6, 7} <= seen["town.md"]


def test_places_of_other_passages_are_refused(
    docs: Path, tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    store = split(docs, tmp_path / "out", tokenizer)
    with pytest.raises(ArtifactError, match="is not about these passages"):
        Places.open(tmp_path / "out", num_passages=len(store) + 1)
    (tmp_path / "out" / PLACES).write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="is missing or damaged"):
        Places.open(tmp_path / "out", num_passages=len(store))


def test_no_text_at_all_publishes_nothing(tmp_path: Path, tokenizer: WordpieceTokenizer) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(" ")
    with pytest.raises(CorpusError, match=r"found no text in .* \(left out: 1 no text\); expected"):
        split(tmp_path / "docs", tmp_path / "out", tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]


def test_a_file_that_changes_while_it_is_read_publishes_nothing(
    docs: Path, tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    files = list_files(docs, Skipped())
    hashes = hash_files(files)
    (docs / "town.md").write_text("Other words.")
    with pytest.raises(
        CorpusError, match=r"town\.md changed, or could not be read, .* and ask again"
    ):
        split_files(
            docs,
            files,
            tmp_path / "out",
            hashes=hashes,
            config=CONFIG,
            tokenizer=tokenizer,
            skipped=Skipped(),
        )
    assert not (tmp_path / "out").exists()


def test_a_folder_within_of_which_nothing_is_told_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "own.txt").write_text("my own")
    told = os.stat

    def withheld(path: str | Path, **options: Any) -> os.stat_result:
        if Path(path).name == "inner":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return told(path, **options)

    monkeypatch.setattr(os, "stat", withheld)
    monkeypatch.setattr(os, "lstat", lambda path: withheld(path, follow_symlinks=False))
    assert [file.name for file in find_files(tmp_path, Skipped())] == ["own.txt"]
