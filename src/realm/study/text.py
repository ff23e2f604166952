"""The part of a large corpus that is worth reading, the same articles at every run."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from realm.corpus.articles import read_articles
from realm.errors import CorpusError
from realm.storage import Request, fingerprint, fingerprint_of, is_done, publish
from realm.training.sampling import is_held_out

ARTICLES = "articles.jsonl"


def choose_articles(
    source: Path,
    out: Path,
    *,
    share: float,
    titles: Collection[str] | None,
    drop_titles: Sequence[str],
) -> Path:
    """Write the articles whose id's hash is below `share` to a folder; return its file.

    Args:
        source: articles in any form that `read_articles` reads.
        out: folder to publish.
        share: above 0, at most 1.
        titles: only articles with one of these titles; None: with any.
        drop_titles: beginnings of titles that are left out.

    Raises:
        CorpusError: the source cannot be read, or no article is left.
        ArtifactError: the folder holds another share, or another source.
    """
    request = Request(
        kind="articles",
        settings={"share": share, "drop_titles": list(drop_titles)},
        inputs={
            "source": fingerprint(source),
            "titles": fingerprint_of(None if titles is None else sorted(titles)),
        },
    )
    if is_done(out, request, rebuild=False):
        return out / ARTICLES
    kept = 0
    with (
        publish(out, request) as scratch,
        (scratch / ARTICLES).open("w", encoding="utf-8") as stream,
    ):
        for article in read_articles([source], drop_titles=drop_titles):
            if is_held_out(article.id, share) and (titles is None or article.title in titles):
                kept += 1
                line = {"id": article.id, "title": article.title, "text": article.text}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not kept:
            raise CorpusError(
                f"{source}: found no article in a share of {share}"
                f"{'' if titles is None else ' with a title that Z has, too'}; expected at least "
                "one. Set study.also_share=1 and study.also_titles='any'"
            )
    return out / ARTICLES
