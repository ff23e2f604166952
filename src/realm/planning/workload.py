"""What is to be run: corpus, encoders, settings of the stages, processes."""

from dataclasses import dataclass, field

from realm.config import (
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MlmConfig,
    PretrainConfig,
    RefreshConfig,
)
from realm.planning.encoders import EncoderShape

STORE_BYTES = (7.15, 60.0)
"""Bytes of a passage in the store: so many a wordpiece (text, 16-bit ids, offsets) and so many
besides (ids, hash, title); measured on Simple English Wikipedia."""
EXAMPLES = 0.07
"""Masked examples a wordpiece of text, with the built-in rules (Simple English Wikipedia 0.069,
SQuAD paragraphs 0.07)."""
EXAMPLE_BYTES = 330.0
SPREAD = 1.4
"""Mean of the squared length of a passage over its squared mean (Simple English Wikipedia)."""
QUERY_WORDPIECES = 30.0
"""Mean length of a masked sentence with [CLS] and [SEP]."""
MASKS = 2.4
"""Mean masked wordpieces of a salient span."""
QUESTION_WORDPIECES = 14.0
TITLE_WORDPIECES = 4.0
DENSE_MASKS = 0.3
"""Share of a sentence that the reading warm-up masks, and reads with half of the examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One training run from articles to answers. Lengths are means, special tokens included."""

    passages: int
    encoder: EncoderShape
    """Of the knowledge-augmented encoder and of the reader."""
    embedder: EncoderShape
    """Of Embed_input and Embed_doc."""
    passage_wordpieces: float = 150.0
    """[CLS] title [SEP] body [SEP]."""
    spread: float = SPREAD
    query_wordpieces: float = QUERY_WORDPIECES
    masks: float = MASKS
    question_wordpieces: float = QUESTION_WORDPIECES
    ict: IctConfig = field(default_factory=IctConfig)
    mlm: MlmConfig = field(default_factory=MlmConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    trainers: int = 1
    """Processes that share each batch."""
    builders: int = 0
    """Processes that embed beside the trainers; 0: the trainers do, between two steps."""

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.ict.projection_size

    @property
    def refresh(self) -> RefreshConfig:
        """When the index is rebuilt."""
        return self.pretrain.refresh

    @property
    def num_refreshes(self) -> int:
        """Rebuilds in pre-training after the first index; none follows the last step."""
        if self.refresh.mode == "off":
            return 0
        return (self.pretrain.steps - 1) // self.refresh.every_steps

    @property
    def shares_towers(self) -> bool:
        """Whether one tower embeds queries and passages in pre-training."""
        told = self.pretrain.share_towers
        return self.ict.share_towers if told is None else told

    @property
    def tower_parameters(self) -> int:
        """Parameters of one tower."""
        return self.embedder.embedder_parameters(self.dim)

    @property
    def embedder_parameters(self) -> int:
        """Parameters of both towers."""
        return self.tower_parameters * (1 if self.shares_towers else 2)

    @property
    def body_wordpieces(self) -> float:
        """Of a passage without its title and special tokens."""
        return max(1.0, self.passage_wordpieces - TITLE_WORDPIECES - 3)

    @property
    def embedded_wordpieces(self) -> float:
        """What Embed_doc reads of a passage."""
        return min(self.passage_wordpieces, float(self.pretrain.passage_wordpieces))

    @property
    def joint_wordpieces(self) -> float:
        """What the encoder reads of a query with a passage."""
        whole = self.query_wordpieces + self.body_wordpieces + 1
        return min(float(self.pretrain.joint_wordpieces), whole)

    @property
    def passage_flops(self) -> float:
        """FLOPs of embedding a passage."""
        return self.embedder.embed_flops(self.embedded_wordpieces, self.dim, spread=self.spread)

    @property
    def total_wordpieces(self) -> float:
        """Of all passages."""
        return self.passages * self.passage_wordpieces

    @property
    def scan_bytes(self) -> int:
        """The 16-bit matrix that every search reads: passages x dim x 2."""
        return self.passages * self.dim * 2

    @property
    def snapshot_bytes(self) -> int:
        """Both halves of a snapshot: 16 bits to scan, 32 bits to score again."""
        return self.passages * self.dim * 6

    @property
    def store_bytes(self) -> float:
        """The passages folder."""
        each, besides = STORE_BYTES
        return self.total_wordpieces * each + self.passages * besides

    @property
    def examples_bytes(self) -> float:
        """The masked examples."""
        return self.total_wordpieces * EXAMPLES * EXAMPLE_BYTES
