"""realm plan and realm approximate as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.planning import calibrate as measuring
from realm.planning.asking import parse_count
from realm.planning.machine import Calibration, MachineRates

Run = Callable[..., Any]
World = Any
PAPER = (
    *("plan", "--passages", "13.35e6", "--encoder", "bert-base", "--gpu", "tpu-v3"),
    *("--set", "batch_size=512", "--set", "steps=200000"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "realm"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the encoders that were measured, instead of measuring."""
    names: list[str] = []
    rates = MachineRates(
        is_measured=True,
        source="a made-up machine",
        **dict.fromkeys(
            (
                *("embed_flops", "train_flops", "scan_bytes", "scan_flops", "stream_bytes"),
                *("split_wordpieces", "mask_wordpieces", "disk_write_bytes", "network_bytes"),
                *("memory_bytes", "base_memory_bytes"),
            ),
            1e10,
        ),
        embed_passage_seconds=1e-5,
        has_quick_bfloat16=True,
    )

    def calibrate(shape: Any, *, dim: int, threads: int, progress: Any) -> Calibration:
        del dim, progress
        names.append(shape.name)
        return Calibration(
            rates=rates,
            encoder=shape.name,
            threads=threads,
            hardware="made up",
            versions={},
            date="2026-01-01",
            seconds=0.1,
        )

    monkeypatch.setattr(measuring, "calibrate", calibrate)
    return names


def test_the_papers_plan_stands_in_a_table(call: Run) -> None:
    result = call(*PAPER, "--trainers", 64, "--builders", 16)
    assert result.code == 0, result.err
    assert (
        "13,350,000 passages of 150 wordpieces, bert-base, 64 trainers, 16 builders" in result.out
    )
    assert "index: 3.42 GB to search (16 bits), 10.3 GB on disk" in result.out
    assert "computed, not measured" in result.out
    for stage in ("split", "ict", "mlm", "first index", "pretrain", "refresh", "finetune"):
        assert f"\n{stage} " in result.out


def test_json_holds_every_part(call: Run) -> None:
    values = json.loads(call(*PAPER, "--gpus", 80, "--json").out)
    assert values["trainers"] + values["builders"] == 80
    assert values["rates"]["is_measured"] is False
    refresh = next(stage for stage in values["stages"] if stage["name"] == "refresh")
    assert set(refresh["parts"]) == {"embedding", "writing", "handing over"}


@pytest.mark.parametrize("text", ["13.35e6", "13.35M", "13350k", "13,350,000", "13_350_000"])
def test_numbers_are_read_as_people_write_them(call: Run, text: str) -> None:
    result = call("plan", "--passages", text, "--gpus", 1, "--json")
    assert json.loads(result.out)["passages"] == 13_350_000


def test_a_machine_is_measured_once(call: Run, measured: list[str], cache: Path) -> None:
    words = ("plan", "--passages", "1M", "--encoder", "2x128", "--threads", 1)
    first = call(*words)
    assert first.code == 0, first.err
    assert "measured in 0 s" in first.err
    assert [file.name for file in cache.iterdir()] == ["calibration-2x128-1.json"]
    assert call(*words).out == first.out
    assert measured == ["2x128"]
    assert call(*words, "--calibrate").out == first.out
    assert measured == ["2x128", "2x128"]
    carried = call(*words, "--calibration", cache / "calibration-2x128-1.json")
    assert carried.out == first.out
    only = call("plan", "--encoder", "4x64", "--calibrate", "--threads", 2)
    assert "joint step" in only.out
    assert measured[-1] == "4x64"


