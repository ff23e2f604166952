"""realm align."""

from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.readable import counted


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("align", rich_help_panel="Answers")(align)


def align(
    examples: Annotated[Path, typer.Argument(help="Masked sentences X, from realm mask.")],
    *,
    model: Annotated[Path, typer.Option("--model", help="Run that aligns, of realm pretrain.")],
    out: Annotated[
        Path,
        typer.Option("--out", dir_okay=False, help="JSONL file to write: one line a sentence."),
    ],
    passages: Annotated[
        Path | None,
        typer.Option(
            "--passages",
            help="Passages Z (realm split) instead of the run's own; they are embedded once.",
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=2, help="Passages retrieved for each span, the null one included.")
    ] = 8,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many sentences, drawn at random (default: all).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which sentences --limit draws.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Sentences read together.")] = 8,
    batch_tokens: Annotated[
        int, typer.Option(min=64, help="Wordpieces, padding included, in one forward pass.")
    ] = 4_096,
    device: options.Device = "auto",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Replace --out, whatever it was made from.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Find, for each masked sentence, the passages that help to predict what is masked.

    Example: realm align examples/ --passages passages/ --model runs/pretrain --out pairs.jsonl
    """
    from realm.aligning import Aligner
    from realm.aligning import align as align_sentences
    from realm.cli import display
    from realm.masking.store import ExampleStore
    from realm.predicting import Predictor

    sentences = ExampleStore.open(examples)
    with display.progress("embedding", "passages", quiet=quiet) as advance:
        predictor = Predictor.load(
            model,
            passages=passages,
            batch_tokens=batch_tokens,
            device=device,
            progress=advance,
        )
    aligner = Aligner(predictor, num_candidates=candidates)
    with display.progress("aligning", "sentences", quiet=quiet) as advance:
        report = align_sentences(
            sentences,
            out,
            aligner,
            limit=limit,
            seed=seed,
            batch_sentences=batch,
            rebuild=rebuild,
            progress=advance,
        )
    if as_json:
        options.print_json(report, out=out)
        return
    done = "already done: " if report.already_done else ""
    display.out.print(
        f"{done}{report.num_aligned:,} of {counted(report.num_sentences, 'sentence')} with a "
        f"passage that helps, {counted(report.num_pairs, 'pair')} in {out}",
        markup=False,
    )
