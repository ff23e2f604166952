"""realm calibrate, and what ask and evaluate say of a calibrated run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.storage import read_json

Run = Callable[..., Any]
World = Any
QUESTION = "Who was born in Bado?"


@pytest.fixture
def qa(world: World, tmp_path: Path) -> Path:
    """A copy of the fine-tuned run, which knows little."""
    shutil.copytree(world / "qa", tmp_path / "qa")
    return tmp_path / "qa"


@pytest.fixture
def asking(world: World, qa: Path) -> tuple[object, ...]:
    return ("--model", qa, "--passages", world / "passages")


@pytest.fixture
def half_right(world: World, call: Run, asking: tuple[object, ...], tmp_path: Path) -> Path:
    """Forty questions, of which it answers half right: what it says is the answer."""
    asked = [
        *world_questions(world),
        *({**q, "question": q["question"].lower()} for q in world_questions(world)),
    ]
    file = world.write_lines(tmp_path / "all.jsonl", asked)
    report = json.loads(call("evaluate", file, *asking, "--json").out)
    said = [record["prediction"] for record in report["questions"]]
    for number in range(0, len(asked), 2):  # a pattern: some answers have no word that counts
        asked[number] = {**asked[number], "answers": [], "answer_patterns": [exactly(said[number])]}
    return world.write_lines(tmp_path / "half.jsonl", asked)


def world_questions(world: World) -> list[dict[str, Any]]:
    lines = (world / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def exactly(text: str) -> str:
    return (
        "".join(f"[{letter}]" if letter not in "\\^[]" else f"\\{letter}" for letter in text) + "$"
    )


def test_calibrate_writes_one_file_that_ask_and_evaluate_use(
    call: Run, qa: Path, asking: tuple[object, ...], half_right: Path
) -> None:
    made = call("calibrate", half_right, *asking, "--set", "removed_share=0.2")
    assert made.code == 0, made.err
    assert made.out.startswith("40 questions, ")
    assert "; 8 of them again without the passages that hold an answer" in made.out
    assert made.out.endswith(f"wrote {qa / 'calibration.json'}\n")
    written = read_json(qa / "calibration.json")
    assert written["retriever"] == "dense"
    again = call("calibrate", half_right, *asking, "--set", "removed_share=0.2", "--json")
    assert json.loads(again.out) == written
    told = json.loads(call("ask", QUESTION, *asking, "--json").out)
    assert told["calibrated"]
    assert told["why_inexact"] is None
    assert call("ask", QUESTION, *asking).err == ""
    noted = call("ask", QUESTION, *asking, "--read", "1").err
    assert noted.splitlines() == [
        f"note: its probabilities may be off: it was calibrated reading {written['num_passages']} "
        "passages, not 1"
    ]
    assert told["min_probability"] == written["min_probability"]
    best = told["answers"][0]
    assert best["probability"] != best["raw_probability"]
    report = json.loads(call("evaluate", half_right, *asking, "--json").out)["abstention"]
    assert report["is_calibrated"]
    assert report["min_probability"] == written["min_probability"]
    other = json.loads(call("evaluate", half_right, *asking, "--json", "--retriever", "bm25").out)
    assert not other["abstention"]["is_calibrated"]


def test_an_improbable_answer_is_no_answer_said_plainly(
    call: Run, asking: tuple[object, ...]
) -> None:
    best = json.loads(call("ask", QUESTION, *asking, "--json").out)["answers"][0]
    refused = call("ask", QUESTION, *asking, "--min-probability", "1")
    assert refused.code == 0
    told = f"{QUESTION}\n  No answer in these passages. Best guess: {best['text']} (probability "
    assert refused.out.startswith(told)
    assert refused.err.count("note: ") == 1
    assert "it has not been calibrated" in refused.err
    refused = call("ask", QUESTION, *asking, "--min-probability", "1", "--json")
    assert json.loads(refused.out)["answer"] is None
    assert json.loads(refused.out)["answers"][0] == best
    shown = call("ask", QUESTION, *asking, "--min-probability", "0")
    assert f"1. {best['text']}" in shown.out
    assert shown.err == ""


def test_a_run_that_is_never_right_cannot_be_calibrated(
    call: Run, world: World, qa: Path, asking: tuple[object, ...]
) -> None:
    failed = call("calibrate", world / "questions.jsonl", *asking)
    assert "expected at least 10 right and 10 wrong" in failed.message
    assert not (qa / "calibration.json").exists()


def test_impossible_settings_of_calibrate_are_told(
    call: Run, world: World, asking: tuple[object, ...]
) -> None:
    command = ("calibrate", world / "questions.jsonl", *asking)
    assert "refuse" in call(*command, "--set", "refuse=2").message
    assert "there is no setting 'temperature'" in call(*command, "--set", "temperature=2").message
    assert "min-probability" in call("ask", QUESTION, *asking, "--min-probability", "2").message
