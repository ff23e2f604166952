"""What the command line shows: progress with rate and ETA, metrics, highlighted evidence."""

import os
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from realm.readable import digits, visible
from realm.records import Answer, AnsweredQuestion, ClassifiedClaim, Passage, Skipped
from realm.records import Progress as OnProgress

if TYPE_CHECKING:
    from realm.evaluation.table3 import Table3
    from realm.explaining import Explanation

PIPED_WIDTH = 10_000
"""Characters: wider than any table."""


class _Console(Console):
    """Shows texts of others as texts: colours and lines come from this package alone."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is printed, control characters written out."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def _console(*, is_terminal: bool, stderr: bool) -> Console:
    """Return where to print; lines wrap at a terminal's width only: piped, each stays whole."""
    width = None if is_terminal else PIPED_WIDTH
    return _Console(
        highlight=False, emoji=False, soft_wrap=not is_terminal, width=width, stderr=stderr
    )


out = _console(is_terminal=sys.stdout.isatty(), stderr=False)
err = _console(is_terminal=sys.stderr.isatty(), stderr=True)

CONTEXT_CHARACTERS = 160
"""Characters of a passage shown on each side of an answer."""
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


@contextmanager
def progress(label: str, unit: str, *, quiet: bool = False) -> Generator[OnProgress]:
    """Show a bar with rate and ETA on a terminal, nothing when piped; yield what to call.

    The bar stands only while there is something to do: from the first call to the last item. What
    is done anew afterwards, as each refresh of an index, has its own rate, time and ETA. The rate
    is of what was done since the first call: neither loading before it nor what a resume found
    done is counted.
    """
    is_shown = err.is_terminal and not quiet
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not is_shown, transient=True) as bars:
        task = bars.add_task(label, total=None, rate="", visible=False)
        began, first, latest, is_over = 0.0, 0, 0, True

        def advance(done: int, total: int) -> None:
            nonlocal began, first, latest, is_over
            if is_over or done < latest:
                began, first = time.monotonic(), done
                bars.reset(task)
            latest, is_over = done, 0 < total <= done
            rate = (done - first) / max(1e-9, time.monotonic() - began)
            bars.update(
                task,
                completed=done,
                total=total or None,
                rate=f"{rate:,.0f} {unit}/s" if done > first else "",
                visible=not is_over,
            )

        yield advance


class TrainingDisplay:
    """Prints one line for each logged step: what a run learns, its rate and ETA."""

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
        err.print(line if is_eval else f"{line}[dim]{eta}[/]")


def show_next(command: str, *, word: str = "next") -> None:
    """Print the command that a user probably wants next."""
    err.print(f"{word}: {command}", style="dim", markup=False)


def show_skipped(skipped: Skipped) -> None:
    """List what was left out, by reason."""
    from realm.corpus.reading import WHOLE_FILES

    if not skipped.total:
        return
    err.print(f"left out {skipped.total:,}:")
    for reason, count in sorted(skipped.counts.items(), key=lambda item: -item[1]):
        places = skipped.examples.get(reason, [])[:3]
        if reason in WHOLE_FILES:
            places = [place.removesuffix(":1") for place in places]
        err.print(f"  {count:>8,}  {escape(reason)}  [dim]{escape('; '.join(places))}[/]")


def show_answers(
    answered: AnsweredQuestion,
    places: Sequence[str] = (),
    same_text: Sequence[Sequence[str]] = (),
) -> None:
    """Print a question's answers with their evidence, the words highlighted in their context.

    Args:
        answered: the question with its answers.
        places: of each answer in files, `file:line`, where it was asked of files.
        same_text: of each answer the places of its `same_text` in files, likewise.
    """
    out.print(f"[bold]{escape(answered.question)}[/]")
    if not answered.answers:
        out.print("  No answer in these passages.")
    elif answered.is_refused:
        guess = answered.answers[0]
        out.print(
            f"  No answer in these passages. Best guess: [bold]{escape(guess.text)}[/] "
            f"(probability {guess.probability:.2f}, below {answered.min_probability:.2f}; "
            "--min-probability 0 shows its evidence)"
        )
        return
    for number, (first, *others) in enumerate(_by_words(answered.answers), 1):
        answer = answered.answers[first]
        title = escape(_title(answer.passage))
        place = (
            f"[bold]{escape(places[first])}[/] [dim]({title}, "
            if places
            else f"[dim]{title} ({escape(answer.passage.id)}, "
            f"characters {answer.start}-{answer.end}, "
        )
        out.print(
            f"  {number}. [bold green]{escape(answer.text)}[/]  p={answer.probability:.3f}   "
            f"{place}p(z|x)={answer.passage_probability:.2f})[/]"
        )
        if number <= 2:
            out.print(evidence(answer))
        if answer.same_text:
            names = same_text[first] if places else _names(answer)
            out.print(f"     [dim]also in: {escape(', '.join(names))}[/]")
        if others:
            also = (answered.answers[other] for other in others)
            told = ", ".join(f"{one.text} (p={one.probability:.3f})" for one in also)
            out.print(f"     [dim]in other words: {escape(told)}[/]")


