"""The whole pipeline through the commands: results, second runs, changed inputs, JSON, help."""

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.storage import read_json

Run = Callable[..., Any]
World = Any

STAGES = ("split", "mask", "ict", "mlm", "index", "pretrain", "finetune")
VERBS = (*STAGES, "evaluate", "calibrate", "ask", "explain", "align", "quickstart")
QUESTION = "Who was born in Bado?"
CLOZE = "The painter was born in [MASK] near the river."
COLOUR = re.compile(r"\x1b\[[\d;]*(?:3[0-8]|4[0-8]|9\d)[\d;]*m")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def test_every_stage_says_what_it_made(world: World) -> None:
    told = {verb: result.out for verb, result in world.results.items()}
    assert told["split"].startswith("40 articles, 80 passages, 1,440 wordpieces in ")
    assert re.match(r"\d+ masked examples from 80 passages \(NAME \d+, DATE 40\) in ", told["mask"])
    assert told["index"].startswith("80 passages x 16 dimensions in ")
    for verb in ("ict", "mlm", "pretrain", "finetune"):
        assert re.fullmatch(r"4 steps in \d+ s; run in .*\n", told[verb])
        assert f"{verb}     4/4 " in world.results[verb].err
        assert "held out" in world.results[verb].err
    assert "index refreshed" in world.results["pretrain"].err
    metrics = (world / "pretrain" / "metrics.jsonl").read_text().splitlines()
    assert sum(json.loads(line).get("index/refreshed", 0) for line in metrics) == 2


def test_a_run_notes_what_its_report_will_show(world: World) -> None:
    """Releases and device of every run; candidates of held-out sentences where there are any."""
    from realm.versions import versions

    for verb in ("ict", "mlm", "pretrain", "qa"):
        content = json.loads((world / verb / "manifest.json").read_text("utf-8"))["content"]
        assert content["versions"] == versions()
        assert content["device"].startswith(("cpu", "cuda"))
    kept = json.loads((world / "pretrain" / "held-out.json").read_text("utf-8"))
    assert (kept["first"]["step"], kept["newest"]["step"]) == (0, 4)
    assert len(kept["newest"]["examples"]) == 8


def test_every_stage_says_what_comes_next(world: World) -> None:
    for verb in ("split", "mask", "ict", "mlm", "pretrain", "finetune"):
        *_, line = world.results[verb].err.strip().splitlines()
        command = re.sub("^(next|and): ", "", line)
        assert command.startswith("realm ")
        assert str(world / world.command(verb)[-3].name) in shlex.split(command) or verb == "mask"


def test_piped_output_has_neither_colours_nor_bars_nor_broken_lines(world: World) -> None:
    for verb, result in world.results.items():
        assert "\x1b" not in result.out + result.err
        assert "\r" not in result.out + result.err
        assert "━" not in result.out + result.err
        assert all(line for line in result.err.splitlines())
        if verb not in {"split", "index"}:
            assert max(map(len, result.err.splitlines())) > 80


@pytest.mark.parametrize("verb", STAGES)
def test_a_second_run_is_already_done(world: World, call: Run, verb: str) -> None:
    before = world.stats(world.folder)
    result = call(*world.command(verb))
    assert result.code == 0
    assert result.out.startswith("already done: ")
    assert world.stats(world.folder) == before


CHANGED = {
    "split": {"articles": "other.jsonl"},
    "mask": {"passages": "other"},
    "ict": {"passages": "other"},
    "mlm": {"passages": "other"},
    "index": {"passages": "other"},
    "pretrain": {"ict": "pretrain"},
    "finetune": {"questions": "fewer.jsonl"},
}


