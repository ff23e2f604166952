"""realm study: told wrongly, it says so before anything runs; the table can be printed alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm import encyclopedia
from realm.storage import write_json

Run = Callable[..., Any]

SETTINGS = """
[rows.a]
label = "whole"

[rows.d]
label = "warm start alone"
retriever = "start"
encoder = "start"
"""


@pytest.fixture
def refused(call: Run, tmp_path: Path) -> Callable[..., str]:
    """Return the message of a study that does not start."""
    (tmp_path / "study.toml").write_text(SETTINGS, encoding="utf-8")

    def refused(*options: object) -> str:
        text = ("--passages", tmp_path / "z.jsonl", "--train", tmp_path / "train.jsonl")
        text += ("--dev", tmp_path / "dev.jsonl", "--out", tmp_path / "out")
        result = call("study", tmp_path / "study.toml", *text, *options)
        assert not (tmp_path / "out").exists()
        return str(result.message)

    return refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--rows", "a,x"), "found rows ['x'], the study has ['a', 'd']"),
        (("--seeds", "0,one"), "expected whole numbers from 0 to 4294967295, as in 0,1,2"),
        (("--seeds", "0,-1"), "--seeds '0,-1': expected whole numbers from 0"),
        (("--seeds", "4294967296"), "expected whole numbers from 0 to 4294967295"),
        (("--set", "steps=3"), "expected SECTION.KEY=VALUE"),
        (("--set", "pretrain.stepps=3"), "there is no setting 'stepps'"),
        (("--processes", "0"), "found 0 worker processes, expected 1 or more"),
        (("--table",), "has no result yet; run the study without --table"),
    ],
)
def test_what_is_wrong_is_told(
    refused: Callable[..., str], options: tuple[str, ...], told: str
) -> None:
    assert told in refused(*options)


def test_the_table_of_a_part_is_printed_and_the_whole_one_stays(call: Run, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(SETTINGS, encoding="utf-8")
    out = tmp_path / "out"
    for seed, name, rank in ((0, "a", 1), (1, "a", 9), (0, "start", None)):
        (out / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        measured = {"ranks": {"q": rank}, "depth": 20, "step": 4}
        write_json(out / f"seed-{seed}" / f"zero-shot-{name}.json", measured)

    def printed(*options: object) -> Any:
        text = ("--passages", "z.jsonl", "--train", "t.jsonl", "--dev", "d.jsonl", "--out", out)
        return call("study", tmp_path / "study.toml", *text, "--table", *options)

    whole = printed()
    assert [line[:5] for line in whole.out.splitlines()[2:]] == ["| a |", "| d |"]
    assert (out / "table.md").read_text(encoding="utf-8") == whole.out
    kept = (out / "table.json").read_bytes()
    row = printed("--rows", "a").out.splitlines()[2:]
    assert row == whole.out.splitlines()[2:3]
    (first,) = printed("--rows", "a", "--seeds", "0").out.splitlines()[2:]
    assert first.startswith("| a | whole | 1 | 100.0 ")
    told = json.loads(printed("--seeds", "1", "--json").out)
    assert list(told["rows"]) == list(told["growth"]) == ["a"]
    assert list(told["recall_at"]["a"]) == ["1"]
    nothing = printed("--rows", "d", "--seeds", "1")
    assert "has no result of these rows and seeds yet" in nothing.message
    assert (out / "table.md").read_text(encoding="utf-8") == whole.out
    assert (out / "table.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("name", "held", "told"),
    [
        ("z.jsonl", None, "z.jsonl; expected JSON lines with id, title and text"),
        ("x.jsonl", None, "x.jsonl; expected JSON lines with id, title and text"),
        ("train.jsonl", None, "train.jsonl, expected questions as JSON lines"),
        ("dev.jsonl", None, "dev.jsonl, expected questions as JSON lines"),
        ("train.jsonl", '{"question": "Who?"}\n', "train.jsonl:1: found no answers among keys"),
    ],
)
def test_a_file_that_is_not_there_or_not_right_is_told_before_hours_of_training(
    refused: Callable[..., str], tmp_path: Path, name: str, held: str | None, told: str
) -> None:
    asked = encyclopedia.questions_file("test").read_text(encoding="utf-8")
    articles = encyclopedia.articles_file().read_text(encoding="utf-8")
    files = {"z.jsonl": articles, "x.jsonl": articles, "train.jsonl": asked, "dev.jsonl": asked}
    for each, text in {**files, name: held}.items():
        if text is not None:
            (tmp_path / each).write_text(text, encoding="utf-8")
    assert told in refused("--also", tmp_path / "x.jsonl", "--rows", "a, d")
