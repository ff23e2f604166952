"""Curves of a run: whole, in parts, while it is written, and which runs there are."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import realm
from realm.errors import ArtifactError
from realm.reporting.curves import find_runs, read_curves
from realm.storage import locked

MakeRun = Callable[..., Path]
Lines = Callable[..., list[dict[str, Any]]]


def test_a_finished_run_has_all_of_its_curves_and_refreshes(
    make_run: MakeRun, pretrain_lines: Lines
) -> None:
    curves = read_curves(make_run(lines=pretrain_lines(10)))
    assert (curves.name, curves.stage, curves.state) == ("run", "pretrain", "finished")
    assert (curves.step, curves.num_steps) == (10, 10)
    assert curves.series["loss"] == [(step, 10.0 / step) for step in range(1, 11)]
    assert [step for step, _ in curves.series["eval/loss"]] == [0, 5, 10]
    assert curves.refreshes == [1, 6]
    assert json.loads(json.dumps(curves.as_dict()))["series"]["loss"][0] == [1, 10.0]


def test_a_run_is_running_while_somebody_holds_it_and_stopped_afterwards(
    make_run: MakeRun, pretrain_lines: Lines
) -> None:
    run = make_run(lines=pretrain_lines(3), finished=False)
    with locked(run):
        assert read_curves(run).state == "running"
    assert read_curves(run).state == "stopped"


def test_what_came_after_a_step_is_read_from_the_end(make_run: MakeRun) -> None:
    """Also where the end is longer than the first block that is read."""
    lines = [{"step": step, "loss": 1.0, "note": "x" * 1_000} for step in range(1, 401)]
    run = make_run(lines=lines, finished=False)
    for after in (0, 200, 398, 399):
        steps = [step for step, _ in read_curves(run, after=after).series["loss"]]
        assert steps == list(range(after + 1, 401))
    assert (read_curves(run, after=400).series, read_curves(run, after=400).step) == ({}, 400)


def test_a_measurement_of_the_same_step_is_not_told_twice(
    make_run: MakeRun, pretrain_lines: Lines
) -> None:
    run = make_run(lines=pretrain_lines(5))
    curves = read_curves(run, after=4)
    assert [step for step, _ in curves.series["loss"]] == [5]
    assert [step for step, _ in curves.series["eval/loss"]] == [5]


def test_a_run_that_went_back_says_so(make_run: MakeRun, pretrain_lines: Lines) -> None:
    run = make_run(lines=pretrain_lines(3), finished=False)
    assert read_curves(run, after=50).step == 3


def test_half_a_line_and_what_is_no_number_are_left_out(make_run: MakeRun) -> None:
    run = make_run(finished=False)
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0, "note": "text", "flag": true}\n'
        '{"step": 2, "loss": NaN, "tokens": 3}\n[]\n{"loss": 1.0}\n{"step": 3, "lo'
    )
    curves = read_curves(run)
    assert curves.series == {"loss": [(1, 2.0)], "tokens": [(2, 3.0)]}
    assert curves.step == 2
    json.dumps(curves.as_dict(), allow_nan=False)


def test_a_run_without_numbers_has_no_curves(make_run: MakeRun) -> None:
    run = make_run(finished=False)
    (run / "metrics.jsonl").unlink()
    assert (read_curves(run).series, read_curves(run).step) == ({}, -1)


def test_a_run_of_claims_is_told_from_one_of_questions(make_run: MakeRun) -> None:
    claims = make_run("claims", settings={"stage": "finetune", "task": "classify"})
    assert read_curves(claims).stage == "classify"
    assert read_curves(make_run("qa", settings={"stage": "finetune"})).stage == "finetune"


def test_what_is_no_training_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no run"):
        read_curves(tmp_path)
    imported = make_run("imported", settings={"stage": "import"})
    with pytest.raises(ArtifactError, match="only those have curves"):
        read_curves(imported)
    (tmp_path / "manifest.json").write_text('{"kind": "passages", "settings": {}}')
    with pytest.raises(ArtifactError, match="holds 'passages', expected a training run"):
        read_curves(tmp_path)


def test_runs_are_found_at_any_depth_but_not_inside_of_runs(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("runs/b")
    make_run("runs/deep/a", finished=False)
    make_run("runs/b/checkpoints/step-5")
    make_run("runs/.hidden.partial")
    make_run("runs/imported", settings={"stage": "import"})
    found = find_runs(tmp_path)
    assert [str(run.relative_to(tmp_path)) for run in found] == ["runs/b", "runs/deep/a"]
    assert find_runs(tmp_path / "runs/b") == [tmp_path / "runs/b"]
    with pytest.raises(ArtifactError, match="found no folder"):
        find_runs(tmp_path / "nowhere")


def test_reading_curves_imports_nothing_heavy() -> None:
    code = (
        "import sys, realm.reporting.curves; "
        "sys.exit(bool({'torch', 'transformers', 'matplotlib', 'pyarrow'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(realm.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == 0
