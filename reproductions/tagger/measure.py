"""Measure taggers on the test sets and their speed on one core; print a table as JSON lines.

python reproductions/tagger/measure.py NER_FOLDER --plain CORPUS.jsonl.gz rules trained
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from batching import tell
from data import CROSSNER, Sentence, plain_sentences, read_annotated
from scoring import Span, score

from realm.masking.taggers import Tagger, make_tagger
from realm.records import Passage, Skipped

BY_RULE = {"DATE", "QUANTITY"}
"""Labels that no test set annotates."""
TESTS = ["uner_en_ewt", *(f"crossner_{domain}" for domain in CROSSNER), "wnut17"]


def passage(text: str) -> Passage:
    """Return a passage of one sentence."""
    return Passage(
        row=0,
        id="0",
        article_id="0",
        title="",
        text=text,
        start=0,
        end=len(text),
        sentences=((0, len(text)),),
    )


def spans(tagger: Tagger, texts: Sequence[str]) -> list[list[Span]]:
    """Return the spans that the tagger finds in each text."""
    found = tagger.tag([passage(text) for text in texts], Skipped())
    return [[(s.start, s.end, s.label) for s in part] for part in found]


def f1(tagger: Tagger, sentences: Sequence[Sentence], *, narrow: bool) -> dict[str, float]:
    """Return the exact-span, type-free F1, precision and recall, in percent.

    Args:
        tagger: Its dates and quantities are left out.
        sentences: Annotated.
        narrow: The set annotates PER, LOC, ORG only (EWT): spans of MISC and TERM are left out
            too, as far as the tagger tells them apart.
    """
    found = spans(tagger, [sentence.text for sentence in sentences])
    out = BY_RULE | ({"MISC", "TERM"} if narrow else set())
    kept = [[span for span in part if span[2] not in out] for part in found]
    result = score(sentences, kept)
    return {
        "f1": round(result.f1, 1),
        "precision": round(result.precision, 1),
        "recall": round(result.recall, 1),
    }


def words_per_second(tagger: Tagger, texts: Sequence[str], *, repeats: int) -> float:
    """Return the median speed over `repeats` rounds, after one that loads, in processor time."""
    words = sum(len(text.split()) for text in texts)
    spans(tagger, texts[:64])
    speeds: list[float] = []
    for _ in range(repeats):
        started = time.process_time()
        for first in range(0, len(texts), 1024):
            spans(tagger, texts[first : first + 1024])
        speeds.append(words / (time.process_time() - started))
    return statistics.median(speeds)


def main() -> None:
    """Measure each tagger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ner", type=Path)
    parser.add_argument("taggers", nargs="+")
    parser.add_argument("--plain", type=Path, help="articles to measure the speed on")
    parser.add_argument("--part", default="test")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.taggers:
        tagger = make_tagger(name)
        row: dict[str, object] = {"tagger": name}
        for test in TESTS:
            sentences = read_annotated(options.ner, f"{test}.{options.part}")
            row[test] = f1(tagger, sentences, narrow=test.startswith("uner"))
        domains = [row[f"crossner_{domain}"]["f1"] for domain in CROSSNER]
        row["crossner"] = round(statistics.mean(domains), 1)
        if options.plain:
            texts = list(plain_sentences([options.plain], words=60_000, seed=1))
            row["words_per_second"] = round(
                words_per_second(tagger, texts, repeats=options.repeats)
            )
        tell(**row)


if __name__ == "__main__":
    main()
