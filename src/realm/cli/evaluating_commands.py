"""realm evaluate, compare."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from realm.cli import claim_commands, options
from realm.errors import ConfigError

if TYPE_CHECKING:
    from realm.corpus.store import PassageStore
    from realm.evaluation.evaluate import Answerer
    from realm.evaluation.train_overlap import TrainOverlap

PANEL = "Answers"
CLOSED_BOOK = "closed-book"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    told = options.settings_help("evaluate")
    app.command("evaluate", epilog=told, rich_help_panel=PANEL)(evaluate)
    app.command("compare", rich_help_panel=PANEL)(compare)


def evaluate(
    questions: Annotated[
        Path, typer.Argument(help='JSONL: {"question": "...", "answers": ["..."]} a line.')
    ],
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            callback=options.or_realm_mini,
            help="Run that answers: realm finetune (closed-book: pretrain); without: realm-mini, "
            "which ships in the package, over --passages.",
        ),
    ] = None,
    passages: options.Passages = None,
    retriever: Annotated[
        str,
        typer.Option(
            metavar="NAME|RUN",
            help="Who finds the passages: the run itself, as it was trained (own), its embedder "
            "with BM25 or without (hybrid, dense), a baseline under the same reader (bm25, "
            "minilm), or the folder of another run, e.g. of realm ict. closed-book: no passages "
            "and no reader, the encoder fills in what it knows by heart.",
        ),
    ] = "own",
    encoder: Annotated[
        Path | None,
        typer.Option(help="Run whose encoder answers closed-book, where --model has none."),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            "--train",
            metavar="FILE",
            help="Questions trained on: adds numbers for what they give away; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", dir_okay=False, help="JSON file to write the report to, too."),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    config: options.Config = None,
    sets: options.Sets = None,
) -> None:
    """Measure exact match, F1, answer recall and more, with 95 % intervals.

    Of a run of claims (realm finetune --task classify): accuracy, precision and recall of each
    label, and which label is taken for which.

    Example: realm evaluate questions.jsonl --passages passages/
    Example: realm evaluate questions.jsonl --model runs/qa --set limit=500
    Example: realm evaluate questions.jsonl --model runs/qa --retriever runs/ict --out ict.json
    """
    if model is not None and claim_commands.is_of_claims(model):
        if train or encoder is not None:
            raise ConfigError(
                f"{model} classifies claims: found {'--train' if train else '--encoder'}, expected "
                "it with a run that answers questions"
            )
        claim_commands.evaluate_on_claims(
            questions,
            model=model,
            passages=passages,
            retriever=retriever,
            out=out,
            device=device,
            as_json=as_json,
            config=config,
            sets=sets,
        )
        return
    from realm.checkpoint.defaults import stage_defaults
    from realm.config import EvaluateConfig, load_config
    from realm.mini import default_model

    settings = load_config(
        EvaluateConfig,
        section="evaluate",
        file=config,
        overrides=sets or [],
        defaults=stage_defaults(model or default_model(), "evaluate"),
    )
    _check_sources(model, retriever, encoder, passages)
    from realm.cli import display
    from realm.evaluation.evaluate import evaluate as measure
    from realm.evaluation.overlap import gold_overlap
    from realm.evaluation.questions import read_questions
    from realm.evaluation.report import write_report
    from realm.evaluation.retrievers import check_retriever

    if retriever != CLOSED_BOOK:
        check_retriever(retriever)  # before the questions are read
    asked = read_questions(questions)
    seen = _read_training(train or ())
    answerer, store, name = _open(model, retriever, encoder, passages, device)
    with display.progress("answering", "questions") as advance:
        report = measure(
            answerer,
            store,
            asked,
            config=settings,
            split_name=questions.name,
            retriever_name=name,
            retrieves=retriever != CLOSED_BOOK,
            overlap=partial(gold_overlap, store),
            train_overlap=seen,
            progress=advance,
        )
    if as_json:
        options.print_json(report.as_json())
    else:
        display.out.print(report.table(), markup=False)
    if out is not None:  # last: where it cannot be written, the numbers were seen
        write_report(report, out)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Report of realm evaluate.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another, same questions.")],
    samples: Annotated[
        int, typer.Option(min=100, help="Resamplings of the questions behind each interval.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides the resamplings.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Tell whether one run is better than another: differences with 95 % intervals, and McNemar.

    Both must be about the same passages, questions (file, limit, seed) and rules.
    A - B is paired by question; its interval is a bootstrap over questions.
    "only A" counts the questions that A alone has right. McNemar p, exact and
    two-sided, says how often two equally good runs would differ as much by chance.

    Example: realm compare dense.json bm25.json
    """
    from realm.cli import display
    from realm.evaluation.comparing import ReportFile
    from realm.evaluation.comparing import compare as measure

    found = measure(ReportFile.read(first), ReportFile.read(second), samples=samples, seed=seed)
    if as_json:
        options.print_json(found.as_json())
    else:
        display.out.print(found.table(), markup=False)


def _check_sources(
    model: Path | None, retriever: str, encoder: Path | None, passages: Path | None
) -> None:
    if encoder is not None and retriever != CLOSED_BOOK:
        raise ConfigError(
            f"found --encoder beside --retriever {retriever}, expected it only with --retriever "
            f"{CLOSED_BOOK}: the run's own reader answers otherwise"
        )
    if model is not None:
        return
    if retriever == CLOSED_BOOK:
        raise ConfigError(
            f"found --retriever {CLOSED_BOOK} without --model, expected a run with an encoder "
            "(realm pretrain or mlm): realm-mini, which answers otherwise, has none"
        )
    if passages is None:
        raise ConfigError(
            "found neither --model nor --passages; expected --model RUN (with its own passages), "
            "or --passages FOLDER (from realm split) for realm-mini to answer from"
        )


def _open(
    model: Path | None, retriever: str, encoder: Path | None, passages: Path | None, device: str
) -> "tuple[Answerer, PassageStore, str]":
    """Return who answers, from which passages, and the name of what finds them."""
    if model is not None and retriever == CLOSED_BOOK:
        from realm.evaluation.closed_book import ClosedBook

        reciting = ClosedBook.load(model, encoder=encoder, passages=passages, device=device)
        return reciting, reciting.store, CLOSED_BOOK
    from realm.answering import Answerer
    from realm.cache import cache_folder
    from realm.cli import display
    from realm.evaluation.retrievers import needs_index, use_retriever
    from realm.mini import NAME

    kept_in = model or cache_folder() / NAME
    with display.progress("embedding", "passages") as advance:
        reading = Answerer.load(
            model,
            passages=passages,
            device=device,
            is_indexed=needs_index(retriever),
            progress=advance,
        )
        name = use_retriever(reading, retriever, run=kept_in, device=device, progress=advance)
    store = cast("PassageStore", reading.store)  # it was loaded from a folder of passages
    return reading, store, name


def _read_training(files: Sequence[Path]) -> "TrainOverlap | None":
    """Return the training questions, None where no file was named."""
    if not files:
        return None
    from realm.evaluation.questions import read_questions
    from realm.evaluation.train_overlap import TrainOverlap

    names = [file.name for file in files]
    is_clear = len(set(names)) == len(names)
    read = {file.name if is_clear else str(file): read_questions(file) for file in files}
    return TrainOverlap(read)
