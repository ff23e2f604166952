"""metrics.jsonl: one line a step, none twice, none lost."""

import json
import os
from pathlib import Path

import pytest

from realm.checkpoint.run_records import read_metrics
from realm.errors import ConfigError
from realm.training.runlog import RunLog


def test_each_step_is_one_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0)
    log.write(1, {"loss": 2.0})
    log.write(2, {"loss": 1.5, "tokens": 7.0})
    log.close()
    assert read_metrics(tmp_path) == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.5, "tokens": 7.0},
    ]


def test_a_resumed_run_drops_what_it_repeats_and_knows_the_last_values(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0)
    log.write(0, {"eval/accuracy": 0.1})
    for step in range(1, 6):
        log.write(step, {"loss": float(step)})
    resumed = RunLog(tmp_path, resume_step=3)
    assert resumed.last == {"eval/accuracy": 0.1, "loss": 3.0}
    resumed.write(4, {"loss": 40.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    assert read_metrics(tmp_path)[-1]["loss"] == 40.0


def test_a_run_that_starts_again_drops_what_it_measured_at_step_0(tmp_path: Path) -> None:
    """Else it would stand there twice."""
    RunLog(tmp_path, resume_step=0).write(0, {"eval/accuracy": 0.1})
    assert RunLog(tmp_path, resume_step=0).last == {}
    assert read_metrics(tmp_path) == []


def test_a_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0)
    log.write(1, {"loss": 1.0})
    with log.path.open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}]
    RunLog(tmp_path, resume_step=1).write(2, {"loss": 0.5})
    lines = log.path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_resumed_log_is_on_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut soon after a resume could leave an empty log."""
    RunLog(tmp_path, resume_step=0).write(1, {"loss": 1.0})
    on_disk: list[bytes] = []
    fsync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        file = Path(f"/proc/self/fd/{handle}").readlink()
        on_disk.append(b"" if file.is_dir() else file.read_bytes())
        fsync(handle)

    def replaced(self: Path, target: Path) -> Path:
        assert self.read_bytes() in on_disk
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", replaced)
    RunLog(tmp_path, resume_step=1)
    assert on_disk == [b'{"step": 1, "loss": 1.0}\n', b""]  # the log, and its name
    assert len(read_metrics(tmp_path)) == 1


def test_a_run_without_numbers_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ConfigError, match=r"realm-lm\[track\]"):
        RunLog(tmp_path, resume_step=0, tensorboard=True)


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path, resume_step=0, tensorboard=True)
    log.write(1, {"loss": 1.0})
    log.close()
    assert list((tmp_path / "tensorboard").iterdir())
