"""Which numbers of a stage stand together in one chart, and what they are called."""

from dataclasses import dataclass
from typing import Literal

HELD_OUT = "eval/"
Unit = Literal["share", "nats", "steps", "seconds", "number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a logged number is, whether measured in training or on what is held out."""

    label: str
    unit: Unit = "number"
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart of numbers on one axis; those that a run has not are left out."""

    title: str
    metrics: tuple[str, ...]
    """As in metrics.jsonl; `eval/...` is held out."""
    about: str = ""
    is_wide: bool = False
    """Drawn over the whole width, with the refreshes."""


METRICS = {
    "loss": Metric(label="loss", unit="nats", about="-log p(y|x), mean over examples"),
    "loss_per_mask": Metric(label="loss per mask", unit="nats"),
    "objective": Metric(label="objective", unit="nats"),
    "loss_reader": Metric(label="reader's loss", unit="nats"),
    "loss_early": Metric(label="early retrieval loss", unit="nats"),
    "loss_retriever": Metric(label="retriever's loss", unit="nats"),
    "accuracy": Metric(label="accuracy", unit="share"),
    "accuracy_removed": Metric(
        label="accuracy, sentence removed",
        unit="share",
        about="of pseudo-queries that their passage no longer holds",
    ),
    "piece_accuracy": Metric(label="wordpieces right", unit="share"),
    "piece_accuracy_null": Metric(label="wordpieces right without retrieval", unit="share"),
    "span_accuracy": Metric(label="spans right", unit="share"),
    "span_accuracy_null": Metric(label="spans right without retrieval", unit="share"),
    "utility/marginal_minus_null": Metric(
        label="retrieval utility",
        unit="nats",
        about="log p(y|x) - log p(y|null, x): what retrieval adds",
    ),
    "utility/mean": Metric(label="utility of a passage, mean", unit="nats"),
    "utility/best": Metric(label="utility of the best passage", unit="nats"),
    "p_null": Metric(label="p(null passage|x)", unit="share"),
    "candidates_hold_span": Metric(label="candidates hold the span", unit="share"),
    "index_recall": Metric(
        label="recall of the index", unit="share", about="against fresh vectors, on a sample"
    ),
    "index/staleness_steps": Metric(label="oldest row", unit="steps"),
    "index/mean_staleness_steps": Metric(label="mean row", unit="steps"),
    "index/retrieved_staleness_steps": Metric(label="what is retrieved", unit="steps"),
    "index/age_seconds": Metric(label="age of the index", unit="seconds"),
    "index/swap_seconds": Metric(label="time to swap a snapshot in", unit="seconds"),
    "index/score_drift": Metric(
        label="drift of scores", about="mean |score now - score in the index| of the candidates"
    ),
    "index/rank_correlation": Metric(
        label="rank correlation", about="of the candidates' scores, index and fresh"
    ),
    "recall_at_1": Metric(label="recall@1", unit="share"),
    "recall_at_5": Metric(label="recall@5", unit="share"),
    "readable": Metric(
        label="readable", unit="share", about="an answer stands in a passage that was read"
    ),
    "read_accuracy": Metric(
        label="reading, right", unit="share", about="given a passage that tells"
    ),
    "guess_accuracy": Metric(label="guessing, right", unit="share", about="given no passage"),
    "copy_accuracy": Metric(label="copying, right", unit="share", about="given the very passage"),
    "dense_guess_accuracy": Metric(label="guessing many masks, right", unit="share"),
    "read_loss": Metric(label="reading, loss", unit="nats"),
    "guess_loss": Metric(label="guessing, loss", unit="nats"),
    "copy_loss": Metric(label="copying, loss", unit="nats"),
    "dense_guess_loss": Metric(label="guessing many masks, loss", unit="nats"),
    "num_passages": Metric(label="passages searched"),
    "examples": Metric(label="examples"),
    "gradient_norm": Metric(label="gradient norm"),
    "learning_rate": Metric(label="learning rate"),
    "step_seconds": Metric(label="seconds per step", unit="seconds"),
    "tokens": Metric(label="wordpieces per step"),
    "tokens_per_second": Metric(label="wordpieces per second"),
}
"""Without `eval/`."""
COUNTS = {"num_passages", "examples"}
"""Held-out numbers that say how much was measured."""

_LOSS = Panel(title="Loss", metrics=("loss", "eval/loss"))
_GRADIENT = Panel(title="Gradient norm", metrics=("gradient_norm",), about="before clipping")
_RATE = Panel(title="Learning rate", metrics=("learning_rate",))
_SPEED = Panel(title="Speed", metrics=("tokens_per_second",), about="wordpieces per second")
_LAST = (_GRADIENT, _RATE, _SPEED)

PANELS: dict[str, tuple[Panel, ...]] = {
    "ict": (
        _LOSS,
        Panel(title="In-batch accuracy", metrics=("accuracy", "accuracy_removed")),
        Panel(title="Recall, held out", metrics=("eval/recall_at_1", "eval/recall_at_5")),
        *_LAST,
    ),
    "mlm": (
        _LOSS,
        Panel(
            title="Loss, held out",
            metrics=(
                "eval/read_loss",
                "eval/guess_loss",
                "eval/copy_loss",
                "eval/dense_guess_loss",
            ),
        ),
        Panel(title="Wordpieces right", metrics=("piece_accuracy",)),
        Panel(
            title="Wordpieces right, held out",
            metrics=(
                "eval/read_accuracy",
                "eval/guess_accuracy",
                "eval/copy_accuracy",
                "eval/dense_guess_accuracy",
            ),
        ),
        *_LAST,
    ),
    "pretrain": (
        _LOSS,
        Panel(
            title="Retrieval utility",
            metrics=("utility/marginal_minus_null", "eval/utility/marginal_minus_null"),
            about="log p(y|x) - log p(y|null, x): what retrieval adds",
        ),
        Panel(
            title="Spans right, held out",
            metrics=("eval/span_accuracy", "eval/span_accuracy_null"),
        ),
        Panel(
            title="Recall, held out",
            metrics=("eval/candidates_hold_span",),
            about="sentences with a candidate that holds the span",
        ),
        Panel(title="Weight of the null passage", metrics=("p_null", "eval/p_null")),
        *_LAST,
    ),
    "finetune": (
        Panel(
            title="Loss",
            metrics=("loss", "eval/loss"),
            about="none at a step where no passage found holds an answer",
        ),
        Panel(title="Parts of the loss", metrics=("loss_reader", "loss_early", "loss_retriever")),
        Panel(title="Spans right", metrics=("span_accuracy", "eval/span_accuracy")),
        Panel(title="Recall, held out", metrics=("eval/recall_at_1", "eval/recall_at_5")),
        Panel(title="Recall, training", metrics=("recall_at_1", "recall_at_5")),
        Panel(
            title="Readable",
            metrics=("readable", "eval/readable"),
            about="an answer stands in a passage that was read",
        ),
        *_LAST,
    ),
    "classify": (
        _LOSS,
        Panel(title="Accuracy", metrics=("accuracy", "eval/accuracy")),
        *_LAST,
    ),
}
INDEX_PANELS = (
    Panel(
        title="Staleness",
        metrics=(
            "index/staleness_steps",
            "index/mean_staleness_steps",
            "index/retrieved_staleness_steps",
        ),
        about="training step minus the step of the parameters that made the index",
        is_wide=True,
    ),
    Panel(
        title="Drift of the candidates' scores",
        metrics=("index/score_drift", "eval/index/score_drift"),
        about="mean |score now - score in the index|",
    ),
    Panel(
        title="Recall of the index",
        metrics=("eval/index_recall",),
        about="against fresh vectors, on a sample",
    ),
    Panel(
        title="Rank correlation",
        metrics=("index/rank_correlation", "eval/index/rank_correlation"),
        about="of the candidates' scores, index and fresh",
    ),
)
"""Of a run that refreshes an index."""
HEADLINES: dict[str, tuple[str, ...]] = {
    "ict": ("eval/recall_at_1", "eval/recall_at_5", "loss"),
    "mlm": ("eval/read_accuracy", "eval/guess_accuracy", "eval/copy_accuracy"),
    "pretrain": (
        "eval/utility/marginal_minus_null",
        "eval/span_accuracy",
        "eval/span_accuracy_null",
        "eval/loss",
    ),
    "finetune": ("eval/span_accuracy", "eval/recall_at_5", "eval/loss"),
    "classify": ("eval/accuracy", "eval/loss"),
}
"""What stands large at the top, as far as it was measured."""


def metric_of(name: str) -> Metric:
    """Return what a logged number is; an unknown one goes by its own name."""
    base = name.removeprefix(HELD_OUT)
    return METRICS.get(base, Metric(label=base))


def is_held_out(name: str) -> bool:
    """Return whether a number was measured on what is held out."""
    return name.startswith(HELD_OUT)
