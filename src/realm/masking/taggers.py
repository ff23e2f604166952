"""What finds salient spans, and how one is chosen by name: the contract and `make_tagger`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from realm.errors import ConfigError
from realm.records import Passage, SalientSpan, Skipped

TAGGERS = "rules, trained, spacy:PIPELINE, hf:MODEL or jsonl:FILE"


@runtime_checkable
class Tagger(Protocol):
    """Finds the spans of passages that need world knowledge (section 3.4).

    The paper: a BERT tagger trained on CoNLL-2003 and a regular expression for dates. Neither
    was published, so a tagger is a choice here, and its fingerprint is part of what it made.
    """

    @property
    def name(self) -> str:
        """How it was asked for, e.g. `rules` or `spacy:en_core_web_sm`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the spans; reading it must not load a model."""
        ...

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the spans of each passage, in order: offsets in its text, sorted, disjoint.

        Args:
            passages: Some hundred passages at a time.
            skipped: Counts what the tagger itself left out, by reason.
        """
        ...


def make_tagger(spec: str) -> Tagger:
    """Return the tagger that `spec` names: rules, trained, spacy:PIPELINE, hf:MODEL ...

    Nothing is loaded or downloaded before the first `tag`. trained:web and trained:social find
    what EWT and WNUT17 call an entity; trained alone, what CrossNER does.

    Raises:
        ConfigError: there is no such kind of tagger, or its library or model is missing.
        MaskingError: a jsonl file has bad lines.
    """
    kind, colon, rest = spec.partition(":")
    if spec == "rules":
        from realm.masking.rules import RuleTagger

        return RuleTagger()
    if kind == "trained" and (rest or not colon):
        from realm.masking.trained.tagger import TrainedTagger

        return TrainedTagger(rest) if rest else TrainedTagger()
    if colon and rest and kind == "jsonl":
        from realm.masking.pretagged import PretaggedTagger

        return PretaggedTagger(Path(rest))
    if colon and rest and kind == "spacy":
        from realm.masking.spacy_tagger import SpacyTagger

        return SpacyTagger(rest)
    if colon and rest and kind == "hf":
        from realm.masking.hf_tagger import HfTagger

        return HfTagger(rest)
    raise ConfigError(f"found no tagger {spec!r}; expected {TAGGERS}")
