"""Probable spans of the passages read -> distinct strings, each with its best place."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from jaxtyping import Float
from torch import Tensor

from realm.corpus.sentences import whole_characters
from realm.corpus.store import Passages
from realm.records import Answer, Passage


@dataclass(frozen=True, slots=True)
class Gathered:
    """The most probable spans of a question, by string."""

    totals: dict[str, float] = field(default_factory=dict[str, float])
    """Summed probability of each string, in small letters."""
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict[str, tuple[int, int, int]])
    """(passage read, start, end) of its most probable mention."""
    passages: dict[int, Passage] = field(default_factory=dict[int, Passage])
    """The passages read that hold one of the spans."""
    best_of_passage: dict[int, str] = field(default_factory=dict[int, str])
    """Their most probable strings."""

    def answers(
        self, p_passages: Float[Tensor, " passages"], num_answers: int
    ) -> tuple[Answer, ...]:
        """Return the strings with the largest totals, best first.

        Of passages with the same text, as two copies of a file have, the first one read stands for
        all: else each string would name the copy that happens to be more probable.

        Args:
            p_passages: p(z|x) of the passages read.
            num_answers: strings to return.
        """
        ranked = sorted(self.totals, key=lambda key: -self.totals[key])[:num_answers]
        first_of_text: dict[str, int] = {}
        for number in sorted(self.passages):
            first_of_text.setdefault(self.passages[number].text, number)
        answers: list[Answer] = []
        for key in ranked:
            number, start, end = self.places[key]
            number = first_of_text[self.passages[number].text]
            passage = self.passages[number]
            probability = min(1.0, self.totals[key])
            answers.append(
                Answer(
                    text=passage.text[start:end],
                    probability=probability,
                    raw_probability=probability,
                    start=passage.start + start,
                    end=passage.start + end,
                    passage=passage,
                    passage_probability=float(p_passages[number]),
                )
            )
        return tuple(answers)


def gather(
    store: Passages,
    rows: Sequence[int],
    probabilities: Sequence[float],
    spans: Sequence[int],
    *,
    sizes: Sequence[int],
    widths: int,
) -> Gathered:
    """Sum spans with the same string, whatever its case; keep each string's best place.

    Args:
        store: the passages.
        rows: those read.
        probabilities: of the spans, falling; those of 0 count for nothing.
        spans: numbers of the spans among all spans of all passages read: for each start, `widths`.
        sizes: how many spans each passage has.
        widths: longest span in wordpieces.
    """
    found = Gathered()
    bounds = list(accumulate(sizes))
    offsets_of: dict[int, list[tuple[int, int]]] = {}
    for probability, span in zip(probabilities, spans, strict=True):
        if probability <= 0.0:
            break
        number = bisect_right(bounds, span)
        first, width = divmod(span - bounds[number] + sizes[number], widths)
        if number not in found.passages:
            passage = found.passages[number] = store[rows[number]]
            offsets_of[number] = store.tokenizer.encode(passage.text).offsets
        offsets = offsets_of[number]
        text = found.passages[number].text
        start, end = whole_characters(text, offsets[first][0], offsets[first + width][1])
        key = text[start:end].casefold()
        found.totals[key] = found.totals.get(key, 0.0) + probability
        found.places.setdefault(key, (number, start, end))
        found.best_of_passage.setdefault(number, key)
    return found
