"""A model over passages that do not change: what a question is asked of."""

from dataclasses import dataclass

from realm.answering import Answerer
from realm.library.edition import Edition
from realm.library.results import Answered, PlacedAnswer, PlaceInDocument, found
from realm.records import Answer, AnsweredQuestion, Mention, Passage


@dataclass(frozen=True, slots=True)
class View:
    """What is asked at one moment: a model over passages that do not change."""

    answerer: Answerer
    edition: Edition | None
    """None: a run's own passages."""

    @property
    def snapshot_step(self) -> int:
        """Training step of the parameters that the passages were embedded with."""
        return self.answerer.snapshot.step

    def place(self, passage: Passage, start: int) -> PlaceInDocument:
        """Return where a character of a passage's article stands."""
        if self.edition is None:
            return PlaceInDocument(document=passage.article_id, line=None)
        place = self.edition.place(passage, start)
        return PlaceInDocument(document=place.file, line=place.line)

    def _place_of(self, words: Answer | Mention) -> PlaceInDocument:
        """Return where an answer's first word stands."""
        return self.place(words.passage, words.start)

    def answered(self, record: AnsweredQuestion) -> Answered:
        """Return what the answerer said, with places and the passages read."""
        passages = [self.answerer.store[row] for row in record.read_rows]
        return Answered(
            question=record.question,
            answers=tuple(
                PlacedAnswer.of(
                    answer, self._place_of(answer), [*map(self._place_of, answer.same_text)]
                )
                for answer in record.answers
            ),
            passages=found(
                passages, record.read_probabilities, [self.place(p, p.start) for p in passages]
            ),
            record=record,
        )
