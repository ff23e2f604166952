"""realm report: what a run did, as one file to look at."""

from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report", rich_help_panel="Training")(report)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder of a training verb, finished or not.")],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="HTML file to write.")] = Path(
        "report.html"
    ),
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation",
            help="What realm evaluate --out wrote; may be repeated. Without, what lies in the run "
            "or beside it and is of its parameters.",
        ),
    ] = None,
    questions: Annotated[
        int,
        typer.Option(min=0, help="Example questions to show, right and wrong ones together."),
    ] = 30,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Write one HTML file about a run: curves, numbers with intervals, examples, settings.

    It asks for nothing else, reads well in print, and the same run gives the same file.
    Needs the extra: plot.

    Example: realm report runs/qa --out report.html --evaluation report.json
    """
    from realm.cli import display
    from realm.reporting.report import write_run_report

    write_run_report(run, out, evaluations=evaluation or (), num_examples=questions)
    if as_json:
        options.print_json({"run": run, "out": out, "size_bytes": out.stat().st_size})
    elif not quiet:
        display.out.print(f"report of {run} in {out}", markup=False)
