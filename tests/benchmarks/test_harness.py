"""Rounds that interleave, paired ratios, targets that fail."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Figure, Measured, Seconds, Spread, Timings, interleaved, ratio, run_benchmark
from machine import commit, hardware

SPIN = 200_000


def spin(times: int) -> None:
    for _ in range(times * SPIN):
        pass


def test_rounds_interleave_after_a_warm_up() -> None:
    seen: list[str] = []
    actions = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    timings = interleaved(actions, rounds=6)
    assert seen[:3] == ["a", "b", "c"]
    rounds = [tuple(seen[start : start + 3]) for start in range(3, 21, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1, "the order is drawn anew each round"
    assert [len(timings[name].cpu) for name in "abc"] == [6, 6, 6]


def test_cpu_seconds_count_ended_children() -> None:
    code = f"for _ in range({40 * SPIN}): pass"
    spent = interleaved(
        {"child": lambda: subprocess.run([sys.executable, "-c", code], check=True)}, rounds=1
    )["child"]
    assert spent.cpu[0] > 0.05


def test_an_action_may_measure_itself() -> None:
    timings = interleaved({"peer": lambda: Seconds(3.0, 4.0)}, rounds=2)["peer"]
    assert timings == Timings([3.0, 3.0], [4.0, 4.0])


def test_ratio_is_paired_by_round() -> None:
    # Both slow down threefold in the last rounds: the medians of each alone would not tell.
    peer, ours = Timings([4, 12, 12, 4, 12]), Timings([2, 6, 6, 2, 6])
    assert ratio(peer, ours) == Spread(2.0, 2.0, 2.0)
    assert ratio(Timings([1, 2, 3, 4, 5]), Timings([1] * 5), weight=2) == Spread(6, 4, 8)


def test_twice_the_work_takes_twice_as_long() -> None:
    timings = interleaved({"one": lambda: spin(1), "two": lambda: spin(2)}, rounds=9)
    assert 1.5 < ratio(timings["two"], timings["one"]).median < 2.7


@pytest.mark.parametrize(
    ("value", "flags", "code"),
    [
        (2.0, ["--check"], 1),  # below the target
        (2.0, [], 0),
        (3.0, ["--check"], 0),
        (Spread(2.9, 1.0, 9.0), ["--check"], 1),  # the median counts
        (None, ["--check"], 0),  # a peer that is not there is said, not failed
    ],
)
def test_check_fails_on_a_missed_target(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    value: float | Spread | None,
    flags: list[str],
    code: int,
) -> None:
    out = tmp_path / "made-up.json"

    def measure(_: argparse.Namespace) -> Measured:
        figure = Figure(what="against nothing", value=value, at_least=3.0, note="no peer")
        return Measured(figures=[figure], timings={"ours": Timings([1.0, 3.0], [2.0, 2.0])})

    found = run_benchmark("made-up", "Made up.", measure, arguments=[*flags, "--out", str(out)])
    assert found == code
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["figures"][0]["met"] is (None if value is None else value == 3.0)
    assert content["timings"]["ours"]["cpu_seconds"]["median"] == 2.0
    assert {"commit", "dirty", "hardware", "load_average", "versions"} <= content.keys()
    told = capsys.readouterr()
    assert ("missed: made-up" in told.err) == (value in (2.0, Spread(2.9, 1.0, 9.0)))
    assert ("not measured: no peer" in told.out) == (value is None)


def test_at_most_is_a_target_too() -> None:
    assert Figure(what="bytes", value=0.6, at_most=0.5).is_met is False
    assert Figure(what="bytes", value=0.5, at_most=0.5).is_met is True
    assert Figure(what="bytes", value=0.5).is_met is None


def test_hardware_names_no_machine() -> None:
    told = hardware()
    assert told["cores"] >= 1
    assert told["memory_bytes"] > 2**28
    assert set(told) == {"cpu", "features", "cores", "memory_bytes"}


def test_commit_is_dirty_with_changes_outside_the_results(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        author = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True)

    assert commit(tmp_path)["commit"] is None
    git("init", "--quiet")
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "benchmarks/results/a.json").write_text("1")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    (tmp_path / "benchmarks/results/a.json").write_text("2")
    assert commit(tmp_path)["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    told = commit(tmp_path)
    assert told["dirty"] is True
    assert len(told["commit"]) == 12
