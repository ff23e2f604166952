"""realm ict, mlm, index, pretrain, finetune."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import claim_commands, options
from realm.errors import ConfigError

if TYPE_CHECKING:
    from realm.training.loop import TrainReport

PANEL = "Training"
Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
PassagesArgument = Annotated[Path, typer.Argument(help="Passages, from realm split.")]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="BERT to start from: minilm, a folder, a Hugging Face id, or scratch:LAYERSxWIDTH.",
    ),
]


class Task(StrEnum):
    """What a fine-tuned run does."""

    answer = "answer"
    classify = "classify"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for name, verb in (
        ("ict", ict),
        ("mlm", mlm),
        ("pretrain", pretrain),
        ("finetune", finetune),
        ("index", index),
    ):
        app.command(name, epilog=options.settings_help(name), rich_help_panel=PANEL)(verb)


def ict(
    passages: PassagesArgument,
    out: Out,
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
    from realm.cli import display
    from realm.corpus.store import PassageStore
    from realm.torchrun import started_ranks
    from realm.training.ict import ict as train_ict

    with started_ranks() as ranks:
        report = train_ict(
            PassageStore.open(passages),
            out,
            config=settings,
            rebuild=rebuild,
            on_metrics=display.TrainingDisplay("ict", quiet=quiet),
            tensorboard=tensorboard,
            ranks=ranks,
        )
    _tell(
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
    passages: PassagesArgument,
    out: Out,
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
    from realm.cli import display
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
            on_metrics=display.TrainingDisplay("mlm", quiet=quiet),
            tensorboard=tensorboard,
            ranks=ranks,
        )
    _tell(
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
    from realm.checkpoint.checkpoints import load_model, tower_hash
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
        display.out.print(f"{done}{len(snapshot):,} passages x {tower.dim} dimensions in {out}")


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
    display.out.print(f"built {report.sweeps:,} snapshots; {report.reason}", markup=False)


def pretrain(  # noqa: PLR0917
    examples: Annotated[Path, typer.Argument(help="Masked examples, from realm mask.")],
    passages: PassagesArgument,
    embedder: Annotated[Path, typer.Option(help="Run with an embedder, from realm ict.")],
    encoder: Annotated[Path, typer.Option(help="Run with an encoder, from realm mlm.")],
    out: Out,
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
    from realm.cli import display
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
            on_metrics=display.TrainingDisplay("pretrain", quiet=quiet),
            progress=advance,
            tell=lambda sentence: display.err.print(sentence, style="yellow", markup=False),
            tensorboard=tensorboard,
            ranks=ranks,
        )
    _tell(
        report,
        quiet,
        as_json,
        "realm finetune QUESTIONS",
        passages,
        "--model",
        out,
        "--out runs/qa",
    )


def finetune(
    questions: Annotated[
        Path, typer.Argument(help='JSONL: {"question": "...", "answers": ["..."]} a line.')
    ],
    passages: PassagesArgument,
    model: Annotated[Path, typer.Option(help="Run to start from, from realm pretrain (or ict).")],
    out: Out,
    *,
    task: Annotated[
        Task,
        typer.Option(
            help="answer questions, or classify claims; then QUESTIONS holds claims: "
            '{"claim": "...", "label": "..."} a line.'
        ),
    ] = Task.answer,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="More questions: FILE, or FILE:WEIGHT, whose questions are asked WEIGHT times "
            "while those of QUESTIONS are asked once. May be repeated."
        ),
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Run to take the encoder from (mlm), if --model is of ict.")
    ] = None,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    tensorboard: options.TensorBoard = False,
) -> None:
    r"""Fine-tune for open-domain question answering: the reader and the question tower learn.

    With --set train_passages=true the passage tower learns, too, and the index is refreshed as in
    pre-training: `realm status RUN` and `realm index --follow RUN` work for both.

    Example: realm finetune questions.jsonl passages/ --model runs/pretrain --out runs/qa

    With --task classify a classifier learns in place of the reader; its settings are those of
    the table classify.

    Example: realm finetune claims.jsonl passages/ --task classify --model runs/pretrain \
    --out runs/claims
    """
    if task is Task.classify:
        if also:
            raise ConfigError(
                f"found --also {also[0]} with --task classify, expected it with questions only; "
                "put all claims into one file"
            )
        report = claim_commands.finetune_on_claims(
            questions,
            passages,
            out,
            model=model,
            encoder=encoder,
            config=config,
            sets=sets,
            rebuild=rebuild,
            quiet=quiet,
            tensorboard=tensorboard,
        )
        _tell(report, quiet, as_json, 'realm ask "..." --model', out)
        return
    from realm.checkpoint.defaults import stage_defaults
    from realm.config import FinetuneConfig, load_config

    settings = load_config(
        FinetuneConfig,
        section="finetune",
        file=config,
        overrides=sets or [],
        defaults=stage_defaults(model, "finetune"),
    )
    from realm.cli import display
    from realm.corpus.store import PassageStore
    from realm.evaluation.questions import read_questions
    from realm.torchrun import started_ranks
    from realm.training.finetune import finetune as train_reader
    from realm.training.mixing import QuestionSet

    more = [_weighted(named) for named in also or []]
    with (
        started_ranks() as ranks,
        display.progress(
            "embedding for the index", "passages", quiet=quiet or not ranks.is_first
        ) as advance,
    ):
        report = train_reader(
            read_questions(questions),
            PassageStore.open(passages),
            out,
            run=model,
            also=[
                QuestionSet(questions=read_questions(path), weight=weight) for path, weight in more
            ],
            encoder=encoder,
            config=settings,
            rebuild=rebuild,
            on_metrics=display.TrainingDisplay("finetune", quiet=quiet),
            progress=advance,
            tell=lambda sentence: display.err.print(sentence, style="yellow", markup=False),
            tensorboard=tensorboard,
            ranks=ranks,
        )
    _tell(report, quiet, as_json, 'realm ask "..." --model', out)


def _weighted(named: str) -> tuple[Path, float]:
    """Return the file and the weight of `--also FILE:WEIGHT`."""
    name, colon, weight = named.rpartition(":")
    if not colon or Path(named).is_file():
        return Path(named), 1.0
    try:
        return Path(name), float(weight)
    except ValueError:
        raise ConfigError(
            f"--also {named}: found the weight {weight!r}, expected a number, as in nq.jsonl:0.5"
        ) from None


def _tell(report: "TrainReport", quiet: bool, as_json: bool, *next_command: str | Path) -> None:
    """Print how a run ended, and the command that comes next; on the first rank only."""
    if options.rank():
        return
    from realm.cli import display

    if as_json:
        options.print_json(report)
    elif report.already_done:
        display.out.print(f"already done: {report.run} ({report.steps:,} steps)")
    else:
        resumed = f", resumed from {report.resumed_from:,}" if report.resumed_from else ""
        display.out.print(
            f"{report.steps:,} steps in {report.seconds:,.0f} s{resumed}; run in {report.run}"
        )
    if not quiet:
        display.show_next(
            " ".join(shlex.quote(str(p)) if isinstance(p, Path) else p for p in next_command)
        )
