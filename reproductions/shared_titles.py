"""Keep the articles of one corpus whose title others have, too: X for an alignment.

    PYTHONPATH=src python reproductions/shared_titles.py X.jsonl.gz Z.jsonl.gz... X_shared.jsonl

Of 192,073 articles of Simple English Wikipedia, 535 have a title that the sample of the English one
has, lists left out as `realm split` leaves them out.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from realm.corpus.articles import read_articles
from realm.errors import RealmError


def main(arguments: list[str] | None = None) -> int:
    """Write the articles, and say how many."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("articles", type=Path, help="what is kept in part")
    parser.add_argument("others", type=Path, nargs="+", help="whose titles decide")
    parser.add_argument("out", type=Path, help="JSONL file to write")
    told = parser.parse_args(arguments)
    try:
        titles = {one.title for one in read_articles(told.others)}
        kept = [one for one in read_articles([told.articles]) if one.title in titles]
    except RealmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    lines = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in kept)
    told.out.write_text(lines, encoding="utf-8")
    sys.stdout.write(f"{len(kept):,} articles, {len({one.title for one in kept}):,} titles\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
