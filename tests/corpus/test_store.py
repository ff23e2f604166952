"""PassageStore: rows as they were split, nothing loaded on opening."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from realm.config import SplitConfig
from realm.corpus import split as split_module
from realm.corpus.passages import split_article
from realm.corpus.shards import schema
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, CorpusError
from realm.records import Article, Passage
from realm.storage import MANIFEST, read_json, write_json
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

WriteJsonl = Callable[[str, Iterable[dict[str, object]]], Path]
CONFIG = SplitConfig(max_wordpieces=24)
ARTICLES = [
    Article(
        id=f"a{number}", title=("April é" * (number % 3)), text="One two. The år 日本! " * number
    )
    for number in range(1, 12)
]


@pytest.fixture
def folder(
    tmp_path: Path,
    write_jsonl: WriteJsonl,
    tokenizer: WordpieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder of three shards."""
    monkeypatch.setattr(split_module, "SHARD_ARTICLES", 4)
    records = [{"id": a.id, "title": a.title, "text": a.text} for a in ARTICLES]
    path = write_jsonl("articles.jsonl", records)
    split([path], tmp_path / "passages", config=CONFIG, tokenizer=tokenizer)
    return tmp_path / "passages"


@pytest.fixture
def expected(tokenizer: WordpieceTokenizer) -> list[Passage]:
    return [
        cut.passage
        for article in ARTICLES
        for cut in split_article(article, tokenizer, CONFIG).passages
    ]


def test_rows_are_the_passages_in_order(folder: Path, expected: list[Passage]) -> None:
    store = PassageStore.open(folder)
    assert len(store) == len(expected)
    for row, (found, wanted) in enumerate(zip(store, expected, strict=True)):
        assert found.row == row
        assert found == store[row]
        for name in ("id", "article_id", "title", "text", "start", "end", "sentences", "sha256"):
            assert getattr(found, name) == getattr(wanted, name)


def test_columns_agree_with_the_passages(folder: Path) -> None:
    store = PassageStore.open(folder)
    rows = range(len(store))
    assert store.config == CONFIG
    assert store.fingerprint == json.loads((folder / MANIFEST).read_text())["fingerprint"]
    assert [store.sha256(row) for row in rows] == [passage.sha256 for passage in store]
    assert [store.article_id(row) for row in rows] == [passage.article_id for passage in store]
    assert [store.row_of(passage.id) for passage in store] == list(rows)
    texts = [passage.text for passage in store]
    assert store.texts(rows) == texts
    assert store.texts(np.array([3, 1])) == [texts[3], texts[1]]
    assert store.text(2) == texts[2]
    assert store.text_column().to_pylist() == texts
    assert store.text_column().num_chunks == 3


