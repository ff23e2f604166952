"""A run's folder: new, to be resumed, finished, or another run's."""

import json
from pathlib import Path

import pytest

from realm.checkpoint.run_folder import is_unfinished, prepare_run, resume_point, start_run
from realm.errors import ArtifactError
from realm.storage import MANIFEST, REQUEST, Request, write_json


def request(*, steps: int = 3, passages: str = "p1") -> Request:
    return Request(
        kind="run",
        settings={"stage": "ict", "steps": steps, "sizes": (1, 2)},
        inputs={"passages": passages},
    )


def finish(run: Path, asked: Request) -> None:
    content = {"steps": 3, "seconds": 1.5, "metrics": {"loss": 0.25}}
    write_json(run / MANIFEST, {**asked.as_json(), "fingerprint": "f", "content": content})


def test_a_new_run_leaves_nothing_behind_before_it_starts(tmp_path: Path) -> None:
    """Settings that turn out to be impossible must not occupy the folder."""
    assert prepare_run(tmp_path / "run", request()) is None
    assert not (tmp_path / "run").exists()
    start_run(tmp_path / "run", request())
    assert is_unfinished(tmp_path / "run")
    assert resume_point(tmp_path / "run") is None


def test_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    start_run(tmp_path / "run", request())
    before = (tmp_path / "run" / REQUEST).stat().st_mtime_ns
    assert prepare_run(tmp_path / "run", request()) is None
    start_run(tmp_path / "run", request())
    assert (tmp_path / "run" / REQUEST).stat().st_mtime_ns == before


def test_a_finished_run_is_reported_as_it_ended(tmp_path: Path) -> None:
    start_run(tmp_path / "run", request())
    finish(tmp_path / "run", request())
    report = prepare_run(tmp_path / "run", request())
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
        prepare_run(tmp_path / "run", other)
    assert "--rebuild" in str(error.value)


@pytest.mark.parametrize("finished", [False, True])
def test_rebuild_replaces_it(tmp_path: Path, finished: bool) -> None:  # noqa: FBT001
    start_run(tmp_path / "run", request())
    if finished:
        finish(tmp_path / "run", request())
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    assert prepare_run(tmp_path / "run", request(steps=4), rebuild=True) is None
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for rebuild in (False, True):
        with pytest.raises(ArtifactError, match="choose another --out"):
            prepare_run(tmp_path / "run", request(), rebuild=rebuild)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    start_run(tmp_path / "run", request())
    known = json.loads((tmp_path / "run" / REQUEST).read_text())
    write_json(tmp_path / "run" / REQUEST, {**known, "format_version": 0})
    with pytest.raises(ArtifactError, match="format version"):
        prepare_run(tmp_path / "run", request())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        start_run(tmp_path / "file" / "run", request())
