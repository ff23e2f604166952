"""realm status: a run that trains, live, also from another terminal."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realm.cli import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from realm.refresh.status import RunStatus

SECONDS_BETWEEN_LOOKS = 1.0
SHOWN = {
    "loss": "loss",
    "utility/marginal_minus_null": "retrieval utility",
    "recall_at_5": "answer recall@5 in training",
    "index/staleness_steps": "staleness of the index, steps",
    "index/retrieved_staleness_steps": "staleness of what is retrieved, steps",
    "index/age_seconds": "age of the index, seconds",
    "index/score_drift": "drift of the candidates' scores",
    "index/rank_correlation": "rank correlation, index and fresh",
    "eval/index_recall": "recall of the index against fresh vectors",
    "step_seconds": "seconds per step",
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("status", rich_help_panel="Training")(status)


def status(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder of realm pretrain, or of realm finetune with train_passages."
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Print it once, do not stay.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what trainer and builders of a run are doing, and how old its index is.

    On a terminal it stays and follows the run; Ctrl-C ends the looking, not the run.

    Example: realm status runs/pretrain
    """
    from realm.cli import display
    from realm.refresh.status import run_status

    found = run_status(run)
    if as_json:
        options.print_json(found.as_json())
        return
    if once or not display.out.is_terminal:
        display.out.print(_shown(found))
        return
    from rich.live import Live

    try:
        with Live(_shown(found), console=display.out, auto_refresh=False) as live:
            while not found.is_finished:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                found = run_status(run)
                live.update(_shown(found), refresh=True)
    except KeyboardInterrupt:
        return


def _shown(found: "RunStatus") -> "RenderableType":
    from rich.console import Group

    from realm.cli import display
    from realm.refresh.presence import state_of

    seen = [("trainer", found.trainer), *((one.name, one) for one in found.builders)]
    rows = [
        (name, state_of(one), _where(one.values), f"{one.values.get('step', '')}")
        for name, one in seen
        if one is not None
    ]
    what = "finished" if found.is_finished else f"refresh: {found.refresh.get('mode')}"
    processes = display.table(f"{found.run} ({what})", ("process", "does", "where", "step"), rows)
    index = [
        ("snapshots on disk", ", ".join(f"step {step}" for step in found.snapshots) or "none"),
        ("parameters published", ", ".join(f"step {s}" for s in found.parameters) or "none"),
        ("patches", f"{found.num_patches}"),
    ]
    numbers = [
        (label, f"{found.metrics[name]:,.3f}")
        for name, label in SHOWN.items()
        if name in found.metrics
    ]
    return Group(
        processes,
        display.table("index", ("", ""), index),
        display.table("newest numbers", ("", ""), numbers),
    )


def _where(values: dict[str, Any]) -> str:
    return f"{values.get('host', '?')}:{values.get('pid', '?')}"
