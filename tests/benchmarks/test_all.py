"""All parts in one go: one that fails stops no other."""

import importlib
from pathlib import Path

import pytest

PART = """
import sys
from harness import Figure, Measured, run_benchmark

def measure(told):
    {body}
    return Measured(figures=[Figure(what="speed-up", value={value}, at_least=2.0)])

sys.exit(run_benchmark("{name}", "Made up.", measure))
"""


def part(folder: Path, name: str, value: float, body: str = "pass") -> None:
    text = PART.format(name=name, value=value, body=body)
    folder.joinpath(f"{name}.py").write_text(text, encoding="utf-8")


def test_all_goes_on_after_a_failure_and_sums_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_parts = importlib.import_module("all").run_parts
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "benchmarks"))
    part(tmp_path, "broken", 9.0, "raise SystemExit(7)")
    part(tmp_path, "slow", 1.0)
    part(tmp_path, "good", 3.0)
    out = tmp_path / "results"
    assert run_parts(["broken", "slow", "good"], out, ["--check"], tmp_path) == 1
    told = capfd.readouterr().out
    summary = told[told.index("SUMMARY") :]
    assert "broken: FAILED with code 7" in summary
    assert "target at least 2: MISSED" in summary
    assert "target at least 2: met" in summary
    assert run_parts(["good"], out, ["--check"], tmp_path) == 0
    assert run_parts(["slow"], out, [], tmp_path) == 0


def test_a_failed_part_keeps_its_older_results(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told to be older also where they had missed a target."""
    run_parts = importlib.import_module("all").run_parts
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "benchmarks"))
    out = tmp_path / "results"
    for value in (3.0, 1.0):
        part(tmp_path, "one", value)
        assert run_parts(["one"], out, [], tmp_path) == 0
        before = (out / "one.json").read_text(encoding="utf-8")
        part(tmp_path, "one", value, "raise ValueError")
        capfd.readouterr()
        assert run_parts(["one"], out, [], tmp_path) == 1
        assert (out / "one.json").read_text(encoding="utf-8") == before
        told = capfd.readouterr().out
        assert "one: FAILED with code 1; figures below are older" in told
