"""scripts/plot_utility.py draws the curves of a study's runs, or says what it expects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "plot_utility.py"


def draw(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_runs_are_drawn_and_anything_else_is_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is missing")
    (tmp_path / "run").mkdir()
    lines = [{"step": step, "utility/marginal_minus_null": step / 40} for step in range(1, 41)]
    lines += [{"step": step, "eval/candidates_hold_span": 0.5} for step in (0, 40)]
    written = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run" / "metrics.jsonl").write_text(written, encoding="utf-8")
    for wrong in (("--help",), ("out.svg",), ("out.svg", "run"), ("out.svg", "a=gone")):
        told = draw(tmp_path, *wrong)
        assert told.returncode == (0 if wrong == ("--help",) else 2)
        assert "LABEL=RUN[,RUN...]" in told.stdout + told.stderr
        assert [file.name for file in tmp_path.iterdir()] == ["run"]
    told = draw(tmp_path, "out.svg", *(f"{label}=run" for label in "abcde"))
    assert told.returncode == 2
    assert "found 5 labels, expected at most 4" in told.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    assert draw(tmp_path, "out.svg", "salient spans=run").returncode == 0
    assert "salient spans" in (tmp_path / "out.svg").read_text(encoding="utf-8")
