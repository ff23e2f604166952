"""Settings of the index: embeddings, refresh, approximate search."""

from typing import Any, Literal

from pydantic import Field, model_validator

from realm.config.base import Config


class IndexConfig(Config):
    """The passages' embeddings and how they are searched (section 3.3)."""

    passage_wordpieces: int = Field(default=288, ge=16, le=512)
    """Longest passage the embedder reads."""
    shard_rows: int = Field(default=65_536, ge=1)
    """Rows per shard; a killed builder continues after its last finished shard."""
    batch_tokens: int = Field(default=8_192, ge=64)
    """Wordpieces, padding included, in one forward pass (in training at least its own
    `batch_tokens`). A GPU wants 65,536 and more."""
    autocast: Literal["bfloat16", "none"] = "bfloat16"
    """bfloat16: matrix products in 16 bits, where the device has instructions for them; everything
    else in 32."""


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
    has fallen by this much (0.1: below 0.9), or the index is about to be older than
    `max_staleness_steps`, instead of every `every_steps`."""
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
    """Mode async: newest snapshots kept on disk, beside those that checkpoints would resume with.
    In the other modes only these are kept, and the one in use."""
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
    seed: int = Field(default=0, ge=0, le=(1 << 31) - 2)
    """Decides the samples and where the fit starts."""
