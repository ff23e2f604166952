"""A run's folder: new, to be resumed, finished, or another run's."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realm.checkpoint.checkpoints import find_checkpoint
from realm.checkpoint.run_folder import (
    TrainReport,
    is_unfinished,
    open_run,
    resume_point,
    start_run,
)
from realm.errors import ArtifactError, ConfigError, StaleIndexError
from realm.storage import MANIFEST, REQUEST, Request, publish, read_json, write_json

OLD = ".run.replaced"


def request(*, steps: int = 3, passages: str = "p1") -> Request:
    return Request(
        kind="run",
        settings={"stage": "ict", "steps": steps, "sizes": (1, 2)},
        inputs={"passages": passages},
    )


def prepare(run: Path, asked: Request, *, rebuild: bool = False) -> TrainReport | None:
    """Look, and start nothing."""
    with open_run(run, asked, rebuild=rebuild) as report:
        return report


def finish(run: Path, asked: Request) -> None:
    content = {"steps": 3, "seconds": 1.5, "metrics": {"loss": 0.25}}
    write_json(run / MANIFEST, {**asked.as_json(), "fingerprint": "f", "content": content})


def train(run: Path, asked: Request, *, rebuild: bool = False, fails: bool = False) -> bool:
    """Stand for a stage that makes one checkpoint; return whether it went on from one."""
    with open_run(run, asked, rebuild=rebuild) as report:
        assert report is None
        found = resume_point(run) is not None
        start_run(run, asked)
        if not found:
            with publish(run / "checkpoints" / "step-1", Request(kind="checkpoint")) as scratch:
                (scratch / "steps").write_text(str(asked.settings["steps"]))
        if fails:
            raise StaleIndexError(index_step=1, train_step=9, limit_steps=4)
        finish(run, asked)
        return found


def steps_of(run: Path) -> int:
    """Return which run this is."""
    found = resume_point(run)
    assert found is not None
    return int((found / "steps").read_text())


def test_a_new_run_leaves_nothing_behind_before_it_starts(tmp_path: Path) -> None:
    """Settings that turn out to be impossible must not occupy the folder."""
    assert prepare(tmp_path / "run", request()) is None
    assert not list(tmp_path.iterdir())
    start_run(tmp_path / "run", request())
    assert is_unfinished(tmp_path / "run")
    assert resume_point(tmp_path / "run") is None


def test_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    start_run(tmp_path / "run", request())
    before = (tmp_path / "run" / REQUEST).stat().st_mtime_ns
    assert prepare(tmp_path / "run", request()) is None
    start_run(tmp_path / "run", request())
    assert (tmp_path / "run" / REQUEST).stat().st_mtime_ns == before


def test_a_run_goes_on_with_its_work_cut_otherwise_and_says_so(tmp_path: Path) -> None:
    """`batch_tokens` is what a GPU's memory holds, which one learns when it does not."""
    run, told = tmp_path / "run", list[str]()

    def cut(batch_tokens: int, **other: Any) -> Request:
        asked = request(**other)
        return replace(asked, settings={**asked.settings, "batch_tokens": batch_tokens})

    def go_on(asked: Request) -> TrainReport | None:
        with open_run(run, asked, tell=told.append) as report:
            if report is None:
                start_run(run, asked)
            return report

    go_on(cut(65_536))
    go_on(cut(65_536))
    assert not told
    go_on(cut(4_096))
    assert told == [
        f"{run} goes on with batch_tokens=4096, it was begun with batch_tokens=65536: its steps "
        "are the same but for rounding and for what dropout draws"
    ]
    assert read_json(run / REQUEST)["settings"]["batch_tokens"] == 4_096
    go_on(cut(4_096))
    assert len(told) == 1
    with pytest.raises(ArtifactError, match=r"with other settings\.steps; run"):
        go_on(cut(64, steps=4))
    finish(run, cut(4_096))
    assert go_on(cut(64)) is not None
    assert len(told) == 1


