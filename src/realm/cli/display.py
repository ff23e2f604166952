"""Where the command line prints: two consoles, bars with rate and ETA, notes, tables."""

import os
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

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

from realm.readable import visible
from realm.records import Progress as OnProgress
from realm.records import Skipped

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


def tell(sentence: str) -> None:
    """Print what happens beside the steps of a training."""
    err.print(sentence, style="yellow", markup=False)


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
