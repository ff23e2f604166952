"""What a verb of training says at its end."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from realm.cli import options
from realm.readable import counted

if TYPE_CHECKING:
    from realm.training.loop import TrainReport


def tell_trained(
    report: "TrainReport", quiet: bool, as_json: bool, *next_command: str | Path
) -> None:
    """Print how a run ended, and the command that comes next; on the first rank only."""
    if options.rank():
        return
    from realm.cli import display

    steps = counted(report.steps, "step")
    if as_json:
        options.print_json(report)
    elif report.already_done:
        display.out.print(f"already done: {report.run} ({steps})", markup=False)
    else:
        resumed = f", resumed from {report.resumed_from:,}" if report.resumed_from else ""
        display.out.print(
            f"{steps} in {report.seconds:,.0f} s{resumed}; run in {report.run}",
            markup=False,
        )
    if not quiet:
        display.show_next(
            " ".join(shlex.quote(str(p)) if isinstance(p, Path) else p for p in next_command)
        )
