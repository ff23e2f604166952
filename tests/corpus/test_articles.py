"""Articles from files of every kind; whatever is left out is counted with its place."""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realm.config import SplitConfig
from realm.corpus import reading
from realm.corpus.articles import heading_of, read_articles
from realm.corpus.folder import find_files
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.records import Article, Skipped
from realm.tokenizer import WordpieceTokenizer

GOOD = {"id": "1", "title": "April", "text": "April is a month."}


def read(*inputs: Path, skipped: Skipped | None = None) -> list[Article]:
    return list(read_articles(inputs, skipped=skipped))


def lines(path: Path, *found: object) -> Path:
    """Write lines as they are (bytes, str) or as JSON."""
    with path.open("wb") as stream:
        for line in found:
            data = line if isinstance(line, bytes) else json.dumps(line).encode()
            stream.write(data + b"\n")
    return path


def test_json_lines_are_articles(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "months.jsonl",
        {**GOOD, "source": "ignored"},
        b"",
        {"text": "No id, no title."},
        {"id": 7, "title": None, "text": " Numbers are ids too. "},
    )
    assert read(path) == [
        Article(id="1", title="April", text="April is a month."),
        Article(id="months-3", title="", text="No id, no title."),
        Article(id="7", title="", text=" Numbers are ids too. "),
    ]


@pytest.mark.parametrize("name", ["data.jsonl", "notes.md", ""])
def test_files_of_the_same_name_are_not_taken_for_the_same(tmp_path: Path, name: str) -> None:
    """All articles of the second were left out as duplicates, where they had no ids."""
    inputs: list[Path] = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        text = f"Notes of the {place}."
        (tmp_path / place / (name or "a.txt")).write_text(
            json.dumps({"text": text}) if name.endswith("jsonl") else text
        )
        inputs.append(tmp_path / place / name)
    skipped = Skipped()
    found = list(read_articles([*inputs, inputs[0]], skipped=skipped))
    first = {"data.jsonl": "data-1", "notes.md": "notes.md", "": "a.txt"}[name]
    second = {"data.jsonl": "data (2)-1", "notes.md": "notes.md (2)", "": "a.txt (2)"}[name]
    assert {one.id: one.text for one in found} == {
        first: "Notes of the first.",
        second: "Notes of the second.",
    }
    assert skipped.counts == {reading.DUPLICATE: 1}  # the file that was named twice


def test_default_ids_do_not_depend_on_compression(tmp_path: Path) -> None:
    path = tmp_path / "months.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "One two."}'))
    assert read(path)[0].id == "months-1"


@pytest.mark.parametrize(
    ("line", "reason", "shown"),
    [
        (b'{"id": "2", "text": ', reading.BAD_JSON, "expected one object"),
        (b"[" * 100_000, reading.BAD_JSON, "expected one object"),
        (b'{"text": "caf\xe9"}', reading.BAD_UTF8, "byte 0xe9 at column 14"),
        (b'{"text": "half \\ud800 a pair"}', reading.BAD_UTF8, "half a surrogate pair"),
        (["a", "list"], reading.BAD_TYPE, "found ['a', 'list']"),
        ({"id": "2", "title": "May"}, reading.NO_TEXT, "the fields ['id', 'title']"),
        ({"id": "2", "text": " \n"}, reading.NO_TEXT, "a blank text"),
        ({"id": "2", "text": 5}, reading.BAD_TYPE, "found 5 in 'text', expected a string"),
        ({"id": "2", "title": 5, "text": "May."}, reading.BAD_TYPE, "found 5 in 'title'"),
        ({"id": True, "text": "May."}, reading.BAD_TYPE, "found True in 'id'"),
        ({"id": "1", "text": "Again."}, reading.DUPLICATE, "id '1' again"),
        ({"id": "2" * 5_001, "text": "May."}, reading.LONG_NAME, "5,001 characters, expected at"),
        ({"title": "May" * 2_000, "text": "May."}, reading.LONG_NAME, "found 6,000 characters"),
    ],
)
def test_a_malformed_line_is_counted_or_stops_the_reading(
    tmp_path: Path, line: object, reason: str, shown: str
) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD, line, {"id": "3", "text": "June."})
    skipped = Skipped()
    assert [article.id for article in read(path, skipped=skipped)] == ["1", "3"]
    assert skipped.counts == {reason: 1}
    assert skipped.examples == {reason: ["a.jsonl:2"]}
    with pytest.raises(CorpusError) as error:
        list(read_articles([path], on_error="fail"))
    assert str(error.value).startswith(f"a.jsonl:2: {reason}: found ")
    assert shown in str(error.value)


