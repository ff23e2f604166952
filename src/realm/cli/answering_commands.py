"""realm evaluate, ask, explain, quickstart."""

import json
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import claim_commands, options
from realm.errors import ConfigError

if TYPE_CHECKING:
    from realm.answering import Answerer
    from realm.classifying import ClaimClassifier

PANEL = "Answers"
Run = Annotated[Path, typer.Option("--model", help="Run that answers, from realm finetune.")]


class Retriever(StrEnum):
    """Who finds the passages that the reader reads."""

    dense = "dense"
    bm25 = "bm25"
    minilm = "minilm"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("ask", rich_help_panel=PANEL)(ask)
    app.command("explain", rich_help_panel=PANEL)(explain)
    told = options.settings_help("evaluate")
    app.command("evaluate", epilog=told, rich_help_panel=PANEL)(evaluate)


def register_quickstart(app: typer.Typer) -> None:
    """Add the verb that a stranger should see first."""
    app.command("quickstart", rich_help_panel="Start here")(quickstart)


def evaluate(
    questions: Annotated[
        Path, typer.Argument(help='JSONL: {"question": "...", "answers": ["..."]} a line.')
    ],
    model: Run,
    passages: options.Passages = None,
    retriever: Annotated[
        Retriever,
        typer.Option(help="The run's own (dense), or a baseline under the same reader."),
    ] = Retriever.dense,
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

    Example: realm evaluate questions.jsonl --model runs/qa --set limit=500
    """
    if claim_commands.is_of_claims(model):
        claim_commands.evaluate_on_claims(
            questions,
            model=model,
            passages=passages,
            retriever=retriever.value,
            use_retriever=lambda classifier: _use_retriever(classifier, retriever, model),
            out=out,
            device=device,
            as_json=as_json,
            config=config,
            sets=sets,
        )
        return
    from realm.checkpoint.defaults import stage_defaults
    from realm.config import EvaluateConfig, load_config

    settings = load_config(
        EvaluateConfig,
        section="evaluate",
        file=config,
        overrides=sets or [],
        defaults=stage_defaults(model, "evaluate"),
    )
    from realm.answering import Answerer
    from realm.cli import display
    from realm.evaluation.evaluate import evaluate as measure
    from realm.evaluation.overlap import gold_overlap
    from realm.evaluation.questions import read_questions
    from realm.evaluation.report import write_report

    asked = read_questions(questions)
    with display.progress("embedding", "passages") as advance:
        answerer = Answerer.load(model, passages=passages, device=device, progress=advance)
        _use_retriever(answerer, retriever, model)
    with display.progress("answering", "questions") as advance:
        report = measure(
            answerer,
            answerer.store,
            asked,
            config=settings,
            split_name=questions.name,
            retriever_name=retriever.value,
            overlap=partial(gold_overlap, answerer.store),
            progress=advance,
        )
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        display.out.print(report.table(), markup=False)
    if out is not None:  # last: where it cannot be written, the numbers were seen
        write_report(report, out)


def ask(
    question: Annotated[str, typer.Argument(help="A question in words.")],
    model: Run,
    passages: options.Passages = None,
    num_answers: Annotated[int, typer.Option("--answers", min=1, help="Answers to show.")] = 3,
    num_passages: Annotated[
        int | None,
        typer.Option("--read", min=1, help="Passages to read: 5, or what an imported model says."),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Answer a question with its evidence: the exact words, and where they stand.

    A run of claims (realm finetune --task classify) says how probable each label is, and which
    passage speaks most for it.

    Example: realm ask "Who discovered radium?" --model runs/qa
    """
    if claim_commands.is_of_claims(model):
        claim_commands.ask_claim(
            question,
            model=model,
            passages=passages,
            num_passages=num_passages,
            device=device,
            as_json=as_json,
        )
        return
    from realm.answering import Answerer, answered_as_json
    from realm.cli import display

    with display.progress("embedding", "passages") as advance:
        answerer = Answerer.load(model, passages=passages, device=device, progress=advance)
    answered = answerer.answer([question], num_passages=num_passages, num_answers=num_answers)[0]
    if as_json:
        typer.echo(json.dumps(answered_as_json(answered), ensure_ascii=False))
    else:
        display.show_answers(answered)


def explain(
    sentence: Annotated[
        str | None, typer.Argument(help="A sentence with one or more [MASK].")
    ] = None,
    *,
    model: Annotated[Path, typer.Option("--model", help="Run that fills in, of realm pretrain.")],
    answer: Annotated[
        list[str] | None,
        typer.Option(
            "--answer",
            help="What a [MASK] stands for, once for each; without, what the model predicts.",
        ),
    ] = None,
    passages: options.Passages = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help='Instead of SENTENCE, JSONL: {"sentence": "... [MASK] ...", "answers": ["..."]}.'
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=2, help="Passages to read, the null passage included.")
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", dir_okay=False, help="Markdown file to write the table of --sentences to, too."
        ),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Show what retrieval does for a prediction: the paper's Table 3 for any sentence.

    Example: realm explain "Marie [MASK] discovered radium." --answer Curie --model runs/pretrain
    Example: realm explain --sentences reproductions/table3.jsonl --model runs/pretrain
    """
    if sentences is not None:
        if sentence is not None or answer:
            raise ConfigError(
                "found --sentences beside SENTENCE or --answer, expected one of them: the file "
                "holds sentences and answers"
            )
        _explain_file(sentences, model, passages, candidates, out, device=device, as_json=as_json)
        return
    if sentence is None or out is not None:
        found = "--out without --sentences" if sentence is not None else "no sentence"
        raise ConfigError(
            f'found {found}, expected a text with [MASK], such as "3 is a [MASK] prime.", or '
            "--sentences FILE (and perhaps --out TABLE.md)"
        )
    from realm.cli import display
    from realm.explaining import Explainer

    with display.progress("embedding", "passages") as advance:
        explainer = Explainer.load(model, passages=passages, device=device, progress=advance)
    explanation = explainer.explain(sentence, answers=answer or (), num_candidates=candidates)
    if as_json:
        typer.echo(json.dumps(asdict(explanation), ensure_ascii=False))
    else:
        display.show_explanation(explanation)


def _explain_file(
    file: Path,
    model: Path,
    passages: Path | None,
    candidates: int,
    out: Path | None,
    *,
    device: str,
    as_json: bool,
) -> None:
    from realm.cli import display
    from realm.evaluation.table3 import read_sentences, table3, write_markdown
    from realm.explaining import Explainer

    read = read_sentences(file)
    with display.progress("embedding", "passages") as advance:
        explainer = Explainer.load(model, passages=passages, device=device, progress=advance)
    with display.progress("explaining", "sentences") as advance:
        found = table3(explainer, read, num_candidates=candidates, progress=advance)
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        display.show_table3(found)
    if out is not None:
        write_markdown(found, out)


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything it makes.")] = Path(
        "quickstart"
    ),
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Start over: remove what an earlier one made.")
    ] = False,
) -> None:
    """Run every stage on the encyclopedia that ships with the package: minutes, no network.

    Example: realm quickstart --out quickstart/
    """
    from realm.cli.quickstart_display import run_quickstart

    run_quickstart(out, rebuild=rebuild)


def _use_retriever(
    answerer: "Answerer | ClaimClassifier", retriever: Retriever, model: Path
) -> None:
    """Put a baseline retriever under the same reader."""
    if retriever is Retriever.bm25:
        from realm.retrieval.bm25 import Bm25Retriever

        answerer.retriever = Bm25Retriever.open(answerer.store, cache=model / "bm25")
    elif retriever is Retriever.minilm:
        from realm.evaluation.zero_shot import open_zero_shot

        answerer.retriever = open_zero_shot(answerer.store, cache=model / "zero-shot")