@pytest.mark.parametrize("verb", STAGES)
def test_a_changed_input_is_refused_and_rebuild_accepts_it(
    world: World, call: Run, tmp_path: Path, verb: str
) -> None:
    world.write_lines(world / "fewer.jsonl", [{"question": QUESTION, "answers": ["Pudosi"]}])
    out = tmp_path / "out"
    shutil.copytree(world.command(verb)[-3], out)
    before = world.stats(out)
    instead = {name: world / other for name, other in CHANGED[verb].items()}
    command = world.command(verb, out, **instead)
    told = call(*command).message
    assert "was made from other input" in told
    assert "--rebuild" in told
    assert world.stats(out) == before
    result = call(*command, "--rebuild")
    assert result.code == 0, result.err
    assert not result.out.startswith("already done")
    assert call(*command).out.startswith("already done: ")


@pytest.mark.parametrize("verb", ["split", "ict", "index"])
def test_quiet_prints_only_the_result(world: World, call: Run, tmp_path: Path, verb: str) -> None:
    result = call(*world.command(verb, tmp_path / "out"), "--quiet")
    assert result.code == 0
    assert result.err == ""
    assert len(result.out.splitlines()) == 1


def test_options_win_over_set_and_set_over_the_file(
    world: World, call: Run, tmp_path: Path
) -> None:
    told = ("--set", "steps=1", "--set", 'encoder.init="scratch:7x32"', "--quiet")
    assert call(*world.command("ict", tmp_path / "ict"), *told).out.startswith("1 step in ")
    settings = json.loads((tmp_path / "ict" / "manifest.json").read_text())["settings"]
    assert settings["encoder"]["init"] == "scratch:1x32"
    assert settings["batch_size"] == 4


def test_evaluate_measures_and_writes_what_it_prints(
    world: World, call: Run, tmp_path: Path
) -> None:
    command = ("evaluate", world / "questions.jsonl", "--model", world / "qa")
    command = (*command, "--config", world / "settings.toml", "--set", "limit=6")
    result = call(*command, "--json", "--out", tmp_path / "new" / "report.json")
    assert result.code == 0
    assert result.err == ""
    report = json.loads(result.out)
    assert read_json(tmp_path / "new" / "report.json") == report
    assert {"exact_match", "f1", "recall@1", "recall@5"} <= report["metrics"].keys()
    assert report["split"]["num_questions"] == 20
    assert len(report["questions"]) == 6
    shown = call(*command)
    assert re.search(r"^exact_match +\d", shown.out, re.MULTILINE)


def test_evaluate_compares_thirds_where_questions_name_their_passage(
    world: World, call: Run, tmp_path: Path
) -> None:
    """The words of a question stand in its own town's article more than in the one of a person."""
    lines = (world / "questions.jsonl").read_text("utf-8").splitlines()
    kinds = ("town", "person", "no")
    asked = [
        {**json.loads(line), "passage_id": f"{kinds[n % 3]}-{n}"} for n, line in enumerate(lines)
    ]
    file = world.write_lines(tmp_path / "questions.jsonl", asked)
    command = ("evaluate", file, "--model", world / "qa", "--config", world / "settings.toml")
    report = json.loads(call(*command, "--json").out)
    overlaps = [question["overlap"] for question in report["questions"]]
    assert overlaps[0] == 1.0  # "born" and the town
    assert [overlap for overlap in overlaps[2::3] if overlap is not None] == []
    thirds = report["overlap_thirds"]
    assert list(thirds) == ["least", "middle", "most"]
    known = sum(overlap is not None for overlap in overlaps)
    counts = [third["metrics"]["recall@5"]["num_questions"] for third in thirds.values()]
    assert sum(counts) == known == 14
    assert re.search(r"^share +\d+ to \d+ ", call(*command).out, re.MULTILINE)


@pytest.mark.parametrize("retriever", ["bm25", "minilm"])
def test_evaluate_puts_another_retriever_under_the_same_reader(
    world: World, call: Run, tmp_path: Path, retriever: str
) -> None:
    shutil.copytree(world / "qa", tmp_path / "qa")
    command = ("evaluate", world / "questions.jsonl", "--model", tmp_path / "qa", "--json")
    command = (*command, "--passages", world / "passages", "--set", "limit=4")
    result = call(*command, "--retriever", retriever)
    if retriever == "minilm":  # the passages were cut with another vocabulary
        assert "another tokenizer" in result.message or "not installed" in result.message
    elif "not installed" not in result.err:
        assert json.loads(result.out)["retriever"] == "bm25"