def test_a_finished_run_is_reported_as_it_ended(tmp_path: Path) -> None:
    start_run(tmp_path / "run", request())
    finish(tmp_path / "run", request())
    report = prepare(tmp_path / "run", request())
    assert report is not None
    assert report.already_done
    assert (report.steps, report.resumed_from, report.seconds) == (3, 3, 1.5)
    assert report.metrics == {"loss": 0.25}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("other", "named"), [(request(steps=4), "steps"), (request(passages="p2"), "passages")]
)
def test_another_run_is_refused_and_what_differs_is_named(
    tmp_path: Path,
    finished: bool,  # noqa: FBT001
    other: Request,
    named: str,
) -> None:
    start_run(tmp_path / "run", request())
    if finished:
        finish(tmp_path / "run", request())
    with pytest.raises(ArtifactError, match=named) as error:
        prepare(tmp_path / "run", other)
    assert "--rebuild" in str(error.value)
    assert "replaced" not in str(error.value)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("steps", [3, 4])
def test_rebuild_keeps_the_old_run_aside_until_the_new_one_is_finished(
    tmp_path: Path,
    finished: bool,  # noqa: FBT001
    steps: int,
) -> None:
    run = tmp_path / "run"
    start_run(run, request())
    if finished:
        finish(run, request())
    (run / "metrics.jsonl").write_text("{}\n")
    before = sorted(path.name for path in run.iterdir())
    with open_run(run, request(steps=steps), rebuild=True) as report:
        assert report is None
        assert not run.exists()
        start_run(run, request(steps=steps))
        assert sorted(path.name for path in (tmp_path / OLD).iterdir()) == before
        finish(run, request(steps=steps))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (run / "metrics.jsonl").exists()


def test_a_rebuild_that_does_not_start_leaves_the_old_run_where_it_was(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, request())
    with (
        pytest.raises(ConfigError, match=r"^impossible$"),
        open_run(run, request(steps=4), rebuild=True),
    ):
        raise ConfigError("impossible")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert prepare(run, request()) is not None
    assert steps_of(run) == 3


