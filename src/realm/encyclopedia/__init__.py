"""A small encyclopedia: short articles and questions about them, to learn from and to measure on.

The texts are written in the project's own words and dedicated to the public domain (CC0 1.0, see
LICENSE-CC0.txt). Most facts are told in two or more articles, each time in different words, so a
masked sentence of one article can be filled in by retrieving another: what REALM needs of a corpus.
README.md describes the files. They need no network, no other file and no parser but json.
"""

import json
from collections.abc import Collection
from pathlib import Path

from realm.records import Split

_HERE = Path(__file__).parent


def articles_file() -> Path:
    """Return the articles, sorted by id: JSON lines with `id`, `title`, `text` and `links`."""
    return _HERE / "articles.jsonl"


def questions_file(split: Split) -> Path:
    """Return the questions of one split; all questions of an article are in the same split.

    Lines hold `id`, `question`, `answers`, `article_id`, `passage_id` (the same), `answer_start`
    (offset of `answers[0]` in the article's text) and `also_in` (other articles with this fact).

    Args:
        split: "train" to learn from, "test" to measure on.
    """
    return _HERE / f"questions.{split}.jsonl"


def write_texts(folder: Path, article_ids: Collection[str]) -> None:
    """Write some articles as a folder of markdown files, as somebody might keep their own notes.

    Args:
        folder: made where it is not there; a file that stands there is written again.
        article_ids: of the articles; those that there are not are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for line in articles_file().read_text(encoding="utf-8").splitlines():
        article = json.loads(line)
        if article["id"] in article_ids:
            text = f"# {article['title']}\n\n{article['text']}\n"
            (folder / f"{article['id']}.md").write_text(text, encoding="utf-8")
