"""The command `realm`: one verb for each stage; errors become a sentence and exit code 2."""

import os
import sys
from typing import Annotated

import typer

from realm import __version__
from realm.errors import RealmError

app = typer.Typer(
    name="realm",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: realm quickstart",
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"realm {__version__}")
        raise typer.Exit


@app.callback()
def realm(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Pre-train a retriever and a masked language model together; answer with evidence.

    Each verb reads folders and writes one folder, whole or absent, with a manifest. Running a
    verb again is free ("already done"); a killed one resumes.
    """
    del version


def run() -> None:
    """Run the command line; the entry point of `realm`."""
    from realm.cli import answering_commands, corpus_commands, training_commands

    for part in (corpus_commands, training_commands, answering_commands):
        part.register(app)
    try:
        app()
    except RealmError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command resumes\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(
            f"{error.strerror or error}: {error.filename or 'a file'}; "
            "nothing finished before is lost, the same command resumes"
        )


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
