"""realm index: build a snapshot, or follow a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.errors import ConfigError
from realm.readable import counted


def register(app: typer.Typer) -> None:
    """Add the verb."""
    epilog = options.settings_help("index")
    app.command("index", epilog=epilog, rich_help_panel=options.TRAINING)(index)


def index(  # noqa: PLR0917
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Run or checkpoint with an embedder.")
    ] = None,
    passages: Annotated[
        Path | None, typer.Argument(help="Passages folder, from realm split.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Snapshot folder to write.")] = None,
    follow: Annotated[
        Path | None,
        typer.Option(
            "--follow",
            help="Build snapshots for this run until it is finished, beside its "
            "trainer, on this or another machine that sees its folder.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads (default: all cores).")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="With --follow: longest wait for a trainer, in seconds.")
    ] = 3_600.0,
    device: options.Device = "auto",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Embed every passage, once (a snapshot) or for as long as a run trains (a builder).

    A snapshot of your own is for searches from Python (realm.index.snapshot); the other verbs
    embed what they search by themselves.

    Example: realm index runs/ict passages/ --out index/

    Example: realm index --follow runs/pretrain

    Under torchrun the processes share the shards: torchrun --nproc-per-node=4 -m realm index ...
    """
    if threads:
        import torch

        torch.set_num_threads(threads)
    if follow is not None:
        _check_follow(
            {"a second PASSAGES": passages, "--out": out, "--config": config, "--set": sets}
            | {"--rebuild": rebuild}
        )
        _follow(
            follow,
            checkpoint,
            patience=patience,
            device=device,
            parent=parent,
            quiet=quiet,
            as_json=as_json,
        )
        return
    if checkpoint is None or passages is None or out is None:
        raise ConfigError(
            "expected a run, its passages and a folder to write: realm index RUN PASSAGES --out "
            "FOLDER; or realm index --follow RUN, to build for a run that trains"
        )
    from realm.config import IndexConfig, load_config

    settings = load_config(IndexConfig, section="index", file=config, overrides=sets or [])
    from realm.checkpoint.checkpoints import load_model
    from realm.checkpoint.parts import tower_hash
    from realm.cli import display
    from realm.corpus.store import PassageStore
    from realm.device import choose_device
    from realm.index.builder import EmbedderVersion, build_index
    from realm.storage import MANIFEST

    tower = load_model(checkpoint).need_towers().passage.to(choose_device(device))
    store = PassageStore.open(passages)
    done = "already done: " if (out / MANIFEST).is_file() and not rebuild else ""
    share = (options.rank(), options.world_size())
    if share[1] > 1:  # enough shards to share, as many whatever the number of processes
        shard_rows = min(settings.shard_rows, max(1_024, -(-len(store) // 16)))
        settings = settings.model_copy(update={"shard_rows": shard_rows})
    with display.progress("embedding", "passages", quiet=quiet or share[0] > 0) as advance:
        snapshot = build_index(
            tower,
            store,
            out,
            version=EmbedderVersion(model_hash=tower_hash(tower)),
            config=settings,
            rebuild=rebuild,
            share=share,
            progress=advance,
        )
    if share[0] == 0 and as_json:
        told = {"out": out, "num_passages": len(snapshot), "dim": tower.dim}
        options.print_json({**told, "already_done": bool(done)})
    elif share[0] == 0:
        display.out.print(
            f"{done}{counted(len(snapshot), 'passage')} x {tower.dim} dimensions in {out}",
            markup=False,
        )


def _check_follow(beside: Mapping[str, object]) -> None:
    """Refuse what a builder does not look at."""
    if given := [name for name, value in beside.items() if value]:
        raise ConfigError(
            f"found {' and '.join(given)} beside --follow, expected none of it: a builder takes "
            "its settings from the run and writes into the run's folder; realm index --follow RUN, "
            "or realm index PASSAGES --follow RUN where they lie elsewhere on this machine"
        )


def _follow(
    run: Path,
    passages: Path | None,
    *,
    patience: float,
    device: str,
    parent: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Be a builder of a run."""
    import os

    from realm.cli import display
    from realm.refresh.following import FollowConfig, follow

    def tell(sentence: str) -> None:
        if not quiet:
            display.err.print(sentence, markup=False)

    report = follow(
        run,
        passages=passages,
        config=FollowConfig(patience_seconds=patience, device=device),
        tell=tell,
        is_parent_alive=lambda: parent is None or os.getppid() == parent,
    )
    if as_json:
        options.print_json(report)
        return
    built = counted(report.sweeps, "snapshot")
    display.out.print(f"built {built}; {report.reason}", markup=False)
