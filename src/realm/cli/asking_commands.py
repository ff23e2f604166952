"""realm ask."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import claim_commands, options
from realm.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from realm.answering import Answerer
    from realm.asking import FolderAnswerer

PANEL = "Start here"
NUM_ANSWERS = 3
"""Answers shown where nobody says how many."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ask", rich_help_panel=PANEL)(ask)


def ask(  # noqa: PLR0917 - a command's options
    question: Annotated[str, typer.Argument(help="A question in words.")],
    docs: Annotated[
        Path | None,
        typer.Option(
            "--docs",
            help="Answer from the .txt, .md and .jsonl files in this folder, at any depth, or from "
            "one such file; read and embedded once, and again when they change.",
        ),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(
            "--library", help="Answer from the documents of this library (realm docs add)."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            callback=options.or_realm_mini,
            help="Run that answers, from realm finetune, or a packed one; without: realm-mini, "
            "which ships in the package.",
        ),
    ] = None,
    passages: options.Passages = None,
    num_answers: Annotated[
        int | None, typer.Option("--answers", min=1, help=f"Answers to show: {NUM_ANSWERS}.")
    ] = None,
    num_passages: Annotated[
        int | None,
        typer.Option("--read", min=1, help="Passages to read: 5, or what an imported model says."),
    ] = None,
    min_probability: options.MinProbability = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Keeps what is made of --docs; without: $REALM_CACHE, or the user's cache folder.",
        ),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Answer a question with its evidence: the exact words, and where they stand.

    A run of claims (realm finetune --task classify) says how probable each label is, and which
    passage speaks most for it.

    Example: realm ask "When does the library close?" --docs notes/
    Example: realm ask "When does the library close?" --library notes.library
    Example: realm ask "Who discovered radium?" --model runs/qa
    """
    _check_sources(docs, model, passages, cache, library)
    if model is not None and claim_commands.is_of_claims(model):
        _check_claim_options(
            model, {"--answers": num_answers, "--min-probability": min_probability}
        )
        _ask_claim(
            question, model, passages, docs or library, num_passages, device=device, as_json=as_json
        )
        return
    num_answers = num_answers or NUM_ANSWERS
    if library is not None:
        _ask_library(
            question,
            library,
            model,
            num_answers,
            num_passages,
            min_probability,
            device=device,
            as_json=as_json,
        )
        return
    opened = (
        _open_run(model, passages, device)
        if docs is None
        else _open_folder(docs, model, cache, device)
    )
    from realm.answering import Answerer, answered_as_json
    from realm.asking import placed_as_json
    from realm.cli import answer_display

    answerer = opened if isinstance(opened, Answerer) else opened.answerer
    if min_probability:
        answer_display.note_uncalibrated(answerer.why_uncalibrated)
    (answered,) = answerer.answer(
        [question],
        num_passages=num_passages,
        num_answers=num_answers,
        min_probability=min_probability,
    )
    answer_display.note_inexact(answered.why_inexact)
    if isinstance(opened, Answerer):
        told, places, same_text = answered_as_json(answered), list[str](), list[list[str]]()
    else:
        told = placed_as_json(answered, opened)
        places = [str(opened.place(one)) for one in answered.answers]
        same_text = [[str(opened.place(m)) for m in one.same_text] for one in answered.answers]
    if as_json:
        options.print_json(told)
    else:
        answer_display.show_answers(answered, places, same_text)


def _check_claim_options(model: Path, given: Mapping[str, object]) -> None:
    """Refuse options of questions, which say nothing about a claim."""
    if found := [name for name, value in given.items() if value is not None]:
        raise ConfigError(
            f"{model} classifies claims: found {' and '.join(found)}, expected none, as it tells "
            "how probable each label is"
        )


def _ask_library(
    question: str,
    library: Path,
    model: Path | None,
    num_answers: int,
    num_passages: int | None,
    min_probability: float | None,
    *,
    device: str,
    as_json: bool,
) -> None:
    from realm.cli import answer_display
    from realm.library.head import read_head
    from realm.library.loading import load
    from realm.mini import NAME

    read_head(library)  # asking makes no library
    with load(model or NAME, library=library, device=device) as realm:
        if min_probability:
            answer_display.note_uncalibrated(realm.view().answerer.why_uncalibrated)
        answered = realm.answer(
            question,
            num_passages=num_passages,
            num_answers=num_answers,
            min_probability=min_probability,
        )
    answer_display.note_inexact(answered.why_inexact)
    if as_json:
        options.print_json(answered.as_dict())
    else:
        answer_display.show_answers(
            answered.record,
            [str(one.place) for one in answered.answers],
            [[str(mention.place) for mention in one.same_text] for one in answered.answers],
        )


def _ask_claim(
    claim: str,
    model: Path,
    passages: Path | None,
    docs: Path | None,
    num_passages: int | None,
    *,
    device: str,
    as_json: bool,
) -> None:
    if docs is not None:
        raise ConfigError(
            f"{model} classifies claims, which it reads passages for: found --docs or --library, "
            "expected --passages FOLDER (from realm split), or the run's own"
        )
    claim_commands.ask_claim(
        claim,
        model=model,
        passages=passages,
        num_passages=num_passages,
        device=device,
        as_json=as_json,
    )


def _open_run(model: Path | None, passages: Path | None, device: str) -> "Answerer":
    from realm.answering import Answerer
    from realm.cli import display

    with display.progress("embedding", "passages") as advance:
        return Answerer.load(
            model, passages=passages, device=device, progress=advance, autocast="auto"
        )


def _check_sources(
    docs: Path | None,
    model: Path | None,
    passages: Path | None,
    cache: Path | None,
    library: Path | None,
) -> None:
    given = {"--docs": docs, "--library": library, "--passages": passages}
    sources = [name for name, value in given.items() if value is not None]
    if len(sources) > 1:
        raise ConfigError(
            f"found {sources[0]} beside {sources[1]}, expected one of them: --docs reads files, "
            "--library keeps documents, --passages takes what realm split made"
        )
    if docs is None and cache is not None:
        raise ConfigError("found --cache without --docs, expected both: it keeps what --docs makes")
    if docs is not None and _is_library(docs):
        raise ConfigError(f"{docs} is a library; expected --library {docs}")
    if not sources and model is None:
        raise ConfigError(
            "found nothing to answer from; expected --docs FOLDER (your own files), --library "
            "FOLDER (from realm docs add), --passages FOLDER (from realm split), or --model RUN "
            "(a run with its own passages)"
        )


def _is_library(folder: Path) -> bool:
    from realm.library.head import read_head

    try:
        read_head(folder)
    except ArtifactError:
        return False
    return True


def _open_folder(
    docs: Path, model: Path | None, cache: Path | None, device: str
) -> "FolderAnswerer":
    from realm.asking import FolderAnswerer
    from realm.cli import display

    with (
        display.progress("reading", "articles") as reading,
        display.progress("embedding", "passages") as embedding,
    ):
        answerer = FolderAnswerer.open(
            docs, model=model, cache=cache, device=device, reading=reading, embedding=embedding
        )
    display.show_skipped(answerer.skipped)
    return answerer