def test_ask_prints_answers_whose_offsets_are_true(world: World, call: Run) -> None:
    result = call("ask", QUESTION, "--model", world / "qa", "--json", "--answers", "4")
    assert result.code == 0
    assert result.err == ""
    told = json.loads(result.out)
    texts = {article["id"]: article["text"] for article in world.articles()}
    keys = {"question", "answer", "min_probability", "calibrated", "why_inexact"}
    keys |= {"evidence", "answers"}
    assert told.keys() == keys
    assert told["question"] == QUESTION
    assert 1 <= len(told["answers"]) <= 4
    for answer in told["answers"]:
        keys = {"text", "probability", "raw_probability", "start", "end", "passage", "same_text"}
        assert answer.keys() == keys
        passage = answer["passage"]
        keys = {"id", "article_id", "title", "text", "start", "end", "probability"}
        assert passage.keys() == keys
        text = texts[passage["article_id"]]
        assert text[answer["start"] : answer["end"]] == answer["text"]
        assert text[passage["start"] : passage["end"]] == passage["text"]
        assert 0 <= answer["probability"] <= 1
        assert 0 <= passage["probability"] <= 1


def test_ask_shows_evidence(world: World, call: Run) -> None:
    best = json.loads(call("ask", QUESTION, "--model", world / "qa", "--json").out)["answers"][0]
    shown = call("ask", QUESTION, "--model", world / "qa").out
    assert shown.startswith(f"{QUESTION}\n  1. {best['text']}  p={best['probability']:.3f}")
    assert f"({best['passage']['id']}, characters {best['start']}-{best['end']}," in shown
    assert best["passage"]["text"] in shown


def test_ask_may_read_more_passages_than_there_are(world: World, call: Run) -> None:
    assert call("ask", QUESTION, "--model", world / "qa", "--read", "500").code == 0


def test_explain_shows_what_each_passage_does(world: World, call: Run) -> None:
    command = ("explain", CLOZE, "--model", world / "pretrain", "--candidates", "5")
    result = call(*command, "--answer", "Bado", "--json")
    assert result.code == 0
    assert result.err == ""
    told = json.loads(result.out)
    assert told["text"] == CLOZE
    assert told["answer"] == "Bado"
    null, *others = told["candidates"]
    assert null["passage"] is None
    assert null["utility"] == 0
    assert len(others) == 4
    assert sum(candidate["p_passage"] for candidate in told["candidates"]) == pytest.approx(1)
    mixed = sum(c["p_passage"] * c["p_answer"] for c in told["candidates"])
    assert told["p_marginal"] == pytest.approx(mixed, rel=1e-4)
    shown = call(*command).out
    assert shown.startswith(CLOZE)
    assert "(null)" in shown


def test_explain_makes_a_table_of_a_file_of_sentences(
    world: World, call: Run, tmp_path: Path
) -> None:
    file = world.write_lines(
        tmp_path / "sentences.jsonl",
        [
            {"sentence": CLOZE, "answers": ["Bado"]},
            {"sentence": "[MASK] is a town.", "answer": "a"},
        ],
    )
    command = ("explain", "--sentences", file, "--model", world / "pretrain", "--candidates", "4")
    result = call(*command, "--out", tmp_path / "table.md")
    assert result.code == 0, result.err
    summary = result.out.splitlines()[-1]
    assert re.match(r"Retrieval makes the answer more probable in \d of 2 sentences \(4 ", summary)
    written = (tmp_path / "table.md").read_text().splitlines()
    assert written[0].startswith("| sentence | y | without retrieval |")
    assert written[2].startswith(f"| {CLOZE} | Bado | ")
    assert written[-1] == summary
    told = json.loads(call(*command, "--json").out)
    single = call(*("explain", CLOZE, *command[3:]), "--answer", "Bado", "--json")
    assert told["sentences"][0] == json.loads(single.out)
    assert told["num_candidates"] == 4


