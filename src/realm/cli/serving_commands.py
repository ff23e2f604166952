"""realm serve."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import options
from realm.errors import ConfigError
from realm.memory import share_one_heap
from realm.readable import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from realm.library.face import Realm
    from realm.serving.service import WatchState
    from realm.serving.settings import Access

TOKEN = "REALM_TOKEN"  # noqa: S105 - the name of a variable
PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
"""What the extra brings, as it is imported."""
MIN_TOKEN = 16
"""Characters; fewer are guessed."""
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve", rich_help_panel="Answers")(serve)


def serve(  # noqa: PLR0917
    docs: Annotated[
        Path | None,
        typer.Option(
            "--docs",
            help="Answer from the .txt, .md and .jsonl files in this folder; read and embedded "
            "once, and again where they changed.",
        ),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(
            "--library",
            help="Answer from the documents in this library, which clients may change; made where "
            "there is none.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            callback=options.or_realm_mini,
            help="Run that answers, or a packed one; without: realm-mini.",
        ),
    ] = None,
    passages: options.Passages = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            "--encoder", help="Run of realm pretrain that fills blanks, where the model cannot."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0: all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File with the token that clients must send (or ${TOKEN}); without: none."
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look at --docs all the time, and follow what changes.")
    ] = False,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", help="Folder with training runs to show; may be repeated."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="Web page that may call; may be repeated."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="Name that clients may use; may be repeated."
        ),
    ] = None,
    proxies: Annotated[
        str | None,
        typer.Option(
            "--proxy", help="Addresses, with commas, whose X-Forwarded-For names the client."
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.01, help="Requests a second of one client, for long.")
    ] = 50.0,
    queue: Annotated[int, typer.Option(min=1, help="Questions that may wait.")] = 64,
    batch: Annotated[
        int, typer.Option(min=1, help="Questions answered together; 1: one at a time.")
    ] = 8,
    max_upload: Annotated[
        int, typer.Option("--max-upload", min=1, help="Longest upload in MiB.")
    ] = 64,
    access_log: Annotated[bool, typer.Option(help="A line for each request.")] = False,
    device: options.Device = "auto",
) -> None:
    """Serve answers over HTTP, with a page to ask them from.

    The address is printed once the model is loaded. SIGINT or SIGTERM stops it: what is in flight
    is finished, what comes is refused.

    Example: realm serve --docs notes/ --watch
    Example: realm serve --library library --token-file token --host 0.0.0.0
    """
    _check_sources(docs, library, passages, watch=watch)
    _check_runs(runs or ())
    _check_packages()
    access = _access(host, cors, allow_host, _token(token_file))
    from realm.serving.server import address_of, bind

    bound = bind(host, port)
    from realm.serving.app import build_app
    from realm.serving.server import make_server
    from realm.serving.server import serve as run
    from realm.serving.service import Service
    from realm.serving.settings import Batching, Limits

    limits = Limits(
        upload_bytes=max_upload << 20,
        requests_per_second=rate,
        burst=max(1, round(2 * rate)),
        max_waiting=queue,
    )
    share_one_heap()
    with _open(docs, library, model, passages, encoder, device) as opened:
        _note_open(host, access)
        service = Service(
            opened,
            limits=limits,
            batching=Batching(max_questions=batch),
            runs=tuple(runs or ()),
            watch=_watch(opened, docs if watch else None),
        )
        server = make_server(
            build_app(service, access=access),
            service,
            trusted_proxies=proxies,
            access_log=access_log,
            on_ready=lambda: typer.echo(f"listening at {address_of(bound)}  (stop: Ctrl-C)"),
        )
        run(server, bound)
    typer.echo("stopped", err=True)


def _check_sources(
    docs: Path | None,
    library: Path | None,
    passages: Path | None,
    *,
    watch: bool,
) -> None:
    named = [
        name
        for name, value in {"--docs": docs, "--library": library, "--passages": passages}.items()
        if value is not None
    ]
    if len(named) > 1:
        raise ConfigError(f"found {' beside '.join(named)}, expected one of them")
    if watch and docs is None:
        raise ConfigError("found --watch without --docs FOLDER, expected the folder to look at")


def _check_runs(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"--runs: found no folder {folder}, expected one with training runs in it; make it "
                "first if they are still to come"
            )


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"`realm serve` needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'realm-lm[serve]'"
        )


def _token(file: Path | None) -> str | None:
    """Return the token of a file, else of the environment.

    Raises:
        ConfigError: it cannot be sent in a header, or there is no such file.
    """
    source, text = f"${TOKEN}", os.environ.get(TOKEN)
    if file is not None:
        try:
            source, text = str(file), file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"found no text in {file}, expected a file with a token") from None
    if text is None:
        return None
    token = text.strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{source} holds {counted(len(token), 'character')}; expected a token of at least "
            f"{MIN_TOKEN} letters and digits: openssl rand -hex 32"
        )
    return token


def _access(
    host: str, cors: list[str] | None, allow_host: list[str] | None, token: str | None
) -> "Access":
    from realm.serving.settings import LOOPBACK, Access

    hosts = ("*",) if host in ANY_ADDRESS and not allow_host else (*LOOPBACK, host)
    origins = tuple(origin.lower().rstrip("/") for origin in cors or ())  # as browsers say them
    return Access(token=token, origins=origins, hosts=(*hosts, *(allow_host or ())))


def _note_open(host: str, access: "Access") -> None:
    from realm.serving.settings import LOOPBACK

    if host not in LOOPBACK and access.token is None:
        typer.echo(
            "note: everyone who reaches this machine may ask and change documents; a token keeps "
            f"them out: --token-file FILE or ${TOKEN}",
            err=True,
        )


def _watch(opened: "Realm", folder: Path | None) -> "Callable[[], WatchState]":
    """Follow a folder, and say on stderr what could not be done; return how that goes."""
    from realm.cli import display

    if folder is None:
        return lambda: "off"
    watcher = opened.watch(
        folder, on_error=lambda error: display.err.print(f"not now: {error}", markup=False)
    )
    return lambda: "on" if watcher.error is None else "failing"


def _open(
    docs: Path | None,
    library: Path | None,
    model: Path | None,
    passages: Path | None,
    encoder: Path | None,
    device: str,
) -> "Realm":
    import realm
    from realm.cli import display

    with display.progress("embedding", "passages") as advance:
        opened = realm.load(
            model or "realm-mini",
            docs=docs,
            library=library,
            passages=passages,
            encoder=encoder,
            device=device,
            progress=advance,
        )
    display.show_skipped(opened.skipped)
    return opened
