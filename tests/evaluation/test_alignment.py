"""Agreement of an alignment with article titles, counted by hand."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, CorpusError
from realm.evaluation.alignment import read_alignment, title_agreement, without_spans
from realm.evaluation.recall import Finds
from realm.storage import lines_manifest

Make = Callable[..., Any]

Z_ARTICLES = (
    ("Fermat", "Fermat lived as a lawyer in Toulouse."),
    ("Euler", "Euler wanted to become a teacher."),
    ("Euler", "A street in Basel is named after Euler."),
    ("Gauss", "Everybody still knows Gauss."),
)
X_ARTICLES = (
    ("Fermat", "Fermat wanted a prize for number theory."),
    ("Euler", "Euler was born in the old town of Basel."),
    ("Noether", "Noether changed ring theory for ever."),
)


class Lexical:
    """Finds what it is told to, and keeps what it was asked."""

    def __init__(self, *rows: int) -> None:
        self.rows = list(rows)
        self.asked: list[str] = []

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        assert k > 1
        self.asked += questions
        return [(self.rows, [0.0] * len(self.rows)) for _ in questions]


def stored(make_store: Make, articles: Sequence[tuple[str, str]]) -> PassageStore:
    """Split articles, one passage each."""
    told = [{"id": f"a{n}", "title": t, "text": text} for n, (t, text) in enumerate(articles)]
    store = make_store(told)
    assert len(store) == len(articles)
    return store


@pytest.fixture
def z(make_store: Make) -> PassageStore:
    return stored(make_store, Z_ARTICLES)


@pytest.fixture
def x(make_store: Make) -> PassageStore:
    return stored(make_store, X_ARTICLES)


@pytest.fixture
def write(z: PassageStore, x: PassageStore, tmp_path: Path) -> Callable[..., Path]:
    """Write an alignment: for each sentence of X its passages and the nearest one."""

    def write(*found: tuple[list[int], str], passages: str | None = None) -> Path:
        path = tmp_path / "pairs.jsonl"
        lines = [
            {
                "text": x[origin].text,
                "origin": origin,
                "article_id": x[origin].article_id,
                "spans": [{"start": 0, "end": x[origin].text.index(" ")}],
                "passages": [{"row": row} for row in rows],
                "nearest": nearest,
            }
            for origin, (rows, nearest) in enumerate(found)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        manifest = {
            "inputs": {"passages": passages or z.fingerprint},
            "settings": {"overlap_limit": 0.6},
        }
        lines_manifest(path).write_text(json.dumps(manifest))
        return path

    return write


def test_the_first_passage_counts_when_its_title_is_that_of_the_sentence(
    write: Callable[..., Path], z: PassageStore, x: PassageStore
) -> None:
    """Fermat: right by utility; Euler: nothing helps, the nearest is right; Noether: not in Z."""
    pairs = write(([0, 1], z[3].id), ([], z[2].id), ([1], z[1].id))
    lexical, calls = Lexical(1, 0), list[tuple[int, int]]()
    assert isinstance(lexical, Finds)
    found = title_agreement(pairs, x, z, lexical, progress=lambda *done: calls.append(done))
    assert (found.num_sentences, found.num_aligned) == (2, 1)
    assert {name: interval.mean for name, interval in found.all_sentences.items()} == {
        "utility": 0.5,
        "the retriever alone": 0.5,
        "BM25, whole sentence": 0.5,
        "BM25, without the masked words": 0.5,
    }
    assert {name: interval.mean for name, interval in found.aligned_sentences.items()} == {
        "utility": 1.0,
        "the retriever alone": 0.0,
        "BM25, whole sentence": 0.0,
        "BM25, without the masked words": 0.0,
    }
    assert found.by_chance == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert calls == [(1, 2), (2, 2)]
    assert lexical.asked[:2] == [X_ARTICLES[0][1], X_ARTICLES[0][1].removeprefix("Fermat ")]
    lines = found.markdown().splitlines()
    assert lines[0] == "| first passage by | all 2 sentences | the 1 that a passage helps |"
    assert lines[2].startswith("| utility | 50.0 (9.5 to 90.5) | 100.0 (20.7 to 100.0) |")
    assert lines[-1] == "| chance | 37.5 | |"


def test_random_masks_leave_no_sentence_without_them(
    write: Callable[..., Path], z: PassageStore, x: PassageStore
) -> None:
    """Nobody knows which words they are: BM25 was asked the whole sentence under that name."""
    pairs = write(([0, 1], z[3].id), ([], z[2].id))
    told = [json.loads(line) for line in pairs.read_text().splitlines()]
    told[1]["spans"] = [{"start": -1, "end": -1}]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in told))
    lexical = Lexical(1, 0)
    found = title_agreement(pairs, x, z, lexical)
    assert list(found.all_sentences)[2:] == ["BM25, whole sentence"]
    assert lexical.asked == [X_ARTICLES[0][1], X_ARTICLES[1][1]]


def test_bm25_may_not_choose_the_sentences_own_passage(
    write: Callable[..., Path], x: PassageStore, make_store: Make
) -> None:
    """By identity, or because it holds the sentence; then the next one is taken."""
    fermat = X_ARTICLES[0]
    both = stored(
        make_store, [fermat, ("Euler", f"{fermat[1]} And more."), ("Fermat", "Of numbers.")]
    )
    pairs = write(([], ""), passages=both.fingerprint)
    found = title_agreement(pairs, x, both, Lexical(1, 0, 2))
    assert found.all_sentences["BM25, whole sentence"].mean == 1.0
    found = title_agreement(pairs, x, both, Lexical(0, 1))
    assert found.all_sentences["BM25, whole sentence"].mean == 0.0
    assert found.aligned_sentences == {}


def test_other_passages_x_than_those_aligned_are_refused(
    write: Callable[..., Path], z: PassageStore, x: PassageStore, make_store: Make
) -> None:
    pairs = write(([0], ""), ([1], ""), ([], ""))
    fewer = stored(make_store, X_ARTICLES[:2])
    with pytest.raises(ArtifactError, match=r"passage 2 to be of article 'a2', found 'no such"):
        title_agreement(pairs, fewer, z, Lexical(0))
    pairs.write_text(pairs.read_text().replace('"article_id": "a1"', '"article_id": "b"'))
    with pytest.raises(ArtifactError, match=r"passage 1 to be of article 'b', found 'a1'"):
        title_agreement(pairs, x, z, Lexical(0))


def test_masked_words_are_cut_out() -> None:
    line = {"text": "In 1607 Fermat was born.", "spans": [{"start": 3, "end": 7}]}
    assert without_spans(line) == "In Fermat was born."
    line["spans"] += [{"start": 8, "end": 14}, {"start": -1, "end": -1}]
    assert without_spans(line) == "In was born."


def test_what_does_not_fit_is_told(
    write: Callable[..., Path], z: PassageStore, x: PassageStore, tmp_path: Path
) -> None:
    pairs = write(([], ""))
    with pytest.raises(ArtifactError, match="made from other passages"):
        title_agreement(pairs, x, x, Lexical())
    with pytest.raises(CorpusError, match="under the same title"):
        noether = pairs.read_text().replace('"origin": 0', '"origin": 2')
        pairs.write_text(noether.replace('"article_id": "a0"', '"article_id": "a2"'))
        title_agreement(pairs, x, z, Lexical())
    lines_manifest(pairs).unlink()
    with pytest.raises(ArtifactError, match="is missing, which stands beside every finished file"):
        read_alignment(pairs)
    with pytest.raises(ArtifactError, match="found no file"):
        read_alignment(tmp_path / "gone.jsonl")
