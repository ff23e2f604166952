"""One self-contained HTML file about a run: it asks for nothing else, and it can be printed.

The same run gives the same file, byte for byte.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realm.checkpoint.run_records import STAGES, RunRecord, read_run
from realm.errors import ArtifactError
from realm.readable import counted, duration
from realm.reporting.about import (
    Setting,
    model_fingerprints,
    provenance_of,
    settings_of,
)
from realm.reporting.charts import missing_plot
from realm.reporting.curves import Curves, curves_of
from realm.reporting.evaluations import (
    Evaluation,
    find_evaluations,
    own_first,
    read_evaluation,
)
from realm.reporting.numbers import MINUS
from realm.reporting.results import examples_view, results_of, side_by_side
from realm.reporting.views import charts_of, held_out_of, index_of, passages_of, tiles_of
from realm.storage import write_text
from realm.versions import realm_version

STAGE_NAMES = {
    "ict": "Inverse Cloze Task",
    "mlm": "Masked language modelling",
    "pretrain": "Joint pre-training",
    "finetune": "Open-domain question answering",
    "classify": "Classifying claims",
}
NUM_EXAMPLES = 30
_HERE = Path(__file__).parent


def write_run_report(
    run: Path,
    out: Path,
    *,
    evaluations: Sequence[Path] = (),
    num_examples: int = NUM_EXAMPLES,
) -> None:
    """Write the report of a run, finished or not.

    Args:
        run: the run's folder.
        out: the HTML file.
        evaluations: what `realm evaluate --out` wrote; without, what lies in the run's folder or
            beside it and is of its model as it is now.
        num_examples: example questions to show, right and wrong ones together.

    Raises:
        ArtifactError: there is no training run, or an evaluation is damaged, or the file cannot be
            written.
        ConfigError: the extra `plot` is not installed.
    """
    page = render_run_report(run, evaluations=evaluations, num_examples=num_examples)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {out}: {error.strerror or error}; free space, fix the permissions or "
            "choose another --out"
        ) from error


def render_run_report(
    run: Path, *, evaluations: Sequence[Path] = (), num_examples: int = NUM_EXAMPLES
) -> str:
    """Return the report of a run as HTML; see `write_run_report`."""
    record = read_run(run)
    if record.stage not in STAGES:
        raise ArtifactError(
            f"{run} holds a model that was imported, expected a training run "
            f"({', '.join(STAGES)}): only those can be reported on"
        )
    curves = curves_of(record)
    fingerprints = model_fingerprints(record)
    found = [read_evaluation(path) for path in evaluations]
    found = found or find_evaluations(run, fingerprints)
    return _render(_told(record, curves, found, fingerprints, num_examples))


def _told(
    record: RunRecord,
    curves: Curves,
    evaluations: Sequence[Evaluation],
    fingerprints: set[str],
    num_examples: int,
) -> dict[str, Any]:
    """Return all that the template shows."""
    steps, rows = held_out_of(curves)
    settings = settings_of(record)
    used = str(record.settings.get("retriever", "dense"))
    ranked = own_first(evaluations, fingerprints, retriever=used)
    own = next((one for one in ranked if one.is_of(fingerprints)), None)
    sections = {
        "evaluations": results_of(evaluations, fingerprints),
        "held_out": rows,
        "charts": charts_of(curves),
        "index": index_of(record, curves),
        "passages": passages_of(record),
        "examples": examples_view(ranked, fingerprints, num_examples),
    }
    contents = [
        (anchor, title)
        for key, anchor, title in (
            ("evaluations", "results", "Results"),
            ("held_out", "held-out", "Held out"),
            ("charts", "curves", "Curves"),
            ("index", "index", "Index"),
            ("passages", "passages", "What each passage does"),
            ("examples", "examples", "Examples"),
        )
        if sections[key]
    ]
    return {
        **sections,
        "side_by_side": side_by_side(evaluations),
        "name": curves.name,
        "stage_name": STAGE_NAMES[curves.stage],
        "state": curves.state,
        "lead": _lead(record, curves),
        "tiles": tiles_of(curves, own),
        "was_logged": curves.step >= 0,
        "held_out_steps": steps,
        "settings": _settings(settings),
        "provenance": provenance_of(record),
        "contents": [*contents, ("settings", "Settings"), ("provenance", "Provenance")],
        "version": realm_version(),
        "css": (_HERE / "page.css").read_text(encoding="utf-8"),
    }


def _lead(record: RunRecord, curves: Curves) -> str:
    done = max(0, curves.step)
    steps = f"{done:,} of {counted(curves.num_steps, 'step')}"
    match curves.state:
        case "finished":
            return f"{steps} in {duration(float(record.content.get('seconds', 0.0)))}."
        case "running":
            return f"Still going: {steps}. This page shows what was logged until it was written."
        case _:
            return f"Stopped after {steps}. The command that started it resumes it."


def _settings(settings: Sequence[Setting]) -> dict[str, Any]:
    num_changed = sum(one.is_changed for one in settings)
    return {
        "rows": sorted(settings, key=lambda one: not one.is_changed),
        "about": (
            f"{num_changed} of {len(settings)} differ from this release's defaults (highlighted, "
            "first); the others are as they come."
        ),
    }


def _typeset(text: str) -> str:
    """Return a formula in words with real minus signs."""
    text = text.replace(" - ", f" {MINUS} ")
    return MINUS + text[1:] if text.startswith("-") else text


def _render(told: dict[str, Any]) -> str:
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise missing_plot("jinja2") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["typeset"] = _typeset
    environment.filters["drawn"] = Markup  # our own drawings, and our own style sheet
    return environment.get_template("page.html").render(**told)
