"""realm quickstart: every stage live, then what changed, evidence, and how to go on."""

import shlex
import shutil
import time
from pathlib import Path

from rich.markup import escape

from realm.asking import FolderAnswerer
from realm.cli import answer_display, display, training_display
from realm.encyclopedia import write_texts
from realm.errors import AnsweringError, DamagedError
from realm.mini import has_default_model
from realm.quickstart import Quickstart
from realm.storage import MANIFEST, REQUEST, read_json, scratch_folder

FILES = "files"
"""Folder of a few articles as files, for `realm ask --docs`."""
NUM_FILES = 60
"""Test questions whose articles become files: several ask about the same one."""


def run_quickstart(out: Path, *, rebuild: bool) -> None:
    """Run the stages below `out`; a second run offers to ask at once."""
    quickstart = Quickstart(out)
    if rebuild:
        _remove(quickstart)
    if quickstart.is_done:
        display.out.print(f"[bold]already done[/]: everything is in {escape(str(out))}")
        show_results(quickstart)
        offer_to_ask(quickstart)
        return
    display.out.print(
        "[bold]REALM on a small encyclopedia[/]: 340 articles, a MiniLM, "
        "every stage for real. Ctrl-C is safe: the same command resumes."
    )
    started = time.monotonic()
    stages = quickstart.stages()
    for number, stage in enumerate(stages, 1):
        display.out.print(f"\n[bold cyan]{number}/{len(stages)} {stage.name}[/]  {stage.meaning}")
        began = time.monotonic()
        with display.progress(stage.name, "items") as advance:
            result = stage.run(training_display.TrainingDisplay(stage.name), advance)
        display.out.print(f"  {result} [dim]({time.monotonic() - began:.0f} s)[/]")
    display.out.print(f"\nall stages in {(time.monotonic() - started) / 60:.1f} minutes")
    show_results(quickstart)
    offer_to_ask(quickstart)


def show_results(quickstart: Quickstart) -> None:
    """Print what the training changed, three answers with evidence, and one explanation."""
    before, after = quickstart.measured["before"], quickstart.measured["after"]
    rows = [
        ("answer recall@5", _percent(before["recall@5"]), _percent(after["recall@5"])),
        ("exact match", "no reader yet", _percent(after["exact_match"])),
        ("F1", "no reader yet", _percent(after["f1"])),
    ]
    display.out.print()
    count = len(quickstart.test_questions)
    title = f"{count} test questions, on articles without training questions"
    display.out.print(display.table(title, ("", "before", "after"), rows))
    _show_utility(quickstart)
    display.out.print("\n[bold]Questions, answered with evidence[/]")
    for answered in quickstart.answers():
        answer_display.show_answers(answered)
    display.out.print("\n[bold]What retrieval does for one prediction[/] (the paper's Table 3)")
    answer_display.show_explanation(quickstart.explanation())
    show_own_files(quickstart)
    run, pretrained = (_as_typed(quickstart.runs[name]) for name in ("finetune", "pretrain"))
    display.out.print("\n[bold]Go on[/]")
    display.out.print(
        f'  realm ask "Who wrote War and Peace?" --model {run}\n'
        f'  realm ask "..." --docs YOUR_FOLDER    (.txt, .md and .jsonl files, no training)\n'
        f'  realm explain "The capital of France is [MASK]." --model {pretrained}\n'
        f"  realm split YOUR_FOLDER --out passages/    then    "
        f'realm ask "..." --model {run} --passages passages/\n'
        "  docs/tutorial.md trains on your own documents, stage by stage",
        markup=False,
    )


def show_own_files(quickstart: Quickstart) -> None:
    """Ask the model that ships about a folder of files: what needs no training at all."""
    display.out.print("\n[bold]A folder of files, asked at once[/] (realm-mini, which ships)")
    if not has_default_model():
        display.out.print("  left out: this installation came without the weights of realm-mini")
        return
    folder = quickstart.out / FILES
    asked = quickstart.test_questions[:NUM_FILES]
    write_texts(folder, {question.passage_id or "" for question in asked})
    question = asked[0].question
    display.out.print(f'  realm ask "{question}" --docs {_as_typed(folder)}', markup=False)
    answerer = FolderAnswerer.open(folder, cache=quickstart.out / f"{FILES}-cache")
    (answered,) = answerer.answer([question], num_answers=1)
    places = [str(answerer.place(answer)) for answer in answered.answers]
    same_text = [[str(answerer.place(m)) for m in one.same_text] for one in answered.answers]
    answer_display.show_answers(answered, places, same_text)


def offer_to_ask(quickstart: Quickstart) -> None:
    """Let somebody at a terminal ask questions until an empty line."""
    if not display.is_interactive():
        return
    display.out.print("\nAsk about the encyclopedia (an empty line ends):")
    while question := _next_question():
        try:
            answer_display.show_answers(quickstart.answerer.answer([question], num_answers=2)[0])
        except AnsweringError as error:
            display.err.print(str(error), style="red", markup=False)


def _next_question() -> str:
    """Return what somebody typed; nothing after Ctrl-D or Ctrl-C."""
    try:
        return display.out.input("[bold]? [/]").strip()
    except (EOFError, KeyboardInterrupt):
        display.out.print()
        return ""


def _show_utility(quickstart: Quickstart) -> None:
    points = quickstart.utility()
    if not points:
        return
    told = "  ".join(f"step {step}: {value:+.3f}" for step, value in points)
    display.out.print(
        f"\nretrieval utility on held-out blanks, log p(y|x) - log p(y|null,x): {told} "
        f"[dim]({quickstart.refreshes()} index refreshes)[/]"
    )


def _as_typed(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _remove(quickstart: Quickstart) -> None:
    """Remove the quickstart's own folders, and nothing else that may stand in `out`."""
    kinds = {
        quickstart.passages: "passages",
        quickstart.examples: "examples",
        quickstart.out / "start-index": "index",
        **dict.fromkeys(quickstart.runs.values(), "run"),
    }
    for folder, kind in kinds.items():
        if _is_ours(folder, kind):
            shutil.rmtree(folder)
        shutil.rmtree(scratch_folder(folder), ignore_errors=True)
    for file in (quickstart.measured_file, quickstart.out / "report.json"):
        file.unlink(missing_ok=True)


def _is_ours(folder: Path, kind: str) -> bool:
    """Return whether a stage made or began this folder; what somebody put there says no kind."""
    notes = [folder / name for name in (MANIFEST, REQUEST) if (folder / name).is_file()]
    return any(_says(note, kind) for note in notes)


def _says(note: Path, kind: str) -> bool:
    """Return whether a manifest or a request is of this kind, also a damaged one that shows it.

    Raises:
        DamagedError: it does not show any more what it was.
    """
    try:
        return read_json(note).get("kind") == kind
    except DamagedError:
        line = f'\n  "kind": "{kind}",\n'  # as `write_json` writes it, outermost
        if line.encode() not in note.read_bytes():
            raise
        return True
