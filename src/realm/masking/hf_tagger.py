"""Spans from a transformers token classifier, e.g. a BERT trained on CoNLL-2003 as in the paper."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from realm.errors import ConfigError
from realm.masking.dates import find_dates
from realm.masking.overlaps import merge, tidy
from realm.masking.rules import RULES_VERSION
from realm.records import Passage, SalientSpan, Skipped
from realm.storage import fingerprint, fingerprint_of

STRIDE = 16
"""Wordpieces shared by two windows of a sentence that is longer than the model reads."""


class HfTagger:
    """Finds entities with a token classifier, and dates by rule (section 3.4).

    Sentences are read one by one, as in the data that such models are trained on.
    """

    def __init__(self, model: str, *, device: str | None = None, batch_size: int = 32) -> None:
        """Remember what to load; nothing is loaded yet.

        Args:
            model: A folder, or MODEL or MODEL@REVISION on the Hugging Face hub.
            device: Of torch, e.g. cuda (None: cpu).
            batch_size: Sentences at a time.
        """
        self.name = f"hf:{model}"
        self._model, self._device, self._batch_size = model, device or "cpu", batch_size
        self._pipeline: Any = None

    @property
    def fingerprint(self) -> str:
        """Hash of the model's folder, or of its name and revision on the hub."""
        folder = Path(self._model)
        content = fingerprint(folder) if folder.is_dir() else self._model
        return fingerprint_of({"tagger": "hf", "model": content, "dates": RULES_VERSION})

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the dates and entities of each passage; a date wins over an entity.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        del skipped
        sentences = [
            (i, start, passage.text[start:end])
            for i, passage in enumerate(passages)
            for start, end in passage.sentences
            if passage.text[start:end].strip()
        ]
        found: list[list[SalientSpan]] = [[] for _ in passages]
        texts = [text for _, _, text in sentences]
        tagged: list[list[dict[str, Any]]] = (
            self._load()(texts, batch_size=self._batch_size) if texts else []
        )
        for (i, offset, _), entities in zip(sentences, tagged, strict=True):
            found[i] += [
                SalientSpan(
                    start=offset + int(entity["start"]),
                    end=offset + int(entity["end"]),
                    label=str(entity["entity_group"]),
                )
                for entity in entities
            ]
        for passage, spans in zip(passages, found, strict=True):
            yield merge(find_dates(passage.text), tidy(spans, passage.text))

    def _load(self) -> Any:  # noqa: ANN401 - transformers is untyped
        if self._pipeline is None:
            transformers: Any = importlib.import_module("transformers")
            name, _, revision = self._model.partition("@")
            source: dict[str, Any] = {"revision": revision} if revision else {}
            try:
                model = transformers.AutoModelForTokenClassification.from_pretrained(name, **source)
                tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"cannot load token classifier {self._model!r} ({error}); expected a folder "
                    "or a model of the Hugging Face hub, with a fast tokenizer"
                ) from None
            tokenizer.model_max_length = min(
                _num_positions(model, tokenizer.model_max_length), tokenizer.model_max_length
            )
            self._pipeline = transformers.pipeline(
                "token-classification",
                model=model,
                tokenizer=tokenizer,
                aggregation_strategy="first",
                stride=min(STRIDE, tokenizer.model_max_length // 4),
                device=self._device,
            )
        return self._pipeline


def _num_positions(model: Any, unknown: int) -> int:  # noqa: ANN401 - transformers is untyped
    """Return how many wordpieces a model has positions for; `unknown` where it does not say.

    RoBERTa counts positions from behind that of its padding: of 514 it reads 512.
    """
    number = int(getattr(model.config, "max_position_embeddings", unknown))
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return number - part.padding_idx - 1
    return number
