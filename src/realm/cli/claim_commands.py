"""What finetune, ask and evaluate do where the task is to classify claims."""

from pathlib import Path
from typing import TYPE_CHECKING

from realm.cli import options

if TYPE_CHECKING:
    from realm.training.loop import TrainReport


def is_of_claims(run: Path) -> bool:
    """Return whether a run classifies claims."""
    from realm.checkpoint.sources import CLASSIFY, task_of

    return task_of(run) == CLASSIFY


def finetune_on_claims(
    claims: Path,
    passages: Path,
    out: Path,
    *,
    model: Path,
    encoder: Path | None,
    config: Path | None,
    sets: list[str] | None,
    rebuild: bool,
    quiet: bool,
    tensorboard: bool,
) -> "TrainReport":
    """Run `realm finetune --task classify`."""
    from realm.checkpoint.defaults import stage_defaults
    from realm.config import ClassifyConfig, load_config

    published = stage_defaults(model, "finetune")
    settings = load_config(
        ClassifyConfig,
        section="classify",
        file=config,
        overrides=sets or [],
        defaults={n: v for n, v in published.items() if n in ClassifyConfig.model_fields},
    )
    from realm.cli import display, training_display
    from realm.corpus.store import PassageStore
    from realm.evaluation.claims import read_claims
    from realm.torchrun import started_ranks
    from realm.training.classify import classify

    with (
        started_ranks() as ranks,
        display.progress(
            "embedding for the index", "passages", quiet=quiet or not ranks.is_first
        ) as advance,
    ):
        return classify(
            read_claims(claims),
            PassageStore.open(passages),
            out,
            run=model,
            encoder=encoder,
            config=settings,
            rebuild=rebuild,
            on_metrics=training_display.TrainingDisplay("classify", quiet=quiet),
            progress=advance,
            tell=display.tell,
            tensorboard=tensorboard,
            ranks=ranks,
        )


def ask_claim(
    claim: str,
    *,
    model: Path,
    passages: Path | None,
    num_passages: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Run `realm ask` on a run that classifies claims."""
    from realm.classifying import ClaimClassifier, classified_as_json
    from realm.cli import answer_display, display

    with display.progress("embedding", "passages") as advance:
        classifier = ClaimClassifier.load(model, passages=passages, device=device, progress=advance)
    classified = classifier.classify([claim], num_passages=num_passages)[0]
    if as_json:
        options.print_json(classified_as_json(classified))
    else:
        answer_display.show_labels(classified)


def evaluate_on_claims(
    claims: Path,
    *,
    model: Path,
    passages: Path | None,
    retriever: str,
    out: Path | None,
    device: str,
    as_json: bool,
    config: Path | None,
    sets: list[str] | None,
) -> None:
    """Run `realm evaluate` on a run that classifies claims."""
    from realm.config import EvaluateConfig, load_config

    # Wrong settings and a wrong file are told before the model is opened
    load_config(EvaluateConfig, section="evaluate", file=config, overrides=sets or [])
    from realm.classifying import ClaimClassifier
    from realm.cli import display
    from realm.evaluation.claims import evaluate_claims, read_claims
    from realm.evaluation.report import write_report
    from realm.evaluation.retrievers import check_retriever, needs_index, use_retriever

    check_retriever(retriever)
    asked = read_claims(claims)
    with display.progress("embedding", "passages") as advance:
        classifier = ClaimClassifier.load(
            model,
            passages=passages,
            device=device,
            is_indexed=needs_index(retriever),
            progress=advance,
        )
        name = use_retriever(classifier, retriever, run=model, device=device, progress=advance)
    settings = load_config(
        EvaluateConfig,
        section="evaluate",
        file=config,
        overrides=sets or [],
        defaults={"num_passages": classifier.config.num_passages},
    )
    with display.progress("classifying", "claims") as advance:
        report = evaluate_claims(
            classifier,
            asked,
            config=settings,
            split_name=claims.name,
            retriever_name=name,
            progress=advance,
        )
    if as_json:
        options.print_json(report.as_json())
    else:
        display.out.print(report.table(), markup=False)
    if out is not None:  # last: where it cannot be written, the numbers were seen
        write_report(report, out)
