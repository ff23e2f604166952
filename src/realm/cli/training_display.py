"""A training on the console: a line for each logged step, with what it learns, its rate and ETA."""

import time
from collections.abc import Mapping

from realm.cli import display
from realm.readable import digits

SHOWN_METRICS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "piece_accuracy": "pieces right",
    "utility/marginal_minus_null": "utility",
    "p_null": "p(null)",
    "index/staleness_steps": "stale",
    "index/score_drift": "drift",
    "span_accuracy": "spans right",
    "recall_at_5": "recall@5",
    "eval/recall_at_1": "recall@1",
    "eval/recall_at_5": "recall@5",
    "eval/read_accuracy": "read",
    "eval/guess_accuracy": "guess",
    "eval/copy_accuracy": "copy",
    "eval/span_accuracy": "spans right",
    "eval/span_accuracy_null": "without retrieval",
    "eval/utility/marginal_minus_null": "utility",
    "eval/candidates_hold_span": "span in candidates",
    "eval/accuracy": "accuracy",
    "eval/loss": "loss",
    "tokens_per_second": "tokens/s",
}
"""Which metrics stand in the console line; all of them are in metrics.jsonl."""
NOTHING_TAUGHT = "no answer in any passage found"
"""Where fine-tuning's loss would stand, had there been anything to learn from."""
WHOLE_NUMBERS = {"index/staleness_steps", "tokens_per_second"}


class TrainingDisplay:
    """Prints one line for each logged step."""

    def __init__(self, stage: str, *, quiet: bool = False) -> None:
        self.stage = stage
        self.quiet = quiet
        self._first: tuple[float, int] | None = None

    def __call__(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of one step."""
        if self.quiet:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, step
        began, first = self._first
        eta = ""
        if step > first:
            seconds = (now - began) / (step - first)
            eta = f"  {_rate(seconds)}, ETA {_duration(seconds * (steps - step))}"
        is_eval = any(name.startswith("eval/") for name in metrics)
        shown = "  ".join(
            f"{label} [bold]{_number(metrics[name], is_whole=name in WHOLE_NUMBERS)}[/]"
            for name, label in SHOWN_METRICS.items()
            if name in metrics
        )
        kind = "[cyan]held out[/]" if is_eval else "[dim]training[/]"
        nothing = f"[yellow]{NOTHING_TAUGHT}[/]  " if _taught_nothing(metrics) else ""
        refreshed = "  [yellow]index refreshed[/]" if metrics.get("index/refreshed") else ""
        line = f"{self.stage} {step:>5}/{steps} {kind}  {nothing}{shown}{refreshed}"
        display.err.print(line if is_eval else f"{line}[dim]{eta}[/]")


def _taught_nothing(metrics: Mapping[str, float]) -> bool:
    """Return whether questions were read, and none of them had a loss."""
    return any(
        f"{where}readable" in metrics and f"{where}loss" not in metrics for where in ("", "eval/")
    )


def _number(value: float, *, is_whole: bool) -> str:
    return f"{value:,.0f}" if is_whole or abs(value) >= 1_000 else f"{value:.3f}"


def _rate(seconds: float) -> str:
    """Return how fast steps of so many seconds are: 2.4 s/step, 7.69 steps/s."""
    return f"{seconds:.1f} s/step" if seconds >= 1 else f"{digits(1 / max(seconds, 1e-9))} steps/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
