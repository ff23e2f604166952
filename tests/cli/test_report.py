"""realm report as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of questions that was cut after two steps."""
    folder = tmp_path / "runs" / "qa"
    folder.mkdir(parents=True)
    settings = {"stage": "finetune", "steps": 5}
    told = {"format_version": 1, "kind": "run", "settings": settings, "inputs": {}}
    (folder / "request.json").write_text(json.dumps(told))
    lines = [{"step": step, "loss": 3.0 / step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_becomes_one_file(call: Run, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "deep" / "report.html"
    assert call("report", run, "--out", out) == (0, f"report of {run} in {out}\n", "")
    assert "Stopped after 2 of 5 steps" in out.read_text("utf-8")
    assert [file.name for file in out.parent.iterdir()] == ["report.html"]
    assert call("report", run, "--out", out, "--quiet") == (0, "", "")


def test_what_is_wrong_is_told_and_nothing_is_written(call: Run, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert "found no run in" in call("report", tmp_path, "--out", out).message
    wrong = {"{": "; expected a report of `realm eval", '{"kind": "index"}': "found kind 'index'"}
    for text, told in wrong.items():
        (tmp_path / "bad.json").write_text(text)
        command = ("report", run, "--out", out, "--evaluation", tmp_path / "bad.json")
        assert told in call(*command).message
    assert "'--questions'" in call("report", run, "--questions", -1).message
    assert not out.exists()
