"""Names of files: any that is text is kept, and one that is none is left out with a reason."""

import bz2
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from realm.config import SplitConfig
from realm.corpus.articles import read_articles
from realm.corpus.folder import find_files, hash_files, list_files, split_files
from realm.corpus.places import Places
from realm.corpus.reading import BAD_NAME
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.records import Skipped
from realm.storage import read_json, write_json
from realm.tokenizer import WordpieceTokenizer

TEXT = "Fermat was born in the year 1607."
ODD = ("a\u2028b.txt", "new\nline.txt", "\u65e5\u672c e\u0301.txt", "\u202ertl.txt")
WRITTEN = "\\udcff.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with odd names, and one whose name is no UTF-8."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ODD:
        (folder / name).write_text(TEXT, encoding="utf-8")
    try:
        (folder / os.fsdecode(b"\xff.txt")).write_text(TEXT, encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes no such name")
    return folder


def test_a_folder_with_a_name_that_is_no_text_is_split_and_reported_again(
    folder: Path, tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    config = SplitConfig(max_wordpieces=64, min_wordpieces=1)
    (folder / "blank\u2028.txt").write_text(" ", encoding="utf-8")
    made, again = (
        split([folder], tmp_path / "out", config=config, tokenizer=tokenizer) for _ in range(2)
    )
    assert made.num_articles == again.num_articles == len(ODD)
    assert again.already_done
    assert made.skipped.examples[BAD_NAME] == again.skipped.examples[BAD_NAME] == [f"{WRITTEN}:1"]
    assert made.skipped.examples == again.skipped.examples


def test_whoever_stops_at_bad_records_is_told_the_name(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"\\udcff\.txt:1: file name that is not UTF-8"):
        list(read_articles([folder], on_error="fail"))


def test_documents_of_a_folder_have_names_that_are_text(folder: Path) -> None:
    skipped = Skipped()
    assert {file.name for file in find_files(folder, skipped)} == set(ODD)
    assert skipped.counts == {BAD_NAME: 1}


def test_a_file_named_itself_is_refused(folder: Path) -> None:
    file = folder / os.fsdecode(b"\xff.txt")
    for read in (lambda: list_files(file, Skipped()), lambda: list(read_articles([file]))):
        with pytest.raises(CorpusError, match="rename the file") as caught:
            read()
        str(caught.value).encode()


def test_a_folder_above_may_have_a_name_that_is_no_text(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    """As one that was unpacked from an archive of another encoding."""
    above = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        above.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    (above / "a.txt").write_text(TEXT)
    (above / "b.jsonl").write_text(json.dumps({"id": "b", "text": TEXT}) + "\n")
    (above / "c.jsonl.bz2").write_bytes(bz2.compress((above / "b.jsonl").read_bytes()))
    (above / "d.jsonl.gz").write_bytes(gzip.compress((above / "b.jsonl").read_bytes()))
    parquet.write_table(pa.table({"id": ["e"], "text": [TEXT]}), tmp_path / "e.parquet")
    (tmp_path / "e.parquet").rename(above / "e.parquet")
    for file in sorted(above.iterdir()):
        assert [article.text for article in read_articles([file])] == [TEXT]
    files = list_files(above, Skipped())
    config = SplitConfig(max_wordpieces=64, min_wordpieces=1)
    split_files(
        above,
        files,
        above / "passages",
        hashes=hash_files(files),
        config=config,
        tokenizer=tokenizer,
        skipped=Skipped(),
    )
    store = PassageStore.open(above / "passages")
    assert {passage.text for passage in store} == {TEXT}
    assert Places.open(above / "passages", num_passages=len(store)).of(store[0], 0) == ("a.txt", 1)


def test_a_name_that_is_no_text_is_written_as_json_does_it(tmp_path: Path) -> None:
    """A folder's own path may hold one, too."""
    write_json(tmp_path / "a.json", {"folder": "a\udcff\u65e5"})
    assert read_json(tmp_path / "a.json") == {"folder": "a\udcff\u65e5"}
