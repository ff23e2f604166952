"""The tagger `trained`: entities by a small network from the package, dates and numbers by rule."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from realm.errors import ConfigError
from realm.masking.dates import find_dates
from realm.masking.overlaps import merge
from realm.masking.quantities import find_quantities
from realm.masking.rules import RULES_VERSION
from realm.masking.trained.features import cut_words, flags_of
from realm.records import Passage, SalientSpan, Skipped
from realm.storage import fingerprint_of

if TYPE_CHECKING:
    from realm.masking.trained.predictor import Predictor

CONVENTIONS = ("wiki", "web", "social")
"""Whose notion of an entity: CrossNER's, on Wikipedia; EWT's; WNUT17's."""
LONGEST = 200
"""Words of a sentence that are read at once; what is behind them is read as another sentence."""
QUOTES = '"“”'


class _Piece(NamedTuple):
    """A sentence, or a part of an endless one."""

    passage: int
    start: int
    """First character in the passage."""
    text: str
    words: list[tuple[int, int]]


class TrainedTagger:
    """Finds PER, LOC, ORG, MISC and TERM spans by network, DATE and QUANTITY spans by rule.

    MISC is any other name: works, events, awards, peoples, stars. TERM is what a field calls its
    things: methods, genres, substances. An entity that holds a date (2008 Summer Olympics) stays
    whole; otherwise dates win over quantities over entities.
    """

    def __init__(self, convention: str = "wiki") -> None:
        """Remember the convention; the weights are read with the first passage.

        Args:
            convention: One of `CONVENTIONS`.

        Raises:
            ConfigError: there is no such convention.
        """
        if convention not in CONVENTIONS:
            raise ConfigError(
                f"found no convention {convention!r} of the trained tagger; "
                f"expected one of {', '.join(CONVENTIONS)}"
            )
        self.name = "trained" if convention == CONVENTIONS[0] else f"trained:{convention}"
        self._convention = convention
        self._predictor: Predictor | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of the version of the rules."""
        from realm.masking.trained.weights import weights_fingerprint

        return fingerprint_of(
            {"tagger": self.name, "weights": weights_fingerprint(), "rules": RULES_VERSION}
        )

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the spans of each passage; nothing is left out.

        Raises:
            ConfigError: the weights are missing or damaged.
        """
        del skipped
        pieces = [piece for i, passage in enumerate(passages) for piece in _cut(i, passage)]
        entities: list[list[SalientSpan]] = [[] for _ in passages]
        tagged = self._load().tag(
            [[piece.text[start:end] for start, end in piece.words] for piece in pieces],
            [flags_of(piece.text, piece.words) for piece in pieces],
        )
        for piece, found in zip(pieces, tagged, strict=True):
            for first, last, label in found:
                start, end = _unquoted(piece.text, piece.words[first][0], piece.words[last][1])
                if start < end:
                    begin = piece.start
                    span = SalientSpan(start=begin + start, end=begin + end, label=label)
                    entities[piece.passage].append(span)
        for passage, spans in zip(passages, entities, strict=True):
            numbers = merge(find_dates(passage.text), find_quantities(passage.text))
            yield merge(_around(spans, numbers), merge(numbers, spans))

    def _load(self) -> "Predictor":
        if self._predictor is None:
            from realm.masking.trained.predictor import Predictor

            self._predictor = Predictor(self._convention)
        return self._predictor


def _cut(number: int, passage: Passage) -> Iterator[_Piece]:
    """Yield the sentences of a passage, endless ones in parts."""
    for start, end in passage.sentences or ((0, len(passage.text)),):
        text = passage.text[start:end]
        words = cut_words(text)
        for first in range(0, len(words), LONGEST):
            part = words[first : first + LONGEST]
            begin = part[0][0] if first else 0
            part = [(a - begin, b - begin) for a, b in part]
            yield _Piece(number, start + begin, text[begin : begin + part[-1][1]], part)


def _unquoted(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the stretch without quotation marks around it, or at one end alone.

    CrossNER has no quotation marks, so the network learned little about them.
    """
    marks = [at for at in range(start, end) if text[at] in QUOTES]
    if len(marks) == 2 and marks == [start, end - 1]:
        return start + 1, end - 1
    if len(marks) % 2 == 1 and marks[0] == start:
        return start + 1, end
    if len(marks) % 2 == 1 and marks[-1] == end - 1:
        return start, end - 1
    return start, end


def _around(entities: list[SalientSpan], numbers: list[SalientSpan]) -> list[SalientSpan]:
    """Return the entities that hold a whole date or quantity and more, and cut none in two."""
    kept: list[SalientSpan] = []
    for entity in entities:
        inside = [n for n in numbers if n.start < entity.end and n.end > entity.start]
        size = entity.end - entity.start
        if inside and all(
            entity.start <= n.start and n.end <= entity.end and n.end - n.start < size
            for n in inside
        ):
            kept.append(entity)
    return kept
