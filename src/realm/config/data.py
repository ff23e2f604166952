"""Settings of what is made of text: passages and masked examples."""

from typing import Literal

from pydantic import Field

from realm.config.base import Config


class SplitConfig(Config):
    """Article -> passages (cut as in ORQA's preprocessing)."""

    max_wordpieces: int = Field(default=288, ge=16, le=510)
    """Longest passage in wordpieces, [CLS] title [SEP] body [SEP] included (paper: 288)."""
    min_wordpieces: int = Field(default=0, ge=0)
    """Shorter passages are left out and counted."""
    language: str = "en"
    """Language of the sentence splitter (ISO 639-1)."""
    drop_titles: tuple[str, ...] = ("List of", "Lists of", "Index of", "Outline of")
    """Articles whose title starts so are left out, as are titles with "(disambiguation)"."""


class MaskConfig(Config):
    """Passages -> masked examples (section 3.4)."""

    scheme: Literal["salient", "token", "span"] = "salient"
    """Paper: salient; the other two are the ablations of Table 2 (BERT, SpanBERT)."""
    tagger: str = "rules"
    """rules, trained, spacy:PIPELINE, hf:MODEL or jsonl:FILE; only for salient."""
    query_wordpieces: int = Field(default=96, ge=8, le=512)
    """Longest query with [CLS] and [SEP] (released: 96)."""
    max_masks: int = Field(default=10, ge=1)
    """Masked wordpieces that count in the loss (released: 10)."""
    min_sentence_wordpieces: int = Field(default=8, ge=1)
    """Shorter sentences say too little to be a query."""
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of wordpieces masked by the token and span schemes (BERT: 0.15)."""
    mean_span_words: float = Field(default=3.8, gt=0)
    """Mean length of a random span in words (SpanBERT: 3.8, geometric, at most 10)."""
    examples_per_passage: int = Field(default=4, ge=1)
    """Random draws per passage for the token and span schemes."""
    seed: int = Field(default=0, ge=0)
    """Decides the random draws of the token and span schemes."""
