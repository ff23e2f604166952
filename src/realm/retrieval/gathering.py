"""Probable spans of the passages read -> distinct strings, each with its best place."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from jaxtyping import Float
from torch import Tensor

from realm.corpus.sentences import whole_characters
from realm.corpus.store import Passages
from realm.records import Answer, Mention, Passage


@dataclass(frozen=True, slots=True)
class Gathered:
    """The most probable spans of a question, by string."""

    totals: dict[str, float] = field(default_factory=dict[str, float])
    """Summed probability of each string, in small letters."""
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict[str, tuple[int, int, int]])
    """(passage read, start, end) of its most probable mention."""
    passages: list[Passage] = field(default_factory=list[Passage])
    """All that were read, in that order."""
    copies: list[Passage] = field(default_factory=list[Passage])
    """Those that were not read, as one with the same text was."""
    best_of_passage: dict[int, str] = field(default_factory=dict[int, str])
    """The most probable string of each passage read that holds one of the spans."""

    def answers(
        self, p_passages: Float[Tensor, " passages"], num_answers: int
    ) -> tuple[Answer, ...]:
        """Return the strings with the largest totals, best first.

        A passage stands for all that have the same text, as copies of a file have, and an answer
        names the others. If several were read, the first one does: else each string would name
        the one that happens to be more probable.

        Args:
            p_passages: p(z|x) of the passages read.
            num_answers: strings to return.
        """
        ranked = sorted(self.totals, key=lambda key: -self.totals[key])[:num_answers]
        with_text: dict[str, list[int]] = {}
        found = [*self.passages, *self.copies]
        for number, passage in enumerate(found):
            with_text.setdefault(passage.text, []).append(number)
        answers: list[Answer] = []
        for key in ranked:
            place, start, end = self.places[key]
            number, *others = with_text[found[place].text]
            passage = found[number]
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
                    same_text=tuple(_mention(found[other], start, end) for other in others),
                )
            )
        return tuple(answers)


def _mention(passage: Passage, start: int, end: int) -> Mention:
    """Return a stretch of a passage's text by its place in the article's."""
    return Mention(passage=passage, start=passage.start + start, end=passage.start + end)


def gather(
    store: Passages,
    rows: Sequence[int],
    probabilities: Sequence[float],
    spans: Sequence[int],
    *,
    sizes: Sequence[int],
    widths: int,
    copies: Sequence[int] = (),
) -> Gathered:
    """Sum spans with the same string, whatever its case; keep each string's best place.

    Args:
        store: the passages.
        rows: those read.
        probabilities: of the spans, falling; those of 0 count for nothing.
        spans: numbers of the spans among all spans of all passages read: for each start, `widths`.
        sizes: how many spans each passage has.
        widths: longest span in wordpieces.
        copies: rows that were not read, as one with the same text was.
    """
    found = Gathered(passages=[store[row] for row in rows], copies=[store[row] for row in copies])
    bounds = list(accumulate(sizes))
    offsets_of: dict[int, list[tuple[int, int]]] = {}
    for probability, span in zip(probabilities, spans, strict=True):
        if probability <= 0.0:
            break
        number = bisect_right(bounds, span)
        first, width = divmod(span - bounds[number] + sizes[number], widths)
        text = found.passages[number].text
        if number not in offsets_of:
            offsets_of[number] = store.tokenizer.encode(text).offsets
        offsets = offsets_of[number]
        start, end = whole_characters(text, offsets[first][0], offsets[first + width][1])
        key = text[start:end].casefold()
        found.totals[key] = found.totals.get(key, 0.0) + probability
        found.places.setdefault(key, (number, start, end))
        found.best_of_passage.setdefault(number, key)
    return found
