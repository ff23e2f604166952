"""realm import, realm export, realm pack, realm average."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.readable import counted

PANEL = "Exchange"


class Target(StrEnum):
    """Who is to load an export."""

    safetensors = "safetensors"
    hf_realm = "hf-realm"
    sentence_transformers = "sentence-transformers"


class Towers(StrEnum):
    """How many towers a scorer must have."""

    one = "one"
    two = "two"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("import", rich_help_panel=PANEL)(import_)
    app.command("export", rich_help_panel=PANEL)(export)
    app.command("pack", rich_help_panel=PANEL)(pack)
    app.command("average", rich_help_panel=PANEL)(average)


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder with config.json, weights and vocab.txt in the layout of transformers 4 "
            "(and block_records.npy, for open-QA); with --download also a hub id.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    *,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Fetch SOURCE from the Hugging Face hub (open-QA: some 20 GB)."
        ),
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="vocab.txt or tokenizer.json, where SOURCE has none."),
    ] = None,
    block_records: Annotated[
        Path | None, typer.Option(help="The passages, where they do not lie in SOURCE.")
    ] = None,
    without_passages: Annotated[
        bool,
        typer.Option(
            "--without-passages", help="Import embedder and reader of an open-QA model alone."
        ),
    ] = False,
    towers: Annotated[
        Towers | None, typer.Option(help="Refuse a scorer with more or fewer towers.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Worker processes; the output is the same.")] = 1,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Convert published REALM or ORQA weights into a run that every verb takes.

    Example: realm import realm-orqa-nq-openqa/ --out runs/nq
    """
    from realm.cli import display
    from realm.exchange.fetching import find_source
    from realm.exchange.importing import import_weights

    folder = find_source(source, download=download)
    with display.progress("reading passages", "passages", quiet=quiet) as advance:
        report = import_weights(
            folder,
            out,
            tokenizer=tokenizer,
            block_records=block_records,
            with_passages=not without_passages,
            num_towers=towers.value if towers else None,
            num_processes=processes,
            rebuild=rebuild,
            progress=advance,
        )
    if as_json:
        options.print_json(report)
        return
    passages = f", {counted(report.num_passages, 'passage')}" if report.num_passages else ""
    done = "already done: " if report.already_done else ""
    display.out.print(
        f"{done}{report.kind}: {', '.join(report.parts)}{passages}; run in {out}", markup=False
    )
    if not quiet:
        display.show_next(_next(report.parts, out, has_passages=report.num_passages > 0))


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run, or one of its checkpoints.")],
    to: Annotated[
        Target,
        typer.Option(
            help="safetensors: the model alone, for --model; hf-realm: the layout of transformers "
            "4.16 to 4.57; sentence-transformers: the retriever for that package."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    passages: Annotated[
        Path | None,
        typer.Option(
            help="Passages that go along with an open-QA model of hf-realm, instead of the run's."
        ),
    ] = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a run's model for others: one folder, nothing else needed to load it.

    Example: realm export runs/qa --to sentence-transformers --out retriever/
    """
    from realm.cli import display
    from realm.exchange.exporting import export_run

    with display.progress("embedding", "passages", quiet=quiet) as advance:
        report = export_run(
            run, out, to=to.value, passages=passages, rebuild=rebuild, progress=advance
        )
    if as_json:
        options.print_json(report)
        return
    done = "already done: " if report.already_done else ""
    display.out.print(f"{done}{', '.join(report.holds)} in {report.folder}", markup=False)


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run, from realm finetune.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a run that answers as a small folder: weights in 8 bits, a quarter of the size.

    Example: realm pack runs/qa --out models/small
    """
    from realm.cli import display
    from realm.exchange.packing import pack_run

    report = pack_run(run, out, rebuild=rebuild)
    if as_json:
        options.print_json(report)
        return
    done = "already done: " if report.already_done else ""
    display.out.print(
        f"{done}{report.size_bytes / 1e6:.1f} MB in {report.folder} "
        f"(the run's weights: {report.source_bytes / 1e6:.1f} MB)",
        markup=False,
    )
    if report.calibration_left is not None:
        display.err.print(report.calibration_left, markup=False)
    if not quiet:
        display.show_next(f'realm ask "..." --docs FOLDER --model {shlex.quote(str(out))}')


def average(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="BEFORE",
            help="Run, checkpoint or packed model; realm-mini.",
            callback=options.run_of_name,
        ),
    ],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER", help="Run that was trained on from it.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    *,
    weight: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of AFTER; the rest is BEFORE's.")
    ] = 0.5,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the mean of two models' weights, one trained on from the other.

    A run that is fine-tuned to new questions forgets some of the old ones; the mean keeps them and
    has most of the new.

    Example: realm average runs/qa runs/qa-medical --out models/both
    """
    from realm.cli import display
    from realm.exchange.averaging import average_runs

    report = average_runs(before, after, out, weight=weight, rebuild=rebuild)
    if as_json:
        options.print_json(report, far=report.far)
        return
    done = "already done: " if report.already_done else ""
    apart = ", ".join(f"{name} {value:.1%}" for name, value in report.distance.items())
    display.out.print(f"{done}model in {report.folder}; apart by: {apart}", markup=False)
    if report.far:
        display.err.print(
            f"found {' and '.join(report.far)} far apart, expected two runs of which one was "
            "trained on from the other: measure what came out (realm evaluate)",
            markup=False,
        )
    if not quiet:
        folder = shlex.quote(str(out))
        display.show_next(f"realm calibrate QUESTIONS --model {folder} --passages passages/")


def _next(parts: tuple[str, ...], out: Path, *, has_passages: bool) -> str:
    """Return the command that a new run invites to."""
    run = shlex.quote(str(out))
    if has_passages:
        return f'realm ask "..." --model {run}'
    if {"embedder", "reader"} <= set(parts):
        return f'realm ask "..." --model {run} --passages passages/'
    if "embedder" in parts:
        return (
            f"realm pretrain EXAMPLES PASSAGES --embedder {run} --encoder RUN --out runs/pretrain"
        )
    if "encoder" in parts:
        return (
            f"realm pretrain EXAMPLES PASSAGES --embedder RUN --encoder {run} --out runs/pretrain"
        )
    return f"realm finetune QUESTIONS PASSAGES --model RUN --encoder {run} --out runs/qa"
