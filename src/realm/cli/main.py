"""The command `realm`: one verb for each stage; errors become a sentence and exit code 2."""

import io
import os
import sys
from typing import Annotated, Any

import typer

from realm.cli.guessing import as_typed, lead_on
from realm.cli.options import check_ranks
from realm.errors import RealmError
from realm.memory import limit_kernel_cache
from realm.readable import visible

FAILED = 2
INTERRUPTED = 130
"""After Ctrl-C: 128 + SIGINT, as shells count."""


def run() -> None:
    """Run the command line; the entry point of `realm`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the locale cannot write is escaped
            stream.reconfigure(errors="backslashreplace")
    code = _run()
    if code == INTERRUPTED:
        sys.stderr.write("\nstopped: nothing finished is lost, the same command resumes\n")
        _leave(code)  # at once: taking torch down takes seconds
    if code == 0 and os.environ.get("WORLD_SIZE", "1") != "1":
        _leave(code)  # a busy machine's rank may abort while torch's threads are taken down
    sys.exit(code)


def _leave(code: int) -> None:
    """End the process without taking anything down; what was to be written is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def build_app() -> typer.Typer:
    """Return the command line with all its verbs."""
    from realm.cli import (
        aligning_commands,
        answering_commands,
        asking_commands,
        calibrating_commands,
        corpus_commands,
        doctor_commands,
        document_commands,
        evaluating_commands,
        exchange_commands,
        finetune_commands,
        index_commands,
        mcp_commands,
        planning_commands,
        report_commands,
        serving_commands,
        status_commands,
        study_commands,
        training_commands,
        verifying_commands,
    )

    app = typer.Typer(
        name="realm",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Each verb explains itself: realm split --help",
    )
    app.callback()(_realm)
    asking_commands.register(app)
    answering_commands.register_quickstart(app)
    doctor_commands.register(app)
    for part in (
        corpus_commands,
        training_commands,
        finetune_commands,
        index_commands,
        status_commands,
        report_commands,
        document_commands,
        answering_commands,
        serving_commands,
        mcp_commands,
        calibrating_commands,
        evaluating_commands,
        aligning_commands,
        exchange_commands,
        planning_commands,
        study_commands,
        verifying_commands,
    ):
        part.register(app)
    return app


def _run() -> int:
    """Return the exit code."""
    limit_kernel_cache()  # read when the first kernel is made
    try:
        arguments = as_typed(sys.argv[1:])
        check_ranks(arguments[0])
        return build_app()(arguments, prog_name="realm", standalone_mode=False) or 0
    except RealmError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        return _fail(
            f"{error.filename or 'a file'}: {error.strerror or error}; free space or mend the "
            "permissions. Nothing finished before is lost, the same command resumes"
        )
    except Exception as error:
        message = _usage(error) or _no_room(error)
        if message is None:
            raise
        return _fail(message)


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {visible(message)}\n")
    return FAILED


def _usage(error: Exception) -> str | None:
    """Return what typer says of a command that it cannot parse, None for any other error."""
    told = getattr(error, "format_message", None)  # wherever a release of typer keeps its errors
    if told is None:
        return None
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is None:
        return lead_on(str(told()), "realm", "")
    return lead_on(str(told()), context.command_path, context.command.help or "")


def _no_room(error: Exception) -> str | None:
    """Return what to say where a GPU's memory is full, None for any other error."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    return (
        f"the GPU's memory is full ({str(error).partition(' GPU ')[0].strip()}). Nothing finished "
        "is lost: end what else holds its memory and run the same command again; where nothing "
        "does, with a smaller batch_tokens: a run goes on with it"
    )


def _show_version(value: bool) -> bool:
    if value:
        from realm.versions import realm_version

        typer.echo(f"realm {realm_version()}")
        raise typer.Exit
    return value


def _realm(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Answer from your own files, with evidence; pre-train retriever and language model together.

    Ask a folder of files: realm ask "When does the library close?" --docs notes/
    See every stage at work: realm quickstart

    Each stage reads folders and writes one folder, whole or absent.
    Running it again is free ("already done"); one that was stopped resumes.
    """
    del version
