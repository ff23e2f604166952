"""Spans from a spaCy pipeline; spaCy is the extra `ner` and loaded with the first passage."""

import importlib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from realm.errors import ConfigError
from realm.masking.overlaps import tidy
from realm.records import Passage, SalientSpan, Skipped
from realm.storage import fingerprint, fingerprint_of

LABELS = {
    "PERSON": "PER",
    "GPE": "LOC",
    "FAC": "LOC",
    "NORP": "MISC",
    "EVENT": "MISC",
    "WORK_OF_ART": "MISC",
    "PRODUCT": "MISC",
    "LAW": "MISC",
    "LANGUAGE": "MISC",
    "TIME": "DATE",
    "CARDINAL": "QUANTITY",
    "ORDINAL": "QUANTITY",
    "PERCENT": "QUANTITY",
    "MONEY": "QUANTITY",
}
"""OntoNotes labels of spaCy's English pipelines -> ours; others stay as they are."""
UNUSED = ["tagger", "parser", "senter", "attribute_ruler", "lemmatizer", "morphologizer"]


class SpacyTagger:
    """Finds the entities of an installed spaCy pipeline, dates and numbers included."""

    def __init__(self, pipeline: str) -> None:
        """Check that spaCy and the pipeline are there.

        Args:
            pipeline: Name of an installed pipeline package, or a folder.

        Raises:
            ConfigError: spaCy or the pipeline is missing.
        """
        self.name = f"spacy:{pipeline}"
        self._pipeline = pipeline
        self._nlp: Any = None
        if find_spec("spacy") is None:
            raise ConfigError(
                f"tagger {self.name!r} needs spaCy, which is not installed; "
                "pip install 'realm-lm[ner]', or use the tagger rules"
            )
        if not Path(pipeline).is_dir() and not _is_installed(pipeline.replace("-", "_")):
            raise ConfigError(
                f"found no spaCy pipeline {pipeline!r}; expected an installed one or a folder: "
                f"python -m spacy download {pipeline}"
            )

    @property
    def fingerprint(self) -> str:
        """Hash of the pipeline's folder, or of its name and version."""
        if Path(self._pipeline).is_dir():
            return fingerprint(Path(self._pipeline))
        try:
            number = version(self._pipeline)
        except PackageNotFoundError:
            number = "unknown"
        return fingerprint_of({"tagger": self.name, "version": number})

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the entities of each passage; nothing is left out.

        Raises:
            ConfigError: the pipeline cannot be loaded or finds no entities at all.
        """
        del skipped
        texts = [passage.text for passage in passages]
        for text, doc in zip(texts, self._load().pipe(texts, batch_size=64), strict=True):
            spans = [
                SalientSpan(
                    start=int(entity.start_char),
                    end=int(entity.end_char),
                    label=LABELS.get(entity.label_, str(entity.label_)),
                )
                for entity in doc.ents
            ]
            yield tidy(spans, text)

    def _load(self) -> Any:  # noqa: ANN401 - spaCy is optional
        if self._nlp is None:
            spacy: Any = importlib.import_module("spacy")
            try:
                nlp = spacy.load(self._pipeline, exclude=UNUSED)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"cannot load spaCy pipeline {self._pipeline!r}: {error}"
                ) from None
            if not {"ner", "entity_ruler", "span_ruler"} & set(nlp.pipe_names):
                raise ConfigError(
                    f"spaCy pipeline {self._pipeline!r} has {list(nlp.pipe_names)}; "
                    "expected a component that finds entities (ner)"
                )
            self._nlp = nlp
        return self._nlp


def _is_installed(package: str) -> bool:
    return package.isidentifier() and find_spec(package) is not None
