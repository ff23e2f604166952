"""The lexical baseline finds what shares words, the same each time, from a cache that heals."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.records import Passage
from realm.retrieval import bm25
from realm.retrieval.bm25 import Bm25Retriever

ARTICLES = [
    ("Emma", "A novel by Jane Austen about youthful hubris."),
    ("Fermat", "Fermat primes are 3, 5, 17, 257 and 65537."),
    ("Zürich", "The largest city of Switzerland; its cities and lakes."),
    ("Emma", "A novel by Jane Austen about youthful hubris."),
    ("Glasses", "Spectacles, lenses in a frame."),
]


class FakePassages:
    """Passages in a list that counts how often it is read."""

    fingerprint = "f1"

    def __init__(self, articles: list[tuple[str, str]] | None = None) -> None:
        self.articles = ARTICLES if articles is None else articles
        self.reads = 0

    def __len__(self) -> int:
        return len(self.articles)

    def __iter__(self) -> Iterator[Passage]:
        self.reads += 1
        for row, (title, text) in enumerate(self.articles):
            yield Passage(
                row=row,
                id=f"{row}#0",
                article_id=f"{row}",
                title=title,
                text=text,
                start=0,
                end=len(text),
                sentences=((0, len(text)),),
            )


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("which primes are named after FERMAT?", [1]),
        ("lakes in Zu\u0308rich", [2, 4]),
        ("who is Austen", [0, 3]),  # equal scores in row order
        ("one lens or many lenses", [4]),
        ("prime", [1]),  # plural and singular are one word
        ("city", [2]),
        ("us, a bus or glass", [4, 0, 3]),  # no plural: only "a" is found
        ("zurich", [2]),  # with and without accents are one word
        ("quantum chromodynamics", []),
        ("?!", []),
        ("", []),
    ],
)
def test_passages_that_share_words_come_best_first(question: str, rows: list[int]) -> None:
    [(found, scores)] = Bm25Retriever.open(FakePassages()).retrieve([question], 5)
    assert found == rows
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_titles_are_searched_too() -> None:
    [(rows, _)] = Bm25Retriever.open(FakePassages()).retrieve(["Emma"], 5)
    assert rows == [0, 3]


def test_at_most_k_rows_come_back_and_ties_fall_to_the_first_row() -> None:
    retriever = Bm25Retriever.open(FakePassages())
    assert [rows for rows, _ in retriever.retrieve(["novel", "a novel"], 1)] == [[0], [0]]
    assert retriever.retrieve(["novel"], 0) == [([], [])]
    assert retriever.retrieve([], 5) == []


def test_a_score_is_lucenes_bm25() -> None:
    texts = [("", "x y"), ("", "y y y z"), ("", "z z")]
    [(rows, scores)] = Bm25Retriever.open(FakePassages(texts), k1=0.9, b=0.4).retrieve(["x"], 3)
    idf = 0.9808292530117262  # ln(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 1 / (1 + 0.9 * (1 - 0.4 + 0.4 * 2 / (8 / 3)))
    assert rows == [0]
    assert scores == pytest.approx([expected], rel=1e-5)


def test_a_cached_index_is_loaded_and_finds_the_same(tmp_path: Path) -> None:
    first = Bm25Retriever.open(FakePassages(), cache=tmp_path)
    passages = FakePassages()
    again = Bm25Retriever.open(passages, cache=tmp_path)
    assert passages.reads == 0
    questions = ["Jane Austen", "Fermat primes", "nothing"]
    assert again.retrieve(questions, 5) == first.retrieve(questions, 5)


def test_no_pickle_is_written(tmp_path: Path) -> None:
    Bm25Retriever.open(FakePassages(), cache=tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".npy", ".json"}


def test_other_passages_or_settings_build_another_index(tmp_path: Path) -> None:
    Bm25Retriever.open(FakePassages(), cache=tmp_path)
    other = FakePassages([("", "other words")])
    other.fingerprint = "f2"
    found = Bm25Retriever.open(other, cache=tmp_path).retrieve(["other"], 5)
    assert found[0][0] == [0]
    Bm25Retriever.open(FakePassages(), cache=tmp_path, k1=1.2)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "unfinished"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str) -> None:
    first = Bm25Retriever.open(FakePassages(), cache=tmp_path)
    [folder] = tmp_path.iterdir()
    if damage == "cut":
        (folder / "data.csc.index.npy").write_bytes(b"")
    elif damage == "changed":
        vocabulary = json.loads((folder / "vocab.index.json").read_text())
        (folder / "vocab.index.json").write_text(json.dumps(dict.fromkeys(vocabulary, 0)))
    else:
        (folder / "manifest.json").unlink()
    passages = FakePassages()
    again = Bm25Retriever.open(passages, cache=tmp_path)
    assert passages.reads > 0
    assert again.retrieve(["Jane Austen"], 5) == first.retrieve(["Jane Austen"], 5)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    with pytest.raises(ArtifactError, match="cannot make"):
        Bm25Retriever.open(FakePassages(), cache=tmp_path / "cache")


def test_progress_counts_rows() -> None:
    told: list[tuple[int, int]] = []
    Bm25Retriever.open(FakePassages(), progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 5)]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Bm25Retriever.open(FakePassages(), cache=tmp_path).retrieve(["novel"], 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("articles", [[], [("", "?!"), ("", "")]])
def test_passages_without_a_word_are_told(articles: list[tuple[str, str]]) -> None:
    with pytest.raises(CorpusError, match=rf"no word in {len(articles)} passages"):
        Bm25Retriever.open(FakePassages(articles))


@pytest.mark.parametrize(("k1", "b"), [(-1.0, 0.4), (0.9, 1.5), (0.9, -0.1)])
def test_impossible_settings_are_told(k1: float, b: float) -> None:
    with pytest.raises(ConfigError, match="expected k1 >= 0"):
        Bm25Retriever.open(FakePassages(), k1=k1, b=b)


def test_without_the_library_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ConfigError, match=r"pip install bm25s"):
        Bm25Retriever.open(FakePassages())


def test_what_another_process_has_built_meanwhile_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = bm25.locked
    other = FakePassages()

    @contextmanager
    def after_another(folder: Path, *, wait_seconds: float) -> Iterator[None]:
        monkeypatch.setattr(bm25, "locked", real)
        Bm25Retriever.open(other, cache=tmp_path)
        with real(folder, wait_seconds=wait_seconds):
            yield

    monkeypatch.setattr(bm25, "locked", after_another)
    mine = FakePassages()
    Bm25Retriever.open(mine, cache=tmp_path)
    assert (other.reads, mine.reads) == (1, 0)
