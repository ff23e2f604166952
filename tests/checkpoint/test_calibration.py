"""calibration.json: whole or absent, for one model under one retriever."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realm.checkpoint.calibration import (
    CALIBRATION,
    Calibration,
    carry_calibration,
    load_calibration,
    save_calibration,
)
from realm.errors import ArtifactError
from realm.model.confidence import FEATURES, Calibrator

COUNT = len(FEATURES)
KilledAfter = Callable[[int, Callable[[], object]], bool]
MADE = Calibration(
    model_fingerprint="0123456789abcdef",
    retriever="dense",
    num_passages=5,
    calibrator=Calibrator(
        names=FEATURES,
        means=(0.5,) * COUNT,
        scales=(1.0,) * COUNT,
        weights=(0.25,) * COUNT,
        bias=-1.0,
    ),
    min_probability=0.2,
    figures={"num_questions": 40},
)


def test_it_reads_back_from_the_run_and_from_its_checkpoints(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.json").write_text("{}")
    assert load_calibration(tmp_path / "run") is None
    save_calibration(tmp_path / "run", MADE)
    assert load_calibration(tmp_path / "run") == load_calibration(checkpoint) == MADE


def test_it_speaks_for_its_model_under_its_retriever_only() -> None:
    told = {"model_fingerprint": "0123456789abcdef", "retriever": "dense"}
    assert MADE.mismatch(**told) is None
    assert "another model (0123456789ab, this is feed)" in (
        MADE.mismatch(**{**told, "model_fingerprint": "feed"}) or ""
    )
    assert "retriever dense" in (MADE.mismatch(**{**told, "retriever": "bm25"}) or "")


def test_it_is_whole_or_as_it_was_whenever_the_writer_dies(
    tmp_path: Path, killed_after: KilledAfter
) -> None:
    save_calibration(tmp_path, MADE)
    other = replace(MADE, min_probability=0.9)
    for num_events in range(100):
        died = killed_after(num_events, lambda: save_calibration(tmp_path, other))
        assert load_calibration(tmp_path) in (MADE, other)
        if not died:
            assert load_calibration(tmp_path) == other
            return
    raise AssertionError("it never came to its end")


@pytest.fixture
def carry(tmp_path: Path) -> Callable[[], str | None]:
    """Carry the calibration of `run`, whose model is MADE's, to `packed`."""
    for name in ("run", "packed"):
        (tmp_path / name).mkdir()
    return lambda: carry_calibration(
        tmp_path / "run",
        tmp_path / "packed",
        source_fingerprint=MADE.model_fingerprint,
        model_fingerprint="feed",
    )


CARRIED = replace(MADE, model_fingerprint="feed", inputs={"carried_from": MADE.model_fingerprint})


def test_it_is_carried_along_to_the_same_model_in_another_form(
    tmp_path: Path, carry: Callable[[], str | None]
) -> None:
    assert carry() is None
    assert load_calibration(tmp_path / "packed") is None
    save_calibration(tmp_path / "run", MADE)
    assert carry() is None
    assert load_calibration(tmp_path / "packed") == CARRIED


def test_one_of_another_model_is_left_behind(
    tmp_path: Path, carry: Callable[[], str | None]
) -> None:
    save_calibration(tmp_path / "run", replace(MADE, model_fingerprint="cafe"))
    assert "belongs to another model (cafe, this is 0123456789ab)" in (carry() or "")
    assert load_calibration(tmp_path / "packed") is None


def test_one_that_was_carried_gives_way_to_a_newer_one(
    tmp_path: Path, carry: Callable[[], str | None]
) -> None:
    older = replace(MADE, model_fingerprint="feed")  # as releases before 0.9.0 carried it
    save_calibration(tmp_path / "packed", older)
    save_calibration(tmp_path / "run", MADE)
    assert carry() is None
    save_calibration(tmp_path / "run", replace(MADE, min_probability=0.9))
    assert carry() is None
    assert load_calibration(tmp_path / "packed") == replace(CARRIED, min_probability=0.9)


def test_one_that_was_fitted_to_the_model_itself_stays(
    tmp_path: Path, carry: Callable[[], str | None]
) -> None:
    own = replace(MADE, model_fingerprint="feed", min_probability=0.7)
    save_calibration(tmp_path / "packed", own)
    save_calibration(tmp_path / "run", MADE)
    assert "keeps a calibration.json of its own" in (carry() or "")
    assert load_calibration(tmp_path / "packed") == own


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in MADE.as_json().items() if name != key}


@pytest.mark.parametrize(
    "value",
    [
        {**MADE.as_json(), "format_version": 99},
        {**MADE.as_json(), "kind": "run"},
        {**MADE.as_json(), "calibrator": {"names": []}},
        {**MADE.as_json(), "calibrator": 3},
        {**MADE.as_json(), "min_probability": "high"},
        _without("retriever"),
        _without("calibrator"),
        ["a list"],
    ],
)
def test_a_damaged_or_foreign_one_is_told(tmp_path: Path, value: object) -> None:
    (tmp_path / CALIBRATION).write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=CALIBRATION):
        load_calibration(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        save_calibration(tmp_path / "missing", MADE)
