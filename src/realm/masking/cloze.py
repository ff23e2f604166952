"""A user's own cloze sentence: `[MASK]` marks in a text become blanks to fill."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from realm.errors import MaskingError
from realm.masking.spans import MaskedPieces
from realm.readable import counted
from realm.tokenizer import WordpieceTokenizer

BLANK = re.compile(r"\[MASK\](?:\s*\[MASK\])*")
"""One mark, or several side by side: one blank."""
EXAMPLE = '"3 is a [MASK] prime."'


@dataclass(frozen=True, slots=True)
class Cloze:
    """A sentence with blanks; how many [MASK] wordpieces each takes is decided by the answer."""

    text: str
    pieces: tuple[tuple[int, ...], ...]
    """Wordpieces before, between and after the blanks: one more than there are blanks."""
    num_marks: tuple[int, ...]
    """Marks written side by side in each blank."""
    tokenizer: WordpieceTokenizer
    query_wordpieces: int
    """Longest query, [CLS] and [SEP] included."""

    @property
    def num_blanks(self) -> int:
        """How many blanks there are."""
        return len(self.num_marks)

    def with_answers(self, answers: Sequence[str]) -> MaskedPieces:
        """Return the query with one [MASK] per wordpiece of the answers, and the answers' ids.

        Args:
            answers: One for each blank, in order.

        Raises:
            MaskingError: more or fewer answers than blanks, an empty answer, or a query that
                is too long.
        """
        if len(answers) != self.num_blanks:
            raise MaskingError(
                f"found {counted(len(answers), 'answer')} for {counted(self.num_blanks, 'blank')} "
                f"in {self.text!r}; "
                "expected one for each blank ([MASK] marks side by side are one blank)"
            )
        filled = [tuple(self.tokenizer.encode(answer).ids) for answer in answers]
        for answer, ids in zip(answers, filled, strict=True):
            if not ids:
                raise MaskingError(f"found answer {answer!r}, expected at least one word")
        return self._fill(filled)

    def with_masks(self, num_masks: Sequence[int] | None = None) -> MaskedPieces:
        """Return the query with so many [MASK] in each blank; the targets are [MASK] as well.

        Args:
            num_masks: For each blank; None: as many as were written.

        Raises:
            MaskingError: more or fewer numbers than blanks, a number below 1, or a query that
                is too long.
        """
        numbers = self.num_marks if num_masks is None else tuple(num_masks)
        if len(numbers) != self.num_blanks or min(numbers) < 1:
            raise MaskingError(
                f"found numbers of masks {list(numbers)} for {counted(self.num_blanks, 'blank')}; "
                "expected one for each blank, at least 1"
            )
        return self._fill([(self.tokenizer.mask_id,) * number for number in numbers])

    def _fill(self, filled: Sequence[tuple[int, ...]]) -> MaskedPieces:
        query, targets, positions = list(self.pieces[0]), list[int](), list[int]()
        for ids, after in zip(filled, self.pieces[1:], strict=True):
            positions += range(len(query), len(query) + len(ids))
            targets += ids
            query += [self.tokenizer.mask_id] * len(ids)
            query += after
        if len(query) > self.query_wordpieces - 2:
            raise MaskingError(
                f"found {len(query)} wordpieces in {self.text[:80]!r}, answers included; expected "
                f"at most {self.query_wordpieces - 2}. Shorten the sentence"
            )
        return MaskedPieces(tuple(query), tuple(positions), tuple(targets))


def cloze(text: str, tokenizer: WordpieceTokenizer, *, query_wordpieces: int) -> Cloze:
    """Return `text` split at its [MASK] marks; marks side by side make one blank.

    Raises:
        MaskingError: there is no mark, nothing besides marks, or too much.
    """
    blanks = list(BLANK.finditer(text))
    if not blanks:
        raise MaskingError(f"found no [MASK] in {text!r}; expected at least one, e.g. {EXAMPLE}")
    edges = [0, *(edge for blank in blanks for edge in blank.span()), len(text)]
    around = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    pieces = tuple(tuple(p.ids) for p in tokenizer.encode_batch(around))
    if not any(pieces):
        raise MaskingError(
            f"found nothing but [MASK] in {text!r}; expected a sentence around it, e.g. {EXAMPLE}"
        )
    sentence = Cloze(
        text=text,
        pieces=pieces,
        num_marks=tuple(blank.group().count("[MASK]") for blank in blanks),
        tokenizer=tokenizer,
        query_wordpieces=query_wordpieces,
    )
    sentence.with_masks([1] * len(blanks))  # too long even with the shortest answers?
    return sentence
