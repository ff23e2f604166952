"""Which sentences of a passage become examples, and why the others do not (section 3.4)."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from realm.config import MaskConfig
from realm.errors import MaskingError
from realm.masking.spans import (
    apply_masks,
    salient_positions,
    span_lengths,
    span_positions,
    token_positions,
)
from realm.readable import counted
from realm.records import MaskedExample, Passage, SalientSpan, Skipped
from realm.tokenizer import Wordpieces, WordpieceTokenizer

NO_SPANS = "passage without spans"
CROSSES = "span crosses sentences"
NO_PIECE = "span without wordpieces"
TOO_SHORT = "sentence too short"
TOO_LONG = "span beyond the query length"
UNKNOWN = "every masked piece is [UNK]"
WHOLE = "whole sentence masked"
REPEATED = "span repeated in its passage"
NO_SENTENCE = "passage without a long enough sentence"


class _Draft(NamedTuple):
    """A span that one sentence wholly contains."""

    sentence: int
    """Number of the sentence in its passage."""
    start: int
    """First character of the span in the sentence."""
    end: int
    label: str


class Masker:
    """Turns batches of passages into masked examples; numbers the rows as it goes."""

    def __init__(self, tokenizer: WordpieceTokenizer, config: MaskConfig, skipped: Skipped) -> None:
        self._tokenizer, self._config, self._skipped = tokenizer, config, skipped
        self._longest = config.query_wordpieces - 2  # [CLS] and [SEP]
        self._rows = itertools.count()
        self._lengths = span_lengths(config.mean_span_words)
        tokens = (tokenizer.token(number) for number in range(tokenizer.vocab_size))
        self._continues = [token.startswith("##") for token in tokens]

    def salient(
        self, passages: Sequence[Passage], spans: Sequence[Sequence[SalientSpan]]
    ) -> list[list[MaskedExample]]:
        """Return one example per distinct span of each passage, first usable mention first.

        Two spans are the same if their lower-cased strings are.

        Raises:
            MaskingError: a span lies outside its passage, or the lists do not match.
        """
        if len(spans) != len(passages):
            raise MaskingError(
                f"the tagger gave spans for {counted(len(spans), 'passage')}, expected "
                f"{len(passages)}: a tagger yields one list per passage, in order"
            )
        drafts = [self._drafts(p, found) for p, found in zip(passages, spans, strict=True)]
        encoded = self._encode(
            passages, [{draft.sentence for draft in of_passage} for of_passage in drafts]
        )
        return [
            self._salient_examples(passages[i], drafts[i], encoded[i]) for i in range(len(passages))
        ]

    def random(self, passages: Sequence[Passage]) -> list[list[MaskedExample]]:
        """Return `examples_per_passage` random draws from each passage (token and span schemes).

        A draw depends on the seed and the passage's row only.
        """
        encoded = self._encode(passages, [range(len(p.sentences)) for p in passages])
        return [self._random_examples(p, found) for p, found in zip(passages, encoded, strict=True)]

    def _drafts(self, passage: Passage, spans: Sequence[SalientSpan]) -> list[_Draft]:
        if not spans:
            self._skipped.add(NO_SPANS, passage.id)
        starts = [start for start, _ in passage.sentences]
        drafts: list[_Draft] = []
        for span in spans:
            if not 0 <= span.start < span.end <= len(passage.text):
                raise MaskingError(
                    f"found span {span.start}..{span.end} in passage {passage.id} of "
                    f"{counted(len(passage.text), 'character')}; expected "
                    "0 <= start < end <= length"
                )
            number = bisect_right(starts, span.start) - 1
            if number < 0 or span.end > passage.sentences[number][1]:
                self._skip(CROSSES, passage, passage.text[span.start : span.end])
                continue
            first = starts[number]
            drafts.append(_Draft(number, span.start - first, span.end - first, span.label))
        return drafts

    def _encode(
        self, passages: Sequence[Passage], wanted: Sequence[set[int] | range]
    ) -> list[dict[int, Wordpieces]]:
        """Return the wordpieces of the wanted sentences of each passage, in one batch."""
        keys = [(i, number) for i, numbers in enumerate(wanted) for number in sorted(numbers)]
        texts = [_sentence(passages[i], number) for i, number in keys]
        encoded: list[dict[int, Wordpieces]] = [{} for _ in passages]
        for (i, number), pieces in zip(keys, self._tokenizer.encode_batch(texts), strict=True):
            encoded[i][number] = pieces
        return encoded

    def _salient_examples(
        self, passage: Passage, drafts: Sequence[_Draft], encoded: dict[int, Wordpieces]
    ) -> list[MaskedExample]:
        seen: set[str] = set()
        examples: list[MaskedExample] = []
        for draft in drafts:
            text = _sentence(passage, draft.sentence)[draft.start : draft.end]
            pieces = encoded[draft.sentence]
            masked = salient_positions(pieces.offsets, draft.start, draft.end)
            if text.lower() in seen:
                self._skip(REPEATED, passage, text)
            elif reason := self._objection(pieces.ids, masked):
                self._skip(reason, passage, text)
            else:
                seen.add(text.lower())
                examples.append(self._example(passage, draft, pieces.ids, masked))
        return examples

    def _random_examples(
        self, passage: Passage, encoded: dict[int, Wordpieces]
    ) -> list[MaskedExample]:
        config = self._config
        usable = [n for n, p in encoded.items() if len(p.ids) >= config.min_sentence_wordpieces]
        if not usable:
            self._skip(NO_SENTENCE, passage)
            return []
        rng = np.random.default_rng([config.seed, passage.row])
        examples: list[MaskedExample] = []
        for _ in range(config.examples_per_passage):
            number = usable[int(rng.integers(len(usable)))]
            ids = encoded[number].ids[: self._longest]
            masked = self._draw(ids, rng)
            if reason := self._objection(ids, masked):
                self._skip(reason, passage)
            else:
                draft = _Draft(number, -1, -1, config.scheme)
                examples.append(self._example(passage, draft, ids, masked))
        return examples

    def _draw(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        rate = self._config.mask_rate
        if self._config.scheme == "token":
            return token_positions(len(ids), mask_rate=rate, rng=rng)
        continues = [self._continues[number] for number in ids]
        return span_positions(continues, mask_rate=rate, lengths=self._lengths, rng=rng)

    def _objection(self, ids: Sequence[int], masked: Sequence[int]) -> str | None:
        """Return why these masks make no example, or None."""
        if not masked:
            return NO_PIECE
        if len(ids) < self._config.min_sentence_wordpieces:
            return TOO_SHORT
        if masked[-1] >= self._longest:
            return TOO_LONG
        if all(ids[position] == self._tokenizer.unk_id for position in masked):
            return UNKNOWN
        if len(masked) >= min(len(ids), self._longest):
            return WHOLE
        return None

    def _example(
        self, passage: Passage, draft: _Draft, ids: Sequence[int], masked: Sequence[int]
    ) -> MaskedExample:
        original = ids[: self._longest]
        pieces = apply_masks(
            original, masked, mask_id=self._tokenizer.mask_id, max_masks=self._config.max_masks
        )
        return MaskedExample(
            row=next(self._rows),
            origin=passage.row,
            origin_sha256=passage.sha256,
            article_id=passage.article_id,
            sentence=_sentence(passage, draft.sentence),
            span_start=draft.start,
            span_end=draft.end,
            label=draft.label,
            original_ids=tuple(original),
            query_ids=pieces.query_ids,
            positions=pieces.positions,
            target_ids=pieces.target_ids,
        )

    def _skip(self, reason: str, passage: Passage, text: str = "") -> None:
        self._skipped.add(reason, f"{passage.id}: {text}" if text else passage.id)


def _sentence(passage: Passage, number: int) -> str:
    start, end = passage.sentences[number]
    return passage.text[start:end]
