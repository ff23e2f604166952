"""realm ict, mlm, pretrain."""

from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.cli.telling import tell_trained

Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="BERT to start from: minilm, a folder, a Hugging Face id, or scratch:LAYERSxWIDTH.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for name, verb in (("ict", ict), ("mlm", mlm), ("pretrain", pretrain)):
        app.command(name, epilog=options.settings_help(name), rich_help_panel=options.TRAINING)(
            verb
        )


def ict(
    passages: options.PassagesArgument,
    out: options.Out,
    init: Init = None,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    tensorboard: options.TensorBoard = False,
) -> None:
    """Warm-start the embedder by the Inverse Cloze Task: which passage lost this sentence?

    Example: realm ict passages/ --out runs/ict --set steps=200
    """
    from realm.config import IctConfig, load_config

    told = options.with_options(sets, encoder__init=init)
    settings = load_config(IctConfig, section="ict", file=config, overrides=told)
    from realm.cli import display, training_display
    from realm.corpus.store import PassageStore
    from realm.torchrun import started_ranks
    from realm.training.ict import ict as train_ict

    with started_ranks() as ranks:
        report = train_ict(
            PassageStore.open(passages),
            out,
            config=settings,
            rebuild=rebuild,
            on_metrics=training_display.TrainingDisplay("ict", quiet=quiet),
            tell=display.tell,
            tensorboard=tensorboard,
            ranks=ranks,
        )
    tell_trained(
        report,
        quiet,
        as_json,
        "realm pretrain EXAMPLES",
        passages,
        "--embedder",
        out,
        "--encoder MLM_RUN --out runs/pretrain",
    )


def mlm(
    passages: options.PassagesArgument,
    out: options.Out,
    init: Init = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Examples of these passages, from realm mask: the encoder also learns to read one "
            "passage about another."
        ),
    ] = None,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    tensorboard: options.TensorBoard = False,
) -> None:
    """Warm-start the encoder: masked language modelling with a passage to read.

    Example: realm mlm passages/ --examples examples/ --out runs/mlm --set steps=200
    """
    from realm.config import MlmConfig, load_config

    told = options.with_options(sets, encoder__init=init)
    settings = load_config(MlmConfig, section="mlm", file=config, overrides=told)
    from realm.cli import display, training_display
    from realm.corpus.store import PassageStore
    from realm.masking.store import ExampleStore
    from realm.torchrun import started_ranks
    from realm.training.mlm import mlm as train_mlm

    with started_ranks() as ranks:
        report = train_mlm(
            PassageStore.open(passages),
            out,
            config=settings,
            examples=ExampleStore.open(examples) if examples else None,
            rebuild=rebuild,
            on_metrics=training_display.TrainingDisplay("mlm", quiet=quiet),
            tell=display.tell,
            tensorboard=tensorboard,
            ranks=ranks,
        )
    tell_trained(
        report,
        quiet,
        as_json,
        "realm pretrain",
        examples or "EXAMPLES",
        passages,
        "--embedder ICT_RUN --encoder",
        out,
        "--out runs/pretrain",
    )


def pretrain(  # noqa: PLR0917
    examples: Annotated[Path, typer.Argument(help="Masked examples, from realm mask.")],
    passages: options.PassagesArgument,
    embedder: Annotated[Path, typer.Option(help="Run with an embedder, from realm ict.")],
    encoder: Annotated[Path, typer.Option(help="Run with an encoder, from realm mlm.")],
    out: options.Out,
    refresh: Annotated[
        str | None,
        typer.Option(help="async, sync or off: short for --set refresh.mode=... (default: async)."),
    ] = None,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    tensorboard: options.TensorBoard = False,
) -> None:
    r"""Pre-train retriever and encoder together (Eq. 1), refreshing the index as they learn.

    Builders embed the passages anew beside the trainer, which never waits for them (--refresh
    async); look on with `realm status RUN`.

    Example: realm pretrain examples/ passages/ --embedder runs/ict \
    --encoder runs/mlm --out runs/pretrain --set refresh.every_steps=100
    """
    from realm.checkpoint.defaults import stage_defaults
    from realm.config import PretrainConfig, load_config

    settings = load_config(
        PretrainConfig,
        section="pretrain",
        file=config,
        overrides=[*(sets or []), *([f"refresh.mode={refresh}"] if refresh else [])],
        defaults=stage_defaults(embedder, "pretrain") | stage_defaults(encoder, "pretrain"),
    )
    from realm.cli import display, training_display
    from realm.corpus.store import PassageStore
    from realm.masking.store import ExampleStore
    from realm.torchrun import started_ranks
    from realm.training.pretrain import pretrain as train_jointly

    with (
        started_ranks() as ranks,
        display.progress(
            "embedding for the index", "passages", quiet=quiet or not ranks.is_first
        ) as advance,
    ):
        report = train_jointly(
            ExampleStore.open(examples),
            PassageStore.open(passages),
            out,
            embedder=embedder,
            encoder=encoder,
            config=settings,
            rebuild=rebuild,
            on_metrics=training_display.TrainingDisplay("pretrain", quiet=quiet),
            progress=advance,
            tell=display.tell,
            tensorboard=tensorboard,
            ranks=ranks,
        )
    tell_trained(
        report,
        quiet,
        as_json,
        "realm finetune QUESTIONS",
        passages,
        "--model",
        out,
        "--out runs/qa",
    )