def test_wordpieces_are_those_of_title_and_text(
    folder: Path, tokenizer: WordpieceTokenizer
) -> None:
    store = PassageStore.open(folder)
    assert store.tokenizer.fingerprint == tokenizer.fingerprint
    lengths = store.lengths()
    assert (lengths.dtype, lengths.max()) == (np.dtype(np.int64), CONFIG.max_wordpieces)
    for row, passage in enumerate(store):
        body, title = store.wordpieces(row), store.title_wordpieces(row)
        assert body.dtype == title.dtype == np.int64
        assert body.tolist() == tokenizer.encode(passage.text).ids
        assert title.tolist() == tokenizer.encode(passage.title).ids[: CONFIG.max_wordpieces // 4]
        assert lengths[row] == 3 + len(body) + len(title)


def test_article_rows_are_all_rows_of_an_article(folder: Path) -> None:
    store = PassageStore.open(folder)
    for row in range(len(store)):
        wanted = [at for at, p in enumerate(store) if p.article_id == store.article_id(row)]
        assert list(store.article_rows(row)) == wanted


def test_rows_that_do_not_exist_are_refused(folder: Path) -> None:
    store = PassageStore.open(folder)
    for row in (-1, len(store)):
        with pytest.raises(IndexError, match=f"row {row} is outside the {len(store)} passages"):
            store[row]
    with pytest.raises(CorpusError, match="has no passage 'x#0'; expected an id such as 'a1#0'"):
        store.row_of("x#0")


def test_a_store_opens_again_in_another_process(folder: Path) -> None:
    """What data workers do; the bytes name the folder and hold no text."""
    carried = pickle.dumps(PassageStore.open(folder))
    assert len(carried) < 1_000
    assert pickle.loads(carried)[3] == PassageStore.open(folder)[3]  # noqa: S301 (our own bytes)


def test_wordpieces_take_two_bytes_unless_the_vocabulary_is_large() -> None:
    assert schema(65_535).field("wordpieces").type == pa.list_(pa.uint16())
    assert schema(70_000).field("title_wordpieces").type == pa.list_(pa.uint32())


def test_a_large_vocabulary_is_stored_whole(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    words = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(70_000))]
    large = WordpieceTokenizer.from_vocabulary(words)
    path = write_jsonl("articles.jsonl", [{"title": "w3", "text": "w69999 w1"}])
    split([path], tmp_path / "passages", config=CONFIG, tokenizer=large)
    store = PassageStore.open(tmp_path / "passages")
    assert store.wordpieces(0).tolist() == [70_004, 6]
    assert store.title_wordpieces(0).tolist() == [8]


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_damaged_shard_is_refused_by_name(folder: Path, number: int, damage: str) -> None:
    path = folder / f"passages-{number:05d}.arrow"
    content = {"empty": b"", "cut": path.read_bytes()[:-100], "text": b"hello " * 99}.get(damage)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{path.name} is (missing|damaged).*--rebuild"):
        PassageStore.open(folder)
    with pytest.raises(ArtifactError, match=rf"{path.name} is missing or damaged.*--rebuild"):
        PassageStore(folder)  # unchecked, as a worker opens it


def test_a_shard_of_another_corpus_is_refused(folder: Path) -> None:
    (folder / "passages-00000.arrow").write_bytes((folder / "passages-00001.arrow").read_bytes())
    with pytest.raises(ArtifactError, match="its manifest says"):
        PassageStore(folder)


def test_a_shard_with_other_columns_is_refused(folder: Path) -> None:
    path = folder / "passages-00000.arrow"
    table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
    with pa.ipc.new_file(path, table.drop_columns(["title"]).schema) as writer:
        writer.write_table(table.drop_columns(["title"]))
    with pytest.raises(ArtifactError, match="has other columns than this release writes"):
        PassageStore(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "examples"}, "holds 'examples', expected 'passages'"),
        ({"format_version": 99}, "has format version 99"),
        ({"content": None}, "manifest.json is damaged"),
        ({"settings": {"max_wordpieces": "many"}}, "manifest.json is damaged"),
    ],
)
def test_a_folder_with_another_manifest_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), **change})
    with pytest.raises(ArtifactError, match=message):
        PassageStore.open(folder)


def test_a_folder_that_is_missing_or_unfinished_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="found no folder"):
        PassageStore.open(folder / "gone")
    (folder / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        PassageStore.open(folder)


def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer.json.*--rebuild"):
        _ = PassageStore.open(folder).tokenizer


def test_opening_and_reading_a_row_loads_no_text(
    tmp_path: Path, write_jsonl: WriteJsonl, tokenizer: WordpieceTokenizer
) -> None:
    text = ("x" * 120 + " ") * 1_000  # few wordpieces, many characters
    records = ({"id": str(number), "text": text} for number in range(60))
    path = write_jsonl("articles.jsonl", records)
    split([path], tmp_path / "passages", config=SplitConfig(), tokenizer=tokenizer)
    code = (
        "import sys; from pathlib import Path; from realm.corpus.store import PassageStore\n"
        "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * 4\n"
        "before = rss(); store = PassageStore.open(Path(sys.argv[1]))\n"
        "assert len(store.lengths()) == len(store) and store[5].text and store.article_rows(9)\n"
        "sys.exit(rss() - before > 5_000)  # kB\n"
    )
    assert (tmp_path / "passages" / "passages-00000.arrow").stat().st_size > 7_000_000
    environment = {"PYTHONPATH": str(Path(split_module.__file__).parents[2])}
    folder = str(tmp_path / "passages")
    subprocess.run([sys.executable, "-c", code, folder], check=True, env=environment)
