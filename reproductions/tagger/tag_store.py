"""Tag the passages of a store; print the time and the spans per passage by label.

python reproductions/tagger/tag_store.py PASSAGES --tagger trained --every 3
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import torch
from batching import tell

from realm.corpus.store import PassageStore
from realm.masking.taggers import make_tagger
from realm.records import Skipped

PASSAGES = 256
"""Tagged at a time, as `realm mask` does it."""


def main() -> None:
    """Tag, count, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("passages", type=Path, help="from realm split")
    parser.add_argument("--tagger", default="trained")
    parser.add_argument("--every", type=int, default=1, help="every n-th passage only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = PassageStore.open(options.passages)
    tagger = make_tagger(options.tagger)
    labels: Counter[str] = Counter()
    num_words = num_passages = 0
    seconds = wall = 0.0
    rows = range(0, len(store), options.every)
    for first in range(0, len(rows), PASSAGES):
        passages = [store[row] for row in rows[first : first + PASSAGES]]
        num_passages += len(passages)
        num_words += sum(len(passage.text.split()) for passage in passages)
        started, began = time.process_time(), time.monotonic()
        for spans in tagger.tag(passages, Skipped()):
            labels.update(span.label for span in spans)
        seconds += time.process_time() - started
        wall += time.monotonic() - began
    tell(
        tagger=options.tagger,
        passages=num_passages,
        words=num_words,
        cpu_seconds=round(seconds),
        wall_seconds=round(wall),
        words_per_second=round(num_words / seconds),
        spans_per_passage={k: round(n / num_passages, 2) for k, n in labels.most_common()},
    )


if __name__ == "__main__":
    main()
