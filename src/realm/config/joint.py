"""Settings of joint pre-training."""

from typing import Any, Literal

from pydantic import Field, model_validator

from realm.config.index import RefreshConfig
from realm.config.training import OptimizerConfig, TrainConfig, check_room


class PretrainConfig(TrainConfig):
    """Joint pre-training by Eq. 1 (sections 3.1 to 3.4)."""

    num_candidates: int = Field(default=8, ge=2)
    """Passages the encoder reads for each query, the null passage included (paper: 8)."""
    gradient_candidates: int | None = Field(default=None, ge=1)
    """Candidates of a query, on average, that the encoder's gradient goes through, drawn by their
    weight in it: the same in expectation, in less time and memory (None: all)."""
    marginal: Literal["span", "token"] = "span"
    """span: sum over z outside the product over masks (paper, Eq. 1); token: per mask (released
    code)."""
    share_towers: bool | None = None
    """None: as the warm start has it; false unties them (paper)."""
    query_wordpieces: int = Field(default=96, ge=8, le=512)
    """Longest masked sentence with [CLS] and [SEP] (released: 96)."""
    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """Longest input of Embed_doc, title and special tokens included (released: 288)."""
    joint_wordpieces: int = Field(default=384, ge=16, le=512)
    """Longest input of the encoder (released: 96 + 288)."""
    overlap_limit: float = Field(default=0.6, gt=0, le=1)
    """A candidate that holds this share of the sentence's wordpiece trigrams counts as its own
    passage and is left out ("prohibiting trivial retrievals", beyond identical hashes)."""
    null_passage: bool = True
    """Candidate 0 is empty (paper); false is an ablation."""
    exclude_own: bool = True
    """False is an ablation: trivial retrieval allowed."""
    retriever_frozen_steps: int = Field(default=0, ge=0)
    """Steps at the start in which only the encoder learns."""
    retriever_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the towers relative to the encoder's."""
    num_eval_examples: int = Field(default=256, ge=1)
    """Held-out masked examples, at most, that a measurement reads."""
    batch_size: int = Field(default=8, ge=1)
    refresh: RefreshConfig = RefreshConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-5)

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what comes out; a resume may change the others."""
        settings = super().identity() | {"refresh": self.refresh.identity()}
        if self.gradient_candidates is None:  # as runs were before there was this setting
            del settings["gradient_candidates"]
        return settings

    @model_validator(mode="after")
    def _possible(self) -> "PretrainConfig":
        check_room(self.joint_wordpieces, "query_wordpieces", self.query_wordpieces)
        if self.gradient_candidates and self.gradient_candidates >= self.num_candidates:
            raise ValueError(
                f"gradient_candidates={self.gradient_candidates} of num_candidates="
                f"{self.num_candidates}, expected fewer; leave it out to learn from all of them"
            )
        return self
