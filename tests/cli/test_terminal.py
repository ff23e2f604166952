"""What a document says stays text: on a terminal, in a pipe, in JSON, in a notebook."""

import io
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress, TextColumn

from realm.checkpoint.run_folder import TrainReport
from realm.cli import answer_display, display, main, options, quickstart_display, training_display
from realm.cli.telling import tell_trained
from realm.errors import AnsweringError, CorpusError
from realm.library.results import (
    Answered,
    PlacedAnswer,
    PlaceInDocument,
    ReadPassage,
    SearchResult,
)
from realm.quickstart import Quickstart
from realm.readable import visible
from realm.records import Answer, AnsweredQuestion, Mention, Passage
from tests.towns import call_realm

HOSTILE = (
    "\x1b[2J\x1b[1;1Hall is well\x1b]0;a title\x07\x1b]52;c;aGk=\x07\x1b]8;;http://x\x1b\\"
    "\x9b31m\x90q\x9c\x08\x08\x7f\rforged \u202eesrever\u2066 [bold red]not bold[/] [/] :smile:"
)
"""Clears the screen, writes to the clipboard, forges a link, turns letters round; rich's markup."""
OBEYED = [*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0)), "\u202e", "\u2066"]
OBEYED = [sign for sign in OBEYED if sign not in "\n\t"]


def passage() -> Passage:
    return Passage(
        row=0, id="a#0", article_id=HOSTILE, title=HOSTILE, text=f"{HOSTILE} five", start=0,
        end=len(HOSTILE) + 5, sentences=((0, 5),),
    )  # fmt: skip


def answer() -> Answer:
    end = len(HOSTILE) + 5
    return Answer(
        text=f"{HOSTILE} five", probability=0.5, start=0, end=end, passage=passage(),
        passage_probability=0.5,
        same_text=(Mention(passage=passage(), start=0, end=end),),
    )  # fmt: skip


