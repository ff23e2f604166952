"""realm status: what a run is doing, told from its folder alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realm.cli.main import build_app
from realm.errors import ArtifactError
from realm.model.embedder import Embedder
from realm.refresh.parameters import Published
from realm.refresh.presence import builder_file, present, trainer_file
from realm.refresh.status import run_status

Started = Callable[..., Path]


@pytest.fixture
def run(started: Started, publish: Callable[..., Published], tower: Embedder) -> Path:
    run = started()
    publish(run, tower, 5)
    lines = [
        {"step": 1, "loss": 3.0, "index/staleness_steps": 1.0},
        {"step": 2, "loss": 2.5, "index/staleness_steps": 2.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + '{"step": 3, "lo')
    return run


def test_trainer_builders_index_and_numbers_are_told(run: Path) -> None:
    with present(trainer_file(run)) as trainer, present(builder_file(run, 0)) as builder:
        trainer.tell(state="training", step=2)
        builder.tell(state="embedding for step 5", done=3, total=24)
        found = run_status(run)
    assert found.trainer is not None
    assert found.trainer.is_alive
    assert [one.is_alive for one in found.builders] == [True]
    assert (found.snapshots, found.parameters, found.num_patches) == ([], [5], 0)
    assert found.metrics["loss"] == 2.5
    assert not found.is_finished
    assert run_status(run).builders[0].is_alive is False


def test_what_is_no_pre_training_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no run"):
        run_status(tmp_path)
    (tmp_path / "request.json").write_text(
        json.dumps({"kind": "run", "settings": {"stage": "ict"}})
    )
    with pytest.raises(ArtifactError, match="refreshes no index"):
        run_status(tmp_path)


def test_the_command_prints_a_table_or_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with present(trainer_file(run)) as trainer:
        trainer.tell(state="training", step=2)
        build_app()(["status", str(run), "--json"], standalone_mode=False)
        told = json.loads(capsys.readouterr().out)
        assert told["trainer"]["values"]["step"] == 2
        assert told["parameters"] == [5]
        build_app()(["status", str(run), "--once"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "training" in shown
    assert "staleness of the index" in shown


def test_a_folder_without_a_run_ends_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from realm.cli import main

    monkeypatch.setattr("sys.argv", ["realm", "status", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 2
    assert "error: found no run in" in capsys.readouterr().err
