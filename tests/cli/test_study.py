"""realm study: told wrongly, it says so before anything runs; the table can be printed alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