def test_a_line_beyond_the_limit_is_malformed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.corpus.articles.TEXT_LIMIT", 1_000)
    path = lines(tmp_path / "a.jsonl", {"text": "x" * 1_000}, GOOD)
    skipped = Skipped()
    assert len(read(path, skipped=skipped)) == 1
    assert skipped.examples == {reading.TOO_LONG: ["a.jsonl:1"]}


def test_ids_are_unique_over_all_inputs(tmp_path: Path) -> None:
    first = lines(tmp_path / "a.jsonl", GOOD)
    second = lines(tmp_path / "b.jsonl", {"id": "2", "text": "May."}, GOOD)
    skipped = Skipped()
    assert [article.id for article in read(first, second, skipped=skipped)] == ["1", "2"]
    assert skipped.examples == {reading.DUPLICATE: ["b.jsonl:2"]}


def test_lists_and_disambiguation_pages_are_left_out_by_title(tmp_path: Path) -> None:
    titles = ["List of months", "April (disambiguation)", "Lists", "April"]
    path = lines(tmp_path / "a.jsonl", *({"title": t, "text": "Text."} for t in titles))
    skipped = Skipped()
    assert [article.title for article in read(path, skipped=skipped)] == ["Lists", "April"]
    assert skipped.counts == {reading.LIST: 1, reading.DISAMBIGUATION: 1}
    kept = [article.title for article in read_articles([path], drop_titles=())]
    assert kept == ["List of months", "Lists", "April"]


def test_a_folder_of_texts_is_read_in_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "b.md").write_text("```\n# code\n```\n## The title ##\r\nText.", encoding="utf-8")
    (folder / "sub" / "a.TXT").write_bytes(b"\xef\xbb\xbf# no heading\r\nText.")
    (folder / "c.txt").write_bytes(b"fine\nline\xff\n")
    (folder / "d.pdf").write_bytes(b"%PDF")
    (folder / "e.txt").write_text("")
    (folder / ".git" / "f.txt").write_text("hidden")
    skipped = Skipped()
    assert read(folder, skipped=skipped) == [
        Article(id="b.md", title="The title", text="```\n# code\n```\n## The title ##\r\nText."),
        Article(id="sub/a.TXT", title="a", text="# no heading\r\nText."),
    ]
    assert skipped.examples == {
        reading.BAD_UTF8: ["c.txt:2"],
        reading.OTHER_FILE: ["d.pdf:1"],
        reading.NO_TEXT: ["e.txt:1"],
    }


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        ("# a b", "a b"),
        ("###### a ##  ", "a"),
        ("# a#", "a#"),
        ("# a # b #", "a # b"),
        ("#\ta\t#\t", "a"),
        ("####### a\n#a\nb", ""),
        ("# ##\n#   \n## #\n# next", "next"),  # headings without words
        ("# #a", "#a"),
    ],
)
def test_the_first_heading_with_words_is_the_title(text: str, heading: str) -> None:
    assert heading_of(text) == heading


@pytest.mark.parametrize("run", [" ", "\t", "#", " #", "# "])
def test_a_long_line_that_begins_as_a_heading_does_is_read_at_once(run: str) -> None:
    started = time.monotonic()
    assert heading_of(f"# a{run * 200_000}b\n# c") == "c"  # it is none: too long
    assert time.monotonic() - started < 10  # quadratic: minutes


