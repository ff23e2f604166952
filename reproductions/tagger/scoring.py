"""Exact-span, type-free F1, on characters; and the same for the spans of wanted labels only."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data import Sentence

Span = tuple[int, int, str]


class Score(NamedTuple):
    """Counts of spans."""

    right: int
    found: int
    wanted: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in percent."""
        return 200 * self.right / max(1, self.found + self.wanted)

    @property
    def precision(self) -> float:
        """Percent of the found spans that are right."""
        return 100 * self.right / max(1, self.found)

    @property
    def recall(self) -> float:
        """Percent of the wanted spans that are found."""
        return 100 * self.right / max(1, self.wanted)


def score(
    sentences: Sequence[Sentence], found: Iterable[Sequence[Span]], labels: set[str] | None = None
) -> Score:
    """Return how many spans have exactly the same characters, whatever their label.

    Args:
        sentences: With what is wanted.
        found: Spans of each sentence.
        labels: Found spans with another label are left out, as if not found (None: all count).
    """
    right = num_found = wanted = 0
    for sentence, spans in zip(sentences, found, strict=True):
        gold = {(start, end) for start, end, _ in sentence.spans}
        ours = {(start, end) for start, end, label in spans if labels is None or label in labels}
        right += len(gold & ours)
        num_found += len(ours)
        wanted += len(gold)
    return Score(right, num_found, wanted)


def spans_of(
    words: Sequence[tuple[int, int]], tags: Sequence[int], labels: Sequence[str]
) -> list[Span]:
    """Return the spans of BIO tags; an inside without its beginning begins a span."""
    spans: list[list] = []
    before = 0
    for (start, end), tag in zip(words, tags, strict=True):
        if tag and (tag % 2 == 1 or before not in {tag, tag - 1}):
            spans.append([start, end, labels[(tag - 1) // 2]])
        elif tag:
            spans[-1][1] = end
        before = tag
    return [tuple(span) for span in spans]
