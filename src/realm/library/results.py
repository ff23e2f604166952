"""What a Realm returns: answers and passages with their places, as text, HTML and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from realm.answering import answered_as_json
from realm.library.showing import answered_as_html, answered_as_text, hits_as_html, hits_as_text
from realm.records import Answer, AnsweredQuestion, Mention, Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceInDocument:
    """Where words stand."""

    document: str
    """Id of the document; where a run's own passages are asked, of the article."""
    line: int | None
    """From 1; None: nobody knows, as with a run's own passages."""

    def __str__(self) -> str:
        return self.document if self.line is None else f"{self.document}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedMention:
    """Words of an answer where they stand in another passage, and where that is."""

    start: int
    """First character in the document's text (in a record of JSON lines: the record's)."""
    end: int
    passage: Passage
    place: PlaceInDocument

    @classmethod
    def of(cls, mention: Mention, place: PlaceInDocument) -> "PlacedMention":
        """Return a mention with its place."""
        return cls(start=mention.start, end=mention.end, passage=mention.passage, place=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedAnswer:
    """One answer with its evidence and where it stands."""

    text: str
    probability: float
    """See `realm.records.Answer`."""
    raw_probability: float | None
    start: int
    """First character in the document's text (in a record of JSON lines: the record's)."""
    end: int
    passage: Passage
    passage_probability: float
    """p(z|x) over the passages that were read."""
    place: PlaceInDocument
    same_text: tuple[PlacedMention, ...] = ()
    """Where the same words stand in other passages found with the same text: copies of the
    document, a text that documents repeat."""

    @classmethod
    def of(
        cls, answer: Answer, place: PlaceInDocument, same_text: Sequence[PlaceInDocument] = ()
    ) -> "PlacedAnswer":
        """Return an answer with its places.

        Args:
            answer: what the answerer said.
            place: of its first word.
            same_text: of the first word of each of its `same_text`.
        """
        return cls(
            text=answer.text,
            probability=answer.probability,
            raw_probability=answer.raw_probability,
            start=answer.start,
            end=answer.end,
            passage=answer.passage,
            passage_probability=answer.passage_probability,
            place=place,
            same_text=tuple(
                PlacedMention.of(mention, where)
                for mention, where in zip(answer.same_text, same_text, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPassage:
    """A passage that was found for a question."""

    passage: Passage
    probability: float
    """p(z|x) over the passages that were found with it."""
    place: PlaceInDocument
    """Of its first character."""
    score: float | None = None
    """The retriever's, on its own scale; None: not told."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answered:
    """What a Realm says to one question; shows itself with its evidence, also in a notebook."""

    question: str
    answers: tuple[PlacedAnswer, ...]
    """Best first, whether or not the best is said."""
    passages: tuple[ReadPassage, ...]
    """All that were read, best first."""
    record: AnsweredQuestion = field(repr=False)
    """What the answerer said."""

    @property
    def best(self) -> PlacedAnswer | None:
        """The answer to say; None: "no answer"."""
        return None if self.record.is_refused else self.answers[0]

    @property
    def text(self) -> str | None:
        """The answer to say, as it stands in the document; None: "no answer"."""
        return self.best.text if self.best else None

    @property
    def probability(self) -> float | None:
        """Of the best answer, said or not; None: nothing was found."""
        return self.answers[0].probability if self.answers else None

    @property
    def is_calibrated(self) -> bool:
        """Whether probabilities say how often such an answer is right."""
        return self.record.is_calibrated

    @property
    def why_inexact(self) -> str | None:
        """Why calibrated probabilities may be off: another number of passages was read."""
        return self.record.why_inexact

    @property
    def min_probability(self) -> float:
        """Below it the best answer is not said."""
        return self.record.min_probability

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON: `answered_as_json` with probabilities, places, and passages read."""
        told = answered_as_json(self.record)
        told["probability"] = self.probability
        for entry, answer in zip(told["answers"], self.answers, strict=True):
            entries, mentions = [entry, *entry["same_text"]], [answer, *answer.same_text]
            for one, mention in zip(entries, mentions, strict=True):
                one |= {**asdict(mention.place), "file": mention.place.document}
        told["passages"] = [
            {**one.passage.as_json(), "probability": one.probability, **asdict(one.place)}
            for one in self.passages
        ]
        return told

    def __repr__(self) -> str:
        return answered_as_text(self.question, self.text, self.answers, self.min_probability)

    def _repr_html_(self) -> str:
        return answered_as_html(
            self.question, self.text, self.answers, self.passages, self.min_probability
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SearchResult:
    """The passages that a query finds; shows itself, also in a notebook."""

    query: str
    hits: tuple[ReadPassage, ...]
    """Best first."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "query": self.query,
            "hits": [
                {
                    "score": hit.score,
                    "probability": hit.probability,
                    **asdict(hit.place),
                    "passage": hit.passage.as_json(),
                }
                for hit in self.hits
            ],
        }

    def __repr__(self) -> str:
        return hits_as_text(self.query, self.hits)

    def _repr_html_(self) -> str:
        return hits_as_html(self.query, self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[ReadPassage]:
        return iter(self.hits)

    def __getitem__(self, rank: int) -> ReadPassage:
        return self.hits[rank]


def found(
    passages: Sequence[Passage],
    probabilities: Sequence[float],
    places: Sequence[PlaceInDocument],
    scores: Sequence[float] | None = None,
) -> tuple[ReadPassage, ...]:
    """Return passages with what is known of each."""
    told: Sequence[float | None] = scores if scores is not None else [None] * len(passages)
    return tuple(
        ReadPassage(passage=passage, probability=probability, place=place, score=score)
        for passage, probability, place, score in zip(
            passages, probabilities, places, told, strict=True
        )
    )