def test_a_text_in_one_line_that_begins_with_a_heading_is_not_its_own_title(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    """Each of its passages would hold all of it."""
    path = tmp_path / "april.md"
    path.write_text("# April is the fourth month. " + "It has thirty days. " * 2_000)
    config = SplitConfig(max_wordpieces=32, min_wordpieces=1)
    split([path], tmp_path / "out", config=config, tokenizer=tokenizer)
    store = PassageStore.open(tmp_path / "out")
    assert len(store) > 500
    assert {passage.title for passage in store} == {"april"}


def test_a_single_text_file_is_an_article(tmp_path: Path) -> None:
    path = tmp_path / "april.md"
    path.write_text("No heading.")
    assert read(path) == [Article(id="april.md", title="april", text="No heading.")]


def test_a_text_file_beyond_the_limit_is_malformed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.corpus.articles.TEXT_LIMIT", 10)
    path = tmp_path / "april.txt"
    path.write_text("more than ten bytes")
    with pytest.raises(CorpusError, match=f"1 {reading.TOO_LONG}"):
        read(path)


@pytest.mark.parametrize("name", ["gone.jsonl", "a.pdf", "empty", "a.json"])
def test_what_cannot_be_read_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    good = lines(tmp_path / "good.jsonl", GOOD)
    (tmp_path / "a.pdf").write_text("text")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.jsonl").write_text("{}")
    with pytest.raises(CorpusError, match=rf"{name}.* expected JSON lines .*\.parquet"):
        next(read_articles([good, tmp_path / name]))


def test_a_corpus_without_articles_is_an_error_that_says_what_was_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", b"{", b"{")
    with pytest.raises(CorpusError, match=r"found no article in a.jsonl \(left out: 2 bad JSON\)"):
        read(path)


def test_a_truncated_file_is_never_half_read_without_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "One."}\n{"text": "Two."}\n' * 1_000)[:-9])
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz is truncated"):
        read(path)


def test_reading_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as stream:
        for number in range(2_000):
            stream.write(json.dumps({"id": str(number), "text": "x" * 100_000}) + "\n")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from realm.corpus.articles import read_articles\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "articles = read_articles([Path(sys.argv[1])]); next(articles); before = peak()\n"
        "assert sum(1 for _ in articles) == 1_999\n"
        "sys.exit(peak() - before > 50_000)  # kB; the text has 200 MB\n"
    )
    environment = {"PYTHONPATH": str(Path(reading.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)


def test_links_to_other_folders_and_to_nothing_are_counted_as_ask_does(tmp_path: Path) -> None:
    docs, elsewhere = tmp_path / "docs", tmp_path / "elsewhere"
    for folder in (docs / "sub", elsewhere):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("One two.")
    (docs / "shared.txt").symlink_to(elsewhere)
    (docs / "again").symlink_to(docs / "sub")
    (docs / ".hidden").symlink_to(elsewhere)
    (docs / ".gone").symlink_to(docs / "nothing")
    (docs / "gone.txt").symlink_to(docs / "nothing")
    (docs / "sub" / "circle").symlink_to(docs / "sub" / "circle")
    (docs / "sub" / "far.txt").symlink_to(elsewhere / "nothing")
    skipped = Skipped()
    assert [article.id for article in read_articles([docs], skipped=skipped)] == ["sub/a.txt"]
    assert skipped.examples == {
        reading.OUTSIDE: ["shared.txt:1"],
        reading.NOWHERE: ["gone.txt:1", "sub/circle:1", "sub/far.txt:1"],
    }
    asked = Skipped()
    find_files(docs, asked)
    assert asked.counts == skipped.counts
    (docs / "sub" / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"holds no \.txt or \.md file"):
        list(read_articles([docs]))