@pytest.mark.parametrize("is_terminal", [True, False])
def test_answers_do_not_control_a_terminal(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    console = display._console(is_terminal=is_terminal, stderr=False)
    console.file = written = io.StringIO()
    monkeypatch.setattr(display, "out", console)
    answered = AnsweredQuestion(question=HOSTILE, answers=(answer(),))
    answer_display.show_answers(answered, [f"{HOSTILE}:1"], [[f"{HOSTILE}:2"]])
    answer_display.show_answers(answered)
    display.out.print(display.table("", ("a",), [(HOSTILE,)]))
    told = written.getvalue()
    assert not [sign for sign in OBEYED if sign in told]
    assert told.count("\\u001b[2J") >= 12  # all of it is there, to be read
    assert "[bold red]not bold[/]" in told
    assert ":smile:" in told


def test_longer_and_shorter_words_of_one_place_stand_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = display._console(is_terminal=False, stderr=False)
    console.file = written = io.StringIO()
    monkeypatch.setattr(display, "out", console)
    text = "A card costs 12 pounds a year. A lost card costs 3 pounds."
    costs = Passage(
        row=0, id="a#0", article_id="a", title="Cards", text=text, start=0, end=len(text),
        sentences=((0, 30), (31, len(text))),
    )  # fmt: skip
    answers = tuple(
        Answer(
            text=words, probability=p, start=text.index(words), end=text.index(words) + len(words),
            passage=costs, passage_probability=1.0,
        )
        for words, p in (("12 pounds", 0.6), ("3 pounds", 0.2), ("12 pounds a year", 0.1))
    )  # fmt: skip
    places = ["cards.md:1", "cards.md:2", "cards.md:3"]
    answer_display.show_answers(AnsweredQuestion(question="How much?", answers=answers), places)
    lines = [line.strip() for line in written.getvalue().splitlines()]
    assert lines == [
        "How much?",
        "1. 12 pounds  p=0.600   cards.md:1 (Cards, p(z|x)=1.00)",
        text,
        "in other words: 12 pounds a year (p=0.100)",
        "2. 3 pounds  p=0.200   cards.md:2 (Cards, p(z|x)=1.00)",
        text,
    ]


def test_the_same_text_in_other_places_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By file and line, or as a run's own passages are, with title and id."""
    console = display._console(is_terminal=False, stderr=False)
    console.file = written = io.StringIO()
    monkeypatch.setattr(display, "out", console)
    first, *copies = (
        Passage(
            row=row, id=f"{name}#0", article_id=name, title=title, text="A card costs 12 pounds.",
            start=0, end=23, sentences=((0, 23),),
        )
        for row, (name, title) in enumerate([("a", "Cards"), ("b", "Old [cards]"), ("c", "")])
    )  # fmt: skip
    mentions = tuple(Mention(passage=copy, start=13, end=22) for copy in copies)
    one = Answer(
        text="12 pounds", probability=0.6, start=13, end=22, passage=first,
        passage_probability=1.0, same_text=mentions,
    )  # fmt: skip
    other = replace(one, text="card", probability=0.2, start=2, end=6, same_text=())
    answered = AnsweredQuestion(question="How much?", answers=(one, other))
    answer_display.show_answers(answered, ["a.md:1", "a.md:1"], [["b.md:1", "c.md:1"], []])
    answer_display.show_answers(answered)
    lines = [line.strip() for line in written.getvalue().splitlines()]
    assert [line for line in lines if line.startswith("also in")] == [
        "also in: b.md:1, c.md:1",
        "also in: Old [cards] (b#0), c (c#0)",
    ]


def test_paths_and_questions_are_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, is_stderr in (("out", False), ("err", True)):
        monkeypatch.setattr(display, name, display._console(is_terminal=False, stderr=is_stderr))
    run = tmp_path / "[bold] [" / "] runs"
    for is_done in (False, True):
        report = TrainReport(
            run=run, steps=3, seconds=1.0, resumed_from=0, already_done=is_done, metrics={}
        )
        tell_trained(report, is_done, False, run)  # noqa: FBT003 - as the verbs call it
    told = capsys.readouterr()
    assert told.out.count(str(run)) == 2
    assert shlex.quote(str(run)) in told.err

    typed = iter(["[/]", ""])
    monkeypatch.setattr(display, "is_interactive", lambda: True)
    monkeypatch.setattr(quickstart_display, "_next_question", lambda: next(typed))
    monkeypatch.setattr(Quickstart, "answerer", Answerless())
    quickstart_display.offer_to_ask(Quickstart(tmp_path))
    assert "found no word in '[/]'" in capsys.readouterr().err


def test_the_quickstart_names_its_folders_as_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As markup, parts of such names went missing, or it failed after all of its stages."""
    monkeypatch.setattr(display, "out", display._console(is_terminal=False, stderr=False))
    for name in ("_show_utility", "show_own_files"):
        monkeypatch.setattr(quickstart_display, name, lambda _: None)
    monkeypatch.setattr(answer_display, "show_explanation", lambda _: None)
    measured = {"recall@5": 0.5, "exact_match": 0.5, "f1": 0.5}
    monkeypatch.setattr(Quickstart, "measured", {"before": measured, "after": measured})
    monkeypatch.setattr(Quickstart, "answers", lambda _: [])
    monkeypatch.setattr(Quickstart, "explanation", lambda _: None)
    quickstart = Quickstart(tmp_path / "my [red] [" / "] start")
    quickstart_display.show_results(quickstart)
    told = capsys.readouterr().out
    for name in ("finetune", "pretrain"):
        assert f"--model {shlex.quote(str(quickstart.runs[name]))}\n" in told


class Answerless:
    """An answerer that no question satisfies."""

    def answer(self, questions: list[str], **_: object) -> list[AnsweredQuestion]:
        raise AnsweringError(f"found no word in {questions[0]!r}")


def test_each_piece_of_work_has_its_own_rate_and_eta(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the refreshes of an index, of equally many passages, with hours of steps between them."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    console = display._console(is_terminal=True, stderr=True)
    console.file, console._force_terminal, console.get_time = io.StringIO(), True, lambda: now
    monkeypatch.setattr(display, "err", console)
    opened: list[Progress] = []

    def watched(*columns: TextColumn, **settings: Any) -> Progress:
        opened.append(Progress(*columns, **settings))
        return opened[0]

    monkeypatch.setattr(display, "Progress", watched)
    with display.progress("embedding", "passages") as advance:
        for before in (60.0, 3_600.0):  # a model is loaded; steps are taken
            now += before
            for done in (400, 500, 600):
                advance(done, 1_000)
                now += 1.0
            (task,) = opened[0].tasks
            assert task.fields["rate"] == "100 passages/s"
            assert task.time_remaining == 4
            assert task.elapsed == 3
            advance(1_000, 1_000)
            assert not task.visible


def test_colours_are_the_packages_own() -> None:
    console = display._console(is_terminal=True, stderr=False)
    console.file = written = io.StringIO()
    console._color_system = display.Console(color_system="standard")._color_system
    console.print("[bold green]five[/]", end="")
    assert written.getvalue() == "\x1b[1;32mfive\x1b[0m"


def test_json_holds_no_control_character_and_says_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options.print_json({"text": HOSTILE, "lines": "a\r\nb\tc"})
    told = capsys.readouterr().out
    assert not [sign for sign in OBEYED if sign in told]
    assert json.loads(told) == {"text": HOSTILE, "lines": "a\r\nb\tc"}


def test_an_error_does_not_control_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise CorpusError(f"found {HOSTILE}")

    monkeypatch.setattr(main, "build_app", fail)
    monkeypatch.setattr(sys, "argv", ["realm", "split"])
    assert main._run() == 2
    told = capsys.readouterr().err
    assert not [sign for sign in OBEYED if sign in told]


def test_a_result_at_a_prompt_is_text() -> None:
    record = AnsweredQuestion(question=HOSTILE, answers=(answer(),))
    place = PlaceInDocument(document=HOSTILE, line=1)
    read = ReadPassage(passage=passage(), probability=0.5, place=place)
    answered = Answered(
        question=HOSTILE,
        answers=(PlacedAnswer.of(answer(), place, [place]),),
        passages=(read,),
        record=record,
    )
    for one in (answered, SearchResult(query=HOSTILE, hits=(read,))):
        told = repr(one)
        assert not [sign for sign in OBEYED if sign in told]
        assert "\\u001b[2J" in told


def test_other_letters_stay_as_they_are() -> None:
    text = "caf\u00e9 \u05d0\u05d1\u200f \U0001f600\u200d\ta\r\nb\n"
    assert visible(text) == text


def test_a_gpu_whose_memory_is_full_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> Callable[..., None]:
        def app(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
            )

        return app

    monkeypatch.setattr("realm.cli.main.build_app", full)
    told = call_realm("doctor").message
    assert "the GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB.)" in told
    assert "with a smaller batch_tokens: a run goes on with it" in told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (90.0, "90.0 s/step, ETA 12m00s"),
        (1.26, "1.3 s/step"),
        (0.25, "4 steps/s, ETA 0m02s"),
        (0.003, "333 steps/s"),
        (0.0001, "10,000 steps/s"),
        (0.0, "ETA 0m00s"),
    ],
)
def test_the_rate_of_steps_is_told_with_digits_however_fast_they_are(
    monkeypatch: pytest.MonkeyPatch, seconds: float, told: str
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    console = display._console(is_terminal=False, stderr=True)
    console.file = written = io.StringIO()
    monkeypatch.setattr(display, "err", console)
    shown = training_display.TrainingDisplay("mlm")
    for step in (1, 2):
        shown(step, 10, {"loss": 1.0})
        now += seconds
    assert told in written.getvalue()
    assert " 0.0 s/step" not in written.getvalue()
