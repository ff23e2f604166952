"""realm calibrate: when a run is to be believed, and when it says "no answer"."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import options
from realm.readable import counted

if TYPE_CHECKING:
    from realm.checkpoint.calibration import Calibration


def register(app: typer.Typer) -> None:
    """Add the verb."""
    told = options.settings_help("calibrate")
    app.command("calibrate", epilog=told, rich_help_panel="Answers")(calibrate)


def calibrate(
    questions: Annotated[
        Path,
        typer.Argument(
            help="JSONL with answers, as for evaluate; not what the run was trained on."
        ),
    ],
    model: Annotated[Path, typer.Option("--model", help="Run that answers, from realm finetune.")],
    passages: options.Passages = None,
    retriever: Annotated[
        str,
        typer.Option(
            metavar="NAME|RUN",
            help="Who finds the passages when the run is asked later: as for evaluate.",
        ),
    ] = "own",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    config: options.Config = None,
    sets: options.Sets = None,
) -> None:
    """Fit the chance that an answer is right, and the threshold of "no answer".

    It is written beside the model (calibration.json); ask and evaluate use it from then on.

    Example: realm calibrate questions.jsonl --model runs/qa --set limit=1500
    """
    from realm.config import CalibrateConfig, load_config

    settings = load_config(CalibrateConfig, section="calibrate", file=config, overrides=sets or [])
    from realm.answering import Answerer
    from realm.checkpoint.calibration import save_calibration
    from realm.checkpoint.sources import run_of
    from realm.cli import display
    from realm.evaluation.calibrating import calibrate as fit
    from realm.evaluation.questions import read_questions
    from realm.evaluation.retrievers import check_retriever, needs_index, use_retriever

    check_retriever(retriever)
    asked = read_questions(questions)
    with display.progress("embedding", "passages") as advance:
        answerer = Answerer.load(
            model,
            passages=passages,
            device=device,
            is_indexed=needs_index(retriever),
            progress=advance,
        )
        use_retriever(answerer, retriever, run=run_of(model), device=device, progress=advance)
    with display.progress("answering", "questions") as advance:
        calibration = fit(answerer, asked, config=settings, progress=advance)
    if as_json:
        options.print_json(calibration.as_json())
    else:
        display.out.print(_told(calibration), markup=False)
    path = save_calibration(run_of(model), calibration)  # last: if it fails, the numbers were seen
    if not as_json:
        display.out.print(f"wrote {path}", markup=False)


def _told(calibration: "Calibration") -> str:
    """Return the figures as lines of plain text."""
    figures = calibration.figures
    lines = [
        f"{counted(figures['num_questions'], 'question')}, "
        f"{100 * figures['accuracy']:.1f} % answered right; "
        f"{figures['num_without_answers']:,} of them again without the passages that hold "
        "an answer",
        "",
        f"{'probabilities':<14}{'calibration error':>18}{'by chance':>11}{'AURC':>8}",
    ]
    for name in ("raw", "temperature", "calibrated"):
        one = figures[name]
        lines.append(
            f"{name:<14}{one['ece']:>18.3f}{one['ece_by_chance']:>11.3f}{one['aurc']:>8.3f}"
        )
    refused = figures["share_of_without_answers_refused"]
    return "\n".join(
        [
            *lines,
            "",
            f'"no answer" below {calibration.min_probability:.4g}: {100 * refused:.1f} % of those '
            f"without an answer, {100 * figures['share_of_right_refused']:.1f} % of the right ones",
            "(every figure on questions that it was not fitted to)",
        ]
    )
