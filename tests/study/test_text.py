"""What is read of a large corpus: a share of it, or what tells of the same things."""

import json
from pathlib import Path

import pytest

from realm.errors import ArtifactError, CorpusError
from realm.study.text import choose_articles


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"id": f"a{number}", "title": f"T{number}", "text": f"The text {number}."})
        for number in range(200)
    ]
    file = tmp_path / "articles.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def chosen(file: Path) -> list[str]:
    return [json.loads(line)["title"] for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_smaller_share_is_a_part_of_a_larger_one(source: Path, tmp_path: Path) -> None:
    few, many, everything = (
        chosen(
            choose_articles(source, tmp_path / f"{share}", share=share, titles=None, drop_titles=())
        )
        for share in (0.1, 0.5, 1.0)
    )
    assert set(few) < set(many) < set(everything)
    assert 5 < len(few) < 40
    assert len(everything) == 200


def test_only_shared_titles_are_taken(source: Path, tmp_path: Path) -> None:
    titles = {"T3", "T4", "elsewhere"}
    file = choose_articles(source, tmp_path / "out", share=1.0, titles=titles, drop_titles=())
    assert chosen(file) == ["T3", "T4"]
    with pytest.raises(ArtifactError):
        choose_articles(source, tmp_path / "out", share=1.0, titles={"T5"}, drop_titles=())


def test_nothing_left_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="with a title that Z has, too"):
        choose_articles(source, tmp_path / "out", share=1.0, titles={"none"}, drop_titles=())
    assert not (tmp_path / "out").exists()
