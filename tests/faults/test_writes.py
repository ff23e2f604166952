"""Each call to the file system fails in turn: it is told, and going on equals a run left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.forks import Ended
from tests.faults.layer import Layer, environment
from tests.faults.trainers import environment as own_environment
from tests.faults.writes import check_told, content_of, cut_short, fail_one, written_by
from tests.towns import World

ALL = ("split", "mask", "ict", "index", "pretrain", "docs", "pack", "export")
SAMPLE = {"split": 3, "ict": 4, "pretrain": 4, "docs": 4, "pack": 3, "align": 3, "export": 2}
"""How many of a command's calls CI fails; `make soak` and -m slow fail any."""


def sampled(num_calls: int, num_samples: int) -> list[int]:
    """Return calls from the first to the last but one, each with another error."""
    return [round((place + 0.5) * num_calls / num_samples) for place in range(num_samples)]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_call_that_fails_is_told_and_nothing_is_lost(
    name: str, made: World, tmp_path: Path
) -> None:
    written = written_by(made, tmp_path)[name]
    num_calls, expected = written.undisturbed()
    assert num_calls > 15
    told = 0
    for number in sampled(num_calls, SAMPLE[name]):
        told += fail_one(written, number, expected).code == 2
    assert told > 0


@pytest.mark.parametrize("name", ["split", "mask", "docs", "pack", "approximate", "export"])
def test_a_file_that_cannot_become_larger_is_told_and_nothing_is_lost(
    name: str, made: World, tmp_path: Path
) -> None:
    written = written_by(made, tmp_path)[name]
    _, expected = written.undisturbed()
    for limit_bytes in (600, 1_500):
        told = cut_short(written, limit_bytes, expected)
        assert told.code == 2
        assert "too large" in told.err.lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_call_that_fails_is_told_and_nothing_is_lost(
    name: str, made: World, tmp_path: Path
) -> None:
    written = written_by(made, tmp_path)[name]
    num_calls, expected = written.undisturbed()
    for number in range(num_calls):
        fail_one(written, number, expected)


def test_a_process_of_its_own_tells_a_full_disk_without_a_traceback(
    made: World, tmp_path: Path
) -> None:
    """The layer comes into it through `sitecustomize`."""
    written = written_by(made, tmp_path)["split"]
    layer = Layer(root=str(tmp_path), fail_at=12, code="ENOSPC", lasts=True)
    told = own_environment()
    path = environment(layer)
    told |= path | {"PYTHONPATH": os.pathsep.join([path["PYTHONPATH"], told["PYTHONPATH"]])}
    ended = subprocess.run(
        [sys.executable, "-m", "realm", *map(str, written.command)],
        env=told,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "No space left on device" in ended.stderr
    check_told(Ended(ended.returncode, ended.stdout, ended.stderr, [], []), "split")
    assert not content_of(written.out)
