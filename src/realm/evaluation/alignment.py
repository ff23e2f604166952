"""How well an alignment agrees with what is known: articles of the same title, beside BM25.

Two encyclopedias tell of the same things under the same titles. A sentence of one is aligned well
when its first passage belongs to the other's article of that title, of which training knew nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, CorpusError
from realm.evaluation.metrics import Interval, wilson_interval
from realm.evaluation.recall import Finds
from realm.readable import counted
from realm.records import Progress
from realm.retrieval.candidates import overlaps
from realm.storage import lines_manifest, read_lines

DEPTH = 20
"""Passages that BM25 returns, of which a sentence's own are left out."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often the first passages are of the right article."""

    num_sentences: int
    """Sentences whose article has one of the same title in Z."""
    num_aligned: int
    """Those of them that some passage helps."""
    by_chance: float
    """Mean share of Z's passages that are of the right article."""
    all_sentences: dict[str, Interval]
    """Way to choose -> share of the sentences whose first passage is of the right article."""
    aligned_sentences: dict[str, Interval]
    """The same among those that some passage helps; empty if there are none."""

    def markdown(self) -> str:
        """Return a table, in percent."""
        lines = [
            f"| first passage by | all {counted(self.num_sentences, 'sentence')} | the "
            f"{self.num_aligned:,} that a passage helps |",
            "|---|---|---|",
        ]
        for name, found in self.all_sentences.items():
            other = self.aligned_sentences.get(name)
            lines.append(f"| {name} | {_told(found)} | {_told(other) if other else ''} |")
        lines.append(f"| chance | {100 * self.by_chance:.1f} | |")
        return "\n".join([*lines, ""])


def read_alignment(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """Return an alignment's manifest and its lines.

    Raises:
        ArtifactError: the file is missing, unfinished or damaged.
    """
    if not path.is_file():
        raise ArtifactError(f"found no file {path}, expected one of realm align")
    if not (manifest := lines_manifest(path)).is_file():
        raise ArtifactError(
            f"{manifest} is missing, which stands beside every finished file of realm align; name "
            "such a file, or run realm align again"
        )
    return read_lines(path)


def title_agreement(
    pairs: Path,
    articles: PassageStore,
    store: PassageStore,
    lexical: Finds,
    *,
    progress: Progress | None = None,
) -> Agreement:
    """Return how often the first passage belongs to the article of the sentence's own title.

    Compared: the passage of most utility; the one that the retriever alone puts first; BM25's
    first for the whole sentence, and for the sentence without its masked spans, where it is known
    which words they are (not with random masks). A sentence that no passage helps counts as wrong
    for utility. None may choose a sentence's own passage.

    Args:
        pairs: what `realm align` wrote.
        articles: the passages X that were masked.
        store: the passages Z.
        lexical: BM25 over Z.
        progress: called with (sentences done, sentences).

    Raises:
        ArtifactError: the file is missing, unfinished, or was made from other passages, of Z or X.
        CorpusError: no title of X is one of Z.
    """
    manifest, lines = read_alignment(pairs)
    if manifest["inputs"]["passages"] != store.fingerprint:
        raise ArtifactError(f"{pairs} was made from other passages than {store.folder}")
    _check_articles(lines, articles, pairs)
    rows_of: dict[str, int] = {}
    for row in range(len(store)):
        rows_of[store.title(row)] = rows_of.get(store.title(row), 0) + 1
    known = [line for line in lines if articles.title(line["origin"]) in rows_of]
    if not known:
        raise CorpusError(
            f"no sentence of {pairs} is from an article that {store.folder} has under the same "
            "title; expected two corpora that share titles"
        )
    limit = float(manifest["settings"]["overlap_limit"])
    has_spans = all(span["start"] >= 0 for line in known for span in line["spans"])
    hits: list[dict[str, bool]] = []
    for line in known:
        wanted = articles.title(line["origin"])
        is_own = _own_passages(line, articles, store, limit)
        chosen = {
            "utility": line["passages"][0]["row"] if line["passages"] else None,
            "the retriever alone": store.row_of(line["nearest"]) if line["nearest"] else None,
            "BM25, whole sentence": _first(lexical, line["text"], is_own),
        }
        if has_spans:
            way = "BM25, without the masked words"
            chosen[way] = _first(lexical, without_spans(line), is_own)
        hits.append(
            {n: row is not None and store.title(row) == wanted for n, row in chosen.items()}
        )
        if progress is not None:
            progress(len(hits), len(known))
    is_aligned = [bool(line["passages"]) for line in known]
    return Agreement(
        num_sentences=len(known),
        num_aligned=sum(is_aligned),
        by_chance=sum(rows_of[articles.title(line["origin"])] for line in known)
        / (len(known) * len(store)),
        all_sentences=_intervals(hits),
        aligned_sentences=_intervals(
            [hit for hit, aligned in zip(hits, is_aligned, strict=True) if aligned]
        ),
    )


def _check_articles(lines: Sequence[Line], articles: PassageStore, pairs: Path) -> None:
    """Refuse other passages X than those whose sentences were aligned."""
    for line in lines:
        row, wanted = line["origin"], line["article_id"]
        found = articles.article_id(row) if row < len(articles) else "no such passage"
        if found != wanted:
            raise ArtifactError(
                f"{pairs} was made from other sentences than those of {articles.folder}: expected "
                f"its passage {row:,} to be of article {wanted!r}, found {found!r}; give the "
                "passages X that were masked"
            )


def without_spans(line: Line) -> str:
    """Return a sentence without the words that were masked in it."""
    text = list(line["text"])
    for span in line["spans"]:
        text[span["start"] : span["end"]] = " " * (span["end"] - span["start"])
    return " ".join("".join(text).split())


def _own_passages(
    line: Line, articles: PassageStore, store: PassageStore, limit: float
) -> Callable[[int], bool]:
    """Return row -> whether the passage counts as the sentence's own, as `CandidateFinder` does."""
    pieces = np.array(store.tokenizer.encode(line["text"]).ids, dtype=np.int64)
    sha256 = articles.sha256(line["origin"])

    def is_own(row: int) -> bool:
        (share,) = overlaps(pieces, [store.wordpieces(row)], store.tokenizer.vocab_size)
        return store.sha256(row) == sha256 or bool(share >= limit)

    return is_own


def _first(lexical: Finds, text: str, is_own: Callable[[int], bool]) -> int | None:
    ((rows, _),) = lexical.retrieve([text], DEPTH)
    return next((row for row in rows if not is_own(row)), None)


def _intervals(hits: Sequence[dict[str, bool]]) -> dict[str, Interval]:
    if not hits:
        return {}
    return {name: wilson_interval(sum(hit[name] for hit in hits), len(hits)) for name in hits[0]}


def _told(found: Interval) -> str:
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
