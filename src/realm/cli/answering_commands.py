"""realm explain, quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.errors import ConfigError

PANEL = "Answers"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("explain", rich_help_panel=PANEL)(explain)


def register_quickstart(app: typer.Typer) -> None:
    """Add the verb that a stranger should see first."""
    app.command("quickstart", rich_help_panel="Start here")(quickstart)


def explain(
    sentence: Annotated[
        str | None, typer.Argument(help="A sentence with one or more [MASK].")
    ] = None,
    *,
    model: Annotated[Path, typer.Option("--model", help="Run that fills in, of realm pretrain.")],
    answer: Annotated[
        list[str] | None,
        typer.Option(
            "--answer",
            help="What a [MASK] stands for, once for each; without, what the model predicts.",
        ),
    ] = None,
    passages: options.Passages = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help='Instead of SENTENCE, JSONL: {"sentence": "... [MASK] ...", "answers": ["..."]}.'
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=2, help="Passages to read, the null passage included.")
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", dir_okay=False, help="Markdown file to write the table of --sentences to, too."
        ),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Show what retrieval does for a prediction: the paper's Table 3 for any sentence.

    Example: realm explain "Marie [MASK] discovered radium." --answer Curie --model runs/pretrain
    Example: realm explain --sentences reproductions/table3.jsonl --model runs/pretrain
    """
    if sentences is not None:
        if sentence is not None or answer:
            raise ConfigError(
                "found --sentences beside SENTENCE or --answer, expected one of them: the file "
                "holds sentences and answers"
            )
        _explain_file(sentences, model, passages, candidates, out, device=device, as_json=as_json)
        return
    if sentence is None or out is not None:
        found = "--out without --sentences" if sentence is not None else "no sentence"
        raise ConfigError(
            f'found {found}, expected a text with [MASK], such as "3 is a [MASK] prime.", or '
            "--sentences FILE (and perhaps --out TABLE.md)"
        )
    from realm.cli import answer_display, display
    from realm.explaining import Explainer

    with display.progress("embedding", "passages") as advance:
        explainer = Explainer.load(model, passages=passages, device=device, progress=advance)
    explanation = explainer.explain(sentence, answers=answer or (), num_candidates=candidates)
    if as_json:
        options.print_json(explanation)
    else:
        answer_display.show_explanation(explanation)


def _explain_file(
    file: Path,
    model: Path,
    passages: Path | None,
    candidates: int,
    out: Path | None,
    *,
    device: str,
    as_json: bool,
) -> None:
    from realm.cli import answer_display, display
    from realm.evaluation.table3 import read_sentences, table3, write_markdown
    from realm.explaining import Explainer

    read = read_sentences(file)
    with display.progress("embedding", "passages") as advance:
        explainer = Explainer.load(model, passages=passages, device=device, progress=advance)
    with display.progress("explaining", "sentences") as advance:
        found = table3(explainer, read, num_candidates=candidates, progress=advance)
    if as_json:
        options.print_json(found.as_json())
    else:
        answer_display.show_table3(found)
    if out is not None:
        write_markdown(found, out)


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything it makes.")] = Path(
        "quickstart"
    ),
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Start over: remove what an earlier one made.")
    ] = False,
) -> None:
    """Run every stage on the encyclopedia that ships with the package: minutes, no network.

    Example: realm quickstart --out quickstart/
    """
    from realm.cli.quickstart_display import run_quickstart

    run_quickstart(out, rebuild=rebuild)
