"""realm finetune, on questions or on claims."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from realm.cli import claim_commands, options
from realm.cli.telling import tell_trained
from realm.errors import ConfigError


class Task(StrEnum):
    """What a fine-tuned run does."""

    answer = "answer"
    classify = "classify"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    epilog = options.settings_help("finetune")
    app.command("finetune", epilog=epilog, rich_help_panel=options.TRAINING)(finetune)


def finetune(
    questions: Annotated[
        Path, typer.Argument(help='JSONL: {"question": "...", "answers": ["..."]} a line.')
    ],
    passages: options.PassagesArgument,
    model: Annotated[
        Path,
        typer.Option(
            help="Run to start from, from realm pretrain (or ict); or to go on from: of finetune, "
            "a packed one, realm-mini.",
            callback=options.run_of_name,
        ),
    ],
    out: options.Out,
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
        tell_trained(report, quiet, as_json, 'realm ask "..." --model', out)
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
    from realm.cli import display, training_display
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
            on_metrics=training_display.TrainingDisplay("finetune", quiet=quiet),
            progress=advance,
            tell=display.tell,
            tensorboard=tensorboard,
            ranks=ranks,
        )
    tell_trained(report, quiet, as_json, 'realm ask "..." --model', out)


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
