"""Masked sentence + another passage that tells the same: distant supervision from raw text."""

from collections import defaultdict
from dataclasses import dataclass

from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.training.corpus_groups import group_key

COMMON = 200
"""A span that stands in more passages than this says nothing about which of them to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A masked example and the passage to read it with."""

    example: int
    """Row in the example store."""
    origin: int
    row: int
    """Passage that holds the masked span, never the example's own."""


def pair_examples(examples: ExampleStore, store: PassageStore) -> list[Pair]:
    """Return a passage for each masked example for which there is a likely one.

    The passage holds the same salient span, and either has the same title or shares another
    salient span of the same sentence; among several, the one that shares most is taken. A
    passage that holds the very sentence is the example's own and is never taken.
    """
    spans_of: dict[int, set[str]] = defaultdict(set)
    passages_with: dict[str, list[int]] = defaultdict(list)
    beside: dict[tuple[int, str], list[str]] = defaultdict(list)
    strings: list[tuple[int, int, str, str]] = []
    for row in range(len(examples)):
        example = examples[row]
        if example.span_start < 0:
            continue  # random masks: no span that could stand elsewhere
        span = example.sentence[example.span_start : example.span_end].lower()
        strings.append((row, example.origin, span, example.sentence))
        if span not in spans_of[example.origin]:
            spans_of[example.origin].add(span)
            passages_with[span].append(example.origin)
        beside[example.origin, example.sentence].append(span)
    titles = {origin: group_key(store, origin) for origin in spans_of}
    pairs: list[Pair] = []
    for row, origin, span, sentence in strings:
        others = passages_with[span]
        if not 2 <= len(others) <= COMMON:
            continue
        context = [other for other in beside[origin, sentence] if other != span]
        best, best_shared = -1, 0.0
        for other in others:
            if other == origin:
                continue
            shared = sum(s in spans_of[other] for s in context)
            value = shared + 0.5 * (titles[other] == titles[origin])
            if value > best_shared and sentence not in store[other].text:
                best, best_shared = other, value
        if best >= 0:
            pairs.append(Pair(example=row, origin=origin, row=best))
    return pairs
