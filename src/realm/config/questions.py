"""Settings of fine-tuning, evaluation and calibration on questions and claims."""

from typing import Any, Literal

from pydantic import Field, model_validator

from realm.config.base import Config
from realm.config.index import RefreshConfig
from realm.config.training import OptimizerConfig, TrainConfig, check_room


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
        check_room(self.joint_wordpieces, "question_wordpieces", self.question_wordpieces)
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
    """Learning rate of Embed_input relative to the classifier's (0: it stands still); Embed_doc
    stays fixed."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5)
    """Released: 1e-5 with batch 1."""

    @model_validator(mode="after")
    def _possible(self) -> "ClassifyConfig":
        check_room(self.joint_wordpieces, "question_wordpieces", self.question_wordpieces)
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
    seed: int = Field(default=0, ge=0)
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
    seed: int = Field(default=0, ge=0)
    """Decides the sample of `limit`, and which questions are answered twice."""
    limit: int | None = Field(default=None, ge=1)
    """Only a random sample of so many questions (None: all)."""