def test_without_threads_those_cores_count_that_the_process_may_use(
    call: Run, measured: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU seconds are divided by threads: 64 of them on 3 cores would seem 21 times as fast."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert call("plan", "--encoder", "2x128", "--calibrate").code == 0
    assert [file.name for file in cache.iterdir()] == ["calibration-2x128-3.json"]
    assert measured == ["2x128"]


def test_builders_alone_stand_beside_one_trainer(call: Run) -> None:
    words = ("plan", "--passages", "1M", "--gpu", "h100", "--builders", 3, "--json")
    values = json.loads(call(*words).out)
    assert (values["trainers"], values["builders"]) == (1, 3)


def test_accelerators_are_never_measured(call: Run, measured: list[str]) -> None:
    assert call(*PAPER, "--gpus", 8).code == 0
    assert call("plan", "--passages", "1M", "--tflops", 100, "--efficiency", 0.3).code == 0
    assert measured == []


def test_passages_of_a_folder_are_counted(call: Run, world: World) -> None:
    result = call("plan", "--passages", world / "passages", "--gpus", 1, "--json")
    values = json.loads(result.out)
    assert values["passages"] == 80
    assert 20 < values["passage_wordpieces"] < 32


def test_settings_reach_their_stage(call: Run, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[ict]\nsteps = 7\n[pretrain]\nbatch_size = 64\n")
    words = ("plan", "--passages", "1M", "--gpus", 1, "--json", "--config", file)
    told = ("--set", "mlm.steps=9", "--set", "refresh.every_steps=40", "--set", "steps=400")
    values = json.loads(call(*words, *told).out)
    steps = {stage["name"]: stage["steps"] for stage in values["stages"]}
    assert (steps["ict"], steps["mlm"], steps["pretrain"]) == (7, 9, 400)
    assert values["staleness_steps"] == {"mean": 20.0, "max": 40.0}


def test_what_is_impossible_is_told(call: Run) -> None:
    result = call("plan", "--passages", "1e9", "--encoder", "bert-base", "--gpus", 2)
    assert result.code == 0
    assert "as it stands: pretrain: the index takes" in result.out
    assert "IVF-PQ with 40 bytes a passage (40 GB in all)" in result.out


@pytest.mark.parametrize("number", ["13,353,718", "13_353_718", "13353.718k", "13.353718M"])
def test_a_number_is_read_as_people_write_it(number: str) -> None:
    assert parse_count(number, name="--passages") == 13_353_718


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "found no --passages"),
        (("--passages", "many"), "found 'many'"),
        (("--passages", "1"), "from 2 to 1e12"),
        (("--passages", "1e99999"), "from 2 to 1e12"),
        (("--passages", "1,5M"), "found '1,5M'"),
        (("--passages", "13,35M"), "found '13,35M'"),
        (("--passages", "1234,567"), "found '1234,567'"),
        (("--passages", "1M", "--encoder", "big"), "found encoder 'big'"),
        (("--passages", "1M", "--gpu", "abacus"), "found 'abacus'"),
        (("--passages", "1M", "--gpus", "0"), "expected 1 to"),
        (("--passages", "1M", "--gpus", "4", "--builders", "4"), "are not 4 accelerators"),
        (("--passages", "1M", "--gpus", "4", "--builders", "-1"), "--builders: found -1"),
        (("--passages", "1M", "--tflops", "-1"), "more than 0"),
        (("--passages", "1M", "--gpus", "1", "--efficiency", "2"), "up to 1"),
        (("--passages", "1M", "--gpus", "1", "--network-gbits", "0"), "more than 0"),
        (("--passages", "1M", "--gpus", "1", "--network-gbits", "nan"), "found nan"),
        (("--passages", "1M", "--tflops", "inf"), "found --tflops inf"),
        (("--passages", "1M", "--gpus", "1", "--gpu-memory", "nan"), "--gpu-memory nan"),
        (("--passages", "1M", "--gpus", "1", "--set", "frob=1"), "no setting 'frob'"),
        (("--passages", "1M", "--gpus", "1", "--set", "ict.frob=1"), "no setting 'frob'"),
        (("--passages", "1M", "--passage-wordpieces", "1000"), "4 to 512"),
        (("--passages", "1M", "--threads", "0"), "at least 1"),
        (("--passages", "1M", "--efficiency", "0.3"), "found --efficiency without an accelerator"),
        (("--passages", "1M", "--gpu-memory", "40"), "found --gpu-memory without an accelerator"),
        (("--passages", "1M", "--gpus", "1", "--threads", "2"), "found --threads beside accel"),
        (
            ("--passages", "1M", "--calibration", "a.json", "--calibrate"),
            "found --calibrate beside --calibration, expected one of them",
        ),
        (("--passages", "1M", "--calibration", "absent.json"), "cannot read the calibration"),
    ],
)
def test_bad_input_is_told(call: Run, words: tuple[str, ...], told: str) -> None:
    result = call("plan", *words)
    assert told in result.message


def test_an_approximate_index_is_made_and_tells_its_recall(
    call: Run, world: World, tmp_path: Path
) -> None:
    pytest.importorskip("faiss", reason="needs the extra: ann")
    words = ("approximate", world / "index", "--out", tmp_path / "out", "--set", "bits=4")
    few = call("approximate", world / "index", "--out", tmp_path / "out")
    assert "needs at least 512 passages" in few.message
    made = call(*words)
    assert made.code == 0, made.err
    assert "80 passages" in made.out
    assert "recall@8 " in made.out
    assert call(*words).out.startswith("already done: 80 passages")