def _names(answer: Answer) -> list[str]:
    """Return the other passages with an answer's text, where nobody knows their lines."""
    passages = (mention.passage for mention in answer.same_text)
    return [f"{_title(passage)} ({passage.id})" for passage in passages]


def _title(passage: Passage) -> str:
    return passage.title or passage.article_id


def _by_words(answers: Sequence[Answer]) -> list[list[int]]:
    """Return the answers' numbers: longer or shorter words of one place stand together.

    They are in the order of the best of each place, which stands first.
    """
    groups: list[list[int]] = []
    for number, answer in enumerate(answers):
        for group in groups:
            best = answers[group[0]]
            is_here = best.passage.article_id == answer.passage.article_id
            if is_here and answer.start < best.end and best.start < answer.end:
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def tell(sentence: str) -> None:
    """Print what happens beside the steps of a training."""
    err.print(sentence, style="yellow", markup=False)


def note_uncalibrated(why: str | None) -> None:
    """Say what a threshold is worth without a calibration; nothing where there is one.

    Args:
        why: `Answerer.why_uncalibrated`.
    """
    if why is not None:
        err.print(
            f"note: --min-probability looks at the reader's own probabilities, which do not say "
            f"how often the model is right: {why}. Calibrate it: realm calibrate QUESTIONS "
            "--model RUN",
            markup=False,
        )


def note_inexact(why: str | None) -> None:
    """Say that the probabilities shown are of another setting than was measured.

    Args:
        why: `AnsweredQuestion.why_inexact`.
    """
    if why is not None:
        err.print(f"note: its probabilities may be off: {why}", markup=False)


def show_labels(classified: ClassifiedClaim) -> None:
    """Print a claim's labels, each with the passage that speaks most for it."""
    out.print(f"[bold]{escape(classified.claim)}[/]")
    for number, one in enumerate(classified.labels, 1):
        passage = one.passage
        out.print(
            f"  {number}. [bold green]{escape(one.label)}[/]  p={one.probability:.3f}   "
            f"[dim]{escape(passage.title or passage.article_id)} ({escape(passage.id)}, "
            f"p(z|x)={one.passage_probability:.2f}, "
            f"p({escape(one.label)}|z,x)={one.label_probability:.2f})[/]"
        )
        if number <= 2:
            text = passage.text[: 2 * CONTEXT_CHARACTERS].replace("\n", " ")
            cut = "..." if len(passage.text) > 2 * CONTEXT_CHARACTERS else ""
            out.print(f"     [dim]{escape(text)}{cut}[/]")


def show_explanation(explanation: "Explanation") -> None:
    """Print one row of Table 3."""
    from realm.readable import as_probability

    out.print(
        f"[bold]{escape(explanation.text)}[/]  y = [bold green]{escape(explanation.answer)}[/]"
    )
    out.print(
        f"  without retrieval  p(y|x) = {as_probability(explanation.p_without)}"
        f"   predicted: {escape(explanation.predicted_without)}"
    )
    out.print(
        f"  with retrieval     p(y|x) = {as_probability(explanation.p_marginal)}"
        f"   predicted: {escape(explanation.predicted)}"
    )
    rows = [
        (
            candidate.passage.title or candidate.passage.id if candidate.passage else "(null)",
            as_probability(candidate.p_passage),
            as_probability(candidate.p_answer),
            f"{candidate.gradient:+.3f}",
            f"{candidate.utility:+.2f}",
        )
        for candidate in explanation.candidates
    ]
    out.print(table("  candidates", ("z", "p(z|x)", "p(y|z,x)", "r(z)", "RU(z|x)"), rows))


def show_table3(found: "Table3") -> None:
    """Print Table 3 for many sentences, and how often retrieval helped."""
    out.print(table("", found.columns, found.cells()))
    out.print(found.summary(), markup=False)


def evidence(answer: Answer) -> Text:
    """Return the answer in its context, sliced from the source, highlighted."""
    text, start = answer.passage.text, answer.start - answer.passage.start
    end = answer.end - answer.passage.start
    left = max(0, start - CONTEXT_CHARACTERS)
    right = min(len(text), end + CONTEXT_CHARACTERS)
    shown = Text("     ")
    shown.append(("..." if left else "") + text[left:start].replace("\n", " "), style="dim")
    shown.append(text[start:end], style="bold black on green")
    shown.append(
        text[end:right].replace("\n", " ") + ("..." if right < len(text) else ""), style="dim"
    )
    return shown


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose first column is left-aligned text, the rest numbers."""
    made = Table(
        title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made


def is_interactive() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not os.environ.get("CI")


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
