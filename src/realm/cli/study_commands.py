"""realm study: a table of rows that differ in one ingredient each."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.config.base import MAX_SEED
from realm.errors import ConfigError

PANEL = "Reproductions"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("study", rich_help_panel=PANEL)(study)


def study(  # noqa: PLR0917
    settings: Annotated[
        Path,
        typer.Argument(
            help="TOML file: a table for each stage, and one for each row that says what is "
            "different in it."
        ),
    ],
    passages: Annotated[
        list[Path],
        typer.Option(help="Articles of Z; their sentences are in X, too. May be repeated."),
    ],
    train: Annotated[Path, typer.Option(help="Questions to fine-tune on: JSONL.")],
    dev: Annotated[Path, typer.Option(help="Questions to measure on: JSONL.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for everything it makes.")],
    also: Annotated[
        Path | None, typer.Option(help="Articles whose sentences are the rest of X.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Rows to run, or to print with --table, as in a,d; all if left out."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Seeds to run them with, or to print, as in 0,1; else each row's own, or all."
        ),
    ] = None,
    device: options.Device = "auto",
    processes: Annotated[
        int, typer.Option(help="Worker processes of split and mask; the output is the same.")
    ] = 1,
    tokenizer: Annotated[
        str, typer.Option(help="The tokenizer of the encoder: minilm, a folder, or a file.")
    ] = "minilm",
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Leave out fine-tuning and exact match.")
    ] = False,
    table_only: Annotated[
        bool,
        typer.Option(
            "--table", help="Run nothing; print the table of what is there, or of a part of it."
        ),
    ] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="One setting of a stage, as in pretrain.steps=100; may be repeated.",
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    r"""Run the rows of a study, as the paper's Table 2, and print its table with intervals.

    Each row: joint pre-training, zero-shot answer recall, fine-tuning, exact match. Rows share
    their warm starts. What is finished is not done again, and any row can be run alone.

    Example: realm study reproductions/table2.toml --passages squad_open_passages.jsonl.gz \
    --train squad_open.train.jsonl.gz --dev squad_open.dev.jsonl.gz --out table2/ --rows a,d
    """
    from realm.study.settings import StudySettings

    told = StudySettings.load(settings, overrides=sets or [], device=device)
    chosen = [name.strip() for name in rows.split(",")] if rows else []
    told.check_rows(chosen)
    numbers = _numbers(seeds) if seeds else None
    from realm.cli import display, training_display
    from realm.study.results import collect, write_table
    from realm.study.run import StudyInputs, StudyRun, Watch

    inputs = StudyInputs(
        passages=tuple(passages), also=also, train=train, dev=dev, tokenizer=tokenizer
    )

    def tell(line: str) -> None:
        if not quiet:
            display.err.print(f"{time.strftime('%H:%M:%S')}  {line}", markup=False)

    with display.progress("working", "items", quiet=quiet) as advance:
        watch = Watch(
            tell=tell,
            on_metrics=lambda stage: training_display.TrainingDisplay(stage, quiet=quiet),
            progress=advance,
        )
        run = StudyRun(told, inputs, out, watch=watch, num_processes=processes)
        if not table_only:
            run.run(chosen, numbers, zero_shot_only=zero_shot)
    is_part = table_only and (rows is not None or seeds is not None)
    table = collect(run, chosen, numbers) if is_part else collect(run)
    if not table.rows:
        of_these = " of these rows and seeds" if is_part else ""
        raise ConfigError(f"{out} has no result{of_these} yet; run the study without --table")
    if not is_part:  # what stands in the folder is of all that is there
        write_table(table, out)
    if as_json:
        options.print_json(table.as_json())
    else:
        display.out.print(table.markdown(), markup=False)


def _numbers(seeds: str) -> list[int]:
    parts = [part.strip() for part in seeds.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,10}", part) and int(part) <= MAX_SEED for part in parts):
        raise ConfigError(
            f"--seeds {seeds!r}: expected whole numbers from 0 to {MAX_SEED}, as in 0,1,2"
        )
    return [int(part) for part in parts]
