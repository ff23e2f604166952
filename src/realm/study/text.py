"""A share of a large corpus, the same articles at every run."""

import json
from collections.abc import Sequence
from pathlib import Path

from realm.corpus.articles import read_articles
from realm.errors import CorpusError
from realm.storage import Request, fingerprint, is_done, publish
from realm.training.sampling import is_held_out

ARTICLES = "articles.jsonl"


def share_of_articles(source: Path, out: Path, *, share: float, drop_titles: Sequence[str]) -> Path:
    """Write the articles whose id's hash is below `share` to a folder; return its file.

    Args:
        source: articles in any form that `read_articles` reads.
        out: folder to publish.
        share: above 0, at most 1.
        drop_titles: beginnings of titles that are left out.

    Raises:
        CorpusError: the source cannot be read, or no article is left.
        ArtifactError: the folder holds another share, or another source.
    """
    settings = {"share": share, "drop_titles": list(drop_titles)}
    request = Request(kind="articles", settings=settings, inputs={"source": fingerprint(source)})
    if is_done(out, request, rebuild=False):
        return out / ARTICLES
    kept = 0
    with (
        publish(out, request) as scratch,
        (scratch / ARTICLES).open("w", encoding="utf-8") as stream,
    ):
        for article in read_articles([source], drop_titles=drop_titles):
            if is_held_out(article.id, share):
                kept += 1
                line = {"id": article.id, "title": article.title, "text": article.text}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not kept:
            raise CorpusError(f"{source}: no article is in a share of {share}; take a larger one")
    return out / ARTICLES