def test_align_writes_the_passages_that_help(world: World, call: Run, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    command = ("align", world / "examples", "--model", world / "pretrain", "--out", out)
    result = call(*command, "--limit", "9", "--candidates", "5", "--batch", "4")
    assert result.code == 0, result.err
    assert result.err == ""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    helped = sum(bool(line["passages"]) for line in lines)
    pairs = sum(len(line["passages"]) for line in lines)
    told = f"{helped} of 9 sentences with a passage that helps, {pairs} pairs in {out}\n"
    assert result.out == told
    again = call(*command, "--limit", "9", "--candidates", "5")
    assert again.out == f"already done: {told}"
    assert "made from other settings limit" not in again.err
    other = call(*command, "--limit", "8")
    assert "--rebuild" in other.message
    passages = ("--passages", world / "other")
    elsewhere = call(*command[:4], *passages, "--out", tmp_path / "other.jsonl", "--limit", "2")
    assert elsewhere.code == 0, elsewhere.err


def test_what_is_shown_is_what_was_asked_brackets_and_all(world: World, call: Run) -> None:
    question = "Who [red]was[/red] born in [b]Bado[/]?"
    assert call("ask", question, "--model", world / "qa").out.startswith(question)


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_the_verb_understands(call: Run, verb: str) -> None:
    result = call(verb, "--help")
    assert result.code == 0
    assert result.err == ""
    shown = re.sub(r"\x1b\[[\d;]*m", "", result.out)
    example = re.search(r"Example: (realm .*?)\n\s*\n", shown, re.DOTALL)
    assert example is not None
    words = shlex.split(" ".join(example[1].replace("\\", " ").split()))
    assert words[:2] == ["realm", verb]
    assert set(OPTION.findall(example[1])) <= set(OPTION.findall(shown.replace(example[0], "")))
    if "--set" in shown:
        assert "Settings and their defaults" in shown


def test_help_lists_the_verbs_and_needs_no_argument(call: Run) -> None:
    asked, bare = call("--help"), call()
    assert asked.code == bare.code == 0
    assert bare.out.strip() == asked.out.strip()
    positions = [asked.out.index(f" {verb} ") for verb in ("ask", "quickstart", "split", "ict")]
    assert positions == sorted(positions)
    assert all(f" {verb} " in asked.out for verb in VERBS)


def test_version_is_the_package_s(call: Run) -> None:
    from realm import __version__

    assert call("--version") == (0, f"realm {__version__}\n", "")


def test_colours_stand_on_a_terminal_only_and_not_with_no_color(world: World) -> None:
    plain, coloured = (_on_terminal(world, {"NO_COLOR": value}) for value in ("1", ""))
    for shown in (plain, coloured):
        assert "40 articles, 80 passages" in shown
    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)


def _on_terminal(world: World, variables: dict[str, str]) -> str:
    """Return what `realm split` writes to a terminal, its bar included."""
    leader, follower = pty.openpty()
    environment = {**os.environ, **variables, "TERM": "xterm-256color", "COLUMNS": "100"}
    out = world / f"split-{len(variables['NO_COLOR'])}"
    command = [sys.executable, "-m", "realm", *map(str, world.command("split", out))]
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                block = os.read(leader, 4_096)
            except OSError:  # Linux: the terminal is closed
                break
            if not block:
                break
            shown += block
    os.close(leader)
    assert process.returncode == 0, shown.decode()
    return shown.decode()


def test_ctrl_c_ends_at_once_and_the_same_command_resumes(
    world: World, call: Run, tmp_path: Path
) -> None:
    command = [*world.command("ict", tmp_path / "ict"), "--set", "steps=80"]
    process = subprocess.Popen(
        [sys.executable, "-m", "realm", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ict     5/80"):
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "stopped: nothing finished is lost, the same command resumes"
    assert "Traceback" not in err
    assert not (tmp_path / "ict" / "manifest.json").exists()
    result = call(*command, "--quiet")
    assert result.code == 0, result.err
    resumed = re.search(r"resumed from (\d+)", result.out)
    assert resumed is not None
    assert 4 <= int(resumed[1]) < 80
