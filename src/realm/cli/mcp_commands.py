"""realm mcp."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import options
from realm.errors import ConfigError

if TYPE_CHECKING:
    from realm.library.face import Realm
    from realm.records import Progress

PANEL = "Answers"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("mcp", rich_help_panel=PANEL)(mcp)


def mcp(
    docs: Annotated[
        Path | None,
        typer.Option("--docs", help="Answer from the .txt, .md and .jsonl files in this folder."),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option("--library", help="Answer from this library, made where it is missing."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            callback=options.or_realm_mini,
            help="Run that answers, or a packed one; without: realm-mini.",
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Without the tools that add and remove documents."),
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Serve an assistant over standard input and output: answers, search, documents (extra: mcp).

    Not for a terminal: a program that speaks the Model Context Protocol starts it.

    Example: realm mcp --docs notes/
    """
    _check_sources(docs, library, model)
    try:
        from realm.adapters.mcp import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"mcp", "mcp_types"}:
            raise
        raise ConfigError(
            "`realm mcp` needs the package mcp, which is not installed; run "
            '`pip install "realm-lm[mcp]"`'
        ) from None
    from realm import load
    from realm.cli import display

    def opened(progress: "Progress") -> "Realm":
        found = load(
            model or "realm-mini", docs=docs, library=library, device=device, progress=progress
        )
        display.show_skipped(found.skipped)
        return found

    if not serve(opened, can_change=not read_only):
        os._exit(0)  # a thread amid torch cannot be asked to end; what it embedded is kept


def _check_sources(docs: Path | None, library: Path | None, model: Path | None) -> None:
    if docs is not None and library is not None:
        raise ConfigError(
            "found --docs beside --library, expected one of them: --docs reads a folder of files, "
            "--library holds documents that were added"
        )
    if docs is None and library is None and model is None:
        raise ConfigError(
            "found nothing to answer from; expected --docs FOLDER (your own files), "
            "--library FOLDER, or --model RUN (a run with its own passages)"
        )
    if docs is not None and not docs.exists():
        raise ConfigError(f"found no folder {docs}, expected one with .txt, .md or .jsonl files")