def test_a_rebuild_that_fails_says_where_the_old_run_is_and_goes_on_when_asked_again(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    train(run, request())
    told = rf"4\)?.*steps`?.*What {run} is to replace is kept in {tmp_path / OLD}"
    with pytest.raises(StaleIndexError, match=told):
        train(run, request(steps=4), rebuild=True, fails=True)
    assert steps_of(tmp_path / OLD) == 3
    with pytest.raises(ArtifactError, match=rf"settings\.steps.*is kept in {tmp_path / OLD}"):
        prepare(run, request())
    with pytest.raises(StaleIndexError):  # with or without --rebuild: it goes on
        train(run, request(steps=4), fails=True)
    assert train(run, request(steps=4), rebuild=True)
    assert steps_of(run) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_rebuild_with_other_settings_replaces_an_unfinished_rebuild_not_the_finished_run(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    train(run, request())
    with pytest.raises(StaleIndexError):
        train(run, request(steps=4), rebuild=True, fails=True)
    with pytest.raises(StaleIndexError):
        train(run, request(steps=5), rebuild=True, fails=True)
    assert (steps_of(run), steps_of(tmp_path / OLD)) == (5, 3)
    (tmp_path / "run").rename(tmp_path / "elsewhere")  # whoever wants the old one back ...
    assert prepare(run, request()) is not None
    assert steps_of(run) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run"]


def test_an_old_run_that_cannot_be_moved_stays_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(run, request())

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(ArtifactError, match=r"cannot move .*run to .*Permission denied"):
            train(run, request(steps=4), rebuild=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert prepare(run, request()) is not None


@pytest.mark.parametrize("kind", ["checkpoint", "passages"])
@pytest.mark.parametrize("note", [MANIFEST, REQUEST])
def test_rebuild_never_moves_a_folder_of_another_kind(tmp_path: Path, kind: str, note: str) -> None:
    other = Request(kind=kind, settings=request().settings, inputs=request().inputs)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / note, other.as_json())
    with pytest.raises(ArtifactError):
        train(tmp_path / "run", request(), rebuild=True)
    assert (tmp_path / "run" / note).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_rebuild_killed_at_any_point_keeps_the_old_run_until_the_new_one_is_finished(
    tmp_path: Path, killed_after: Callable[[int, Callable[[], None]], bool]
) -> None:
    """... and the same command, with or without --rebuild, ends as if nothing had happened."""
    states = set()
    for num_events in range(1_000):
        run = tmp_path / str(num_events) / "run"
        train(run, request())
        was_killed = killed_after(
            num_events, lambda run=run: train(run, request(steps=4), rebuild=True)
        )
        old = run.parent / OLD
        if not run.exists():
            state = "absent"
        elif is_unfinished(run):
            state = "unfinished"
        else:
            state = f"finished {steps_of(run)}"
        assert state == "finished 4" or steps_of(run if state == "finished 3" else old) == 3
        states.add((state, old.exists()))
        if state == "absent" and num_events % 2:
            assert find_checkpoint(run).name == "step-1"  # a reader gets the old one back
            assert steps_of(run) == 3
        if state == "finished 4":
            is_ending = bool(list(run.parent.glob(".run.re*")))
            assert prepare(run, request(steps=4), rebuild=is_ending) is not None
        else:
            train(run, request(steps=4), rebuild=state != "unfinished" or num_events % 2 == 0)
        assert steps_of(run) == 4
        left = {path.name for path in run.parent.iterdir()}
        assert left - {".run.lock"} == {"run"}  # a finished run is read without a lock
        if not was_killed:
            break
    assert 40 < num_events < 900
    assert states >= {
        ("finished 3", False),
        ("absent", True),
        ("unfinished", True),
        ("finished 4", True),
        ("finished 4", False),
    }


WRITER = """
import sys, time
from pathlib import Path
from realm.checkpoint.run_folder import open_run, start_run
from realm.storage import Request

run = Path(sys.argv[1])
asked = Request(kind="run", settings={"stage": "ict", "steps": 3, "sizes": (1, 2)},
                inputs={"passages": "p1"})
with open_run(run, asked):
    start_run(run, asked)
    print("started", flush=True)
    time.sleep(300)
"""


def test_a_second_process_is_kept_out_of_a_run_until_the_first_one_dies(tmp_path: Path) -> None:
    run = tmp_path / "run"
    source = Path(__file__).parents[2] / "src"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, run],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "started\n"
            for rebuild in (False, True):
                with pytest.raises(
                    ArtifactError, match=rf"being written by process {first.pid} on "
                ):
                    prepare(run, request(), rebuild=rebuild)
        finally:
            first.send_signal(signal.SIGKILL)
    assert (tmp_path / ".run.lock").is_file()
    assert is_unfinished(run)
    assert not train(run, request())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_processes_may_find_the_same_run_finished(tmp_path: Path) -> None:
    train(tmp_path / "run", request())
    with (
        open_run(tmp_path / "run", request()) as first,
        ThreadPoolExecutor() as pool,
    ):
        assert pool.submit(prepare, tmp_path / "run", request()).result() == first is not None


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for rebuild in (False, True):
        with pytest.raises(ArtifactError, match="choose another --out"):
            prepare(tmp_path / "run", request(), rebuild=rebuild)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    start_run(tmp_path / "run", request())
    known = read_json(tmp_path / "run" / REQUEST)
    write_json(tmp_path / "run" / REQUEST, {**known, "format_version": 0})
    with pytest.raises(ArtifactError, match="format version"):
        prepare(tmp_path / "run", request())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match="cannot write"),
        open_run(tmp_path / "file" / "run", request()),
    ):
        start_run(tmp_path / "file" / "run", request())
