"""The built-in tagger: dates, quantities and capitalised names by rule, no model, no download."""

from collections.abc import Iterator, Sequence

from realm.masking.dates import find_dates
from realm.masking.names import find_names
from realm.masking.overlaps import merge
from realm.masking.quantities import find_quantities
from realm.records import Passage, SalientSpan, Skipped
from realm.storage import fingerprint_of

RULES_VERSION = 2
"""Raised with every change of a rule or a word list: equal versions tag alike."""


class RuleTagger:
    """Finds DATE, QUANTITY and NAME spans by rule."""

    name = "rules"

    @property
    def fingerprint(self) -> str:
        """Hash of the version of the rules."""
        return fingerprint_of({"tagger": self.name, "version": RULES_VERSION})

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the spans of each passage; nothing is left out."""
        del skipped
        for passage in passages:
            starts = [start for start, _ in passage.sentences] or [0]
            yield tag_text(passage.text, title=passage.title, sentence_starts=starts)


def tag_text(
    text: str, *, title: str = "", sentence_starts: Sequence[int] = (0,)
) -> list[SalientSpan]:
    """Return the salient spans of one text, sorted, disjoint; dates win over quantities over names.

    Args:
        text: The text of a passage.
        title: Its title: a word capitalised there is taken for a name at a sentence's start.
        sentence_starts: First character of each sentence.
    """
    taken = find_dates(text)
    taken = merge(taken, find_quantities(text))
    return merge(taken, find_names(text, title=title, sentence_starts=sentence_starts, taken=taken))
