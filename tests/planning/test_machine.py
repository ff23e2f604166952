"""Rates are measured once, kept, read again, and refused where they are damaged."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from realm.corpus.store import PassageStore
from realm.doctor import look_at_machine
from realm.errors import ArtifactError, ConfigError
from realm.planning import calibrate as measuring
from realm.planning import container
from realm.planning.encoders import parse_encoder
from realm.planning.machine import (
    ACCELERATORS,
    Calibration,
    MachineRates,
    calibration_file,
    computed_rates,
    machine_memory_bytes,
    usable_memory_bytes,
)
from realm.readable import size
from realm.storage import read_json, write_json


@pytest.fixture
def kept(rates: MachineRates, tmp_path: Path) -> Path:
    made = Calibration(
        rates=rates,
        encoder="2x128",
        threads=1,
        hardware="made up",
        versions={"torch": "2"},
        date="2026-01-01",
        seconds=1.0,
    )
    made.save(tmp_path / "cache" / "rates.json")
    return tmp_path / "cache" / "rates.json"


def test_what_was_saved_is_read_again(kept: Path, rates: MachineRates) -> None:
    assert Calibration.load(kept).rates == rates
    assert [file.name for file in kept.parent.iterdir()] == ["rates.json"]


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration_file("minilm", 2) == tmp_path / "realm" / "calibration-minilm-2.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration_file("minilm", 2).is_relative_to(tmp_path / ".cache")


def test_a_rate_that_was_changed_is_refused(kept: Path) -> None:
    kept.write_text(kept.read_text().replace("64000000000.0", "64000000001.0"))
    with pytest.raises(ArtifactError, match=r"rates\.json is damaged.*--calibrate"):
        Calibration.load(kept)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "rates": {}}'])
def test_a_damaged_file_is_refused(kept: Path, text: str) -> None:
    kept.write_text(text)
    with pytest.raises(ArtifactError, match="--calibrate"):
        Calibration.load(kept)


def test_another_format_and_a_missing_file_are_refused(kept: Path) -> None:
    write_json(kept, {**read_json(kept), "format": 99})
    with pytest.raises(ArtifactError, match="format 99"):
        Calibration.load(kept)
    with pytest.raises(ConfigError, match="cannot read"):
        Calibration.load(kept.with_name("absent.json"))


def test_rates_of_an_older_release_are_refused(kept: Path) -> None:
    told = read_json(kept)
    del told["rates"]["has_quick_bfloat16"]
    write_json(kept, {**told, "format": 1})
    with pytest.raises(ArtifactError, match="format 1, this release reads 3"):
        Calibration.load(kept)


def test_rates_of_an_accelerator_are_computed_and_say_so(rates: MachineRates) -> None:
    made = computed_rates(ACCELERATORS["h100"], network_gbits=400.0, cpu=rates)
    assert not made.is_measured
    assert "computed, not measured" in made.source
    assert made.train_flops == pytest.approx(0.4 * 989e12)
    assert made.network_bytes == 5e10
    assert made.split_wordpieces == rates.split_wordpieces
    half = computed_rates(ACCELERATORS["h100"], efficiency=0.2, network_gbits=400.0)
    assert half.embed_flops == made.embed_flops / 2


def test_a_calibration_measures_every_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("EMBED_SECONDS", 0.2),
        ("TRAIN_SECONDS", 0.3),
        ("SEARCHED_ROWS", 1 << 14),
        ("STREAMED", 1 << 16),
        ("WRITTEN_BYTES", 1 << 20),
        ("COPIES", 1),
        ("TIMED_COPIES", 1),
    ):
        monkeypatch.setattr(measuring, name, value)
    told: list[tuple[int, int]] = []
    made = measuring.calibrate(
        replace(parse_encoder("1x32"), vocabulary=30_522),
        dim=16,
        threads=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(number, 7) for number in range(8)]
    assert made.rates.is_measured
    assert made.threads == 1
    numbers = [v for v in vars_of(made.rates).values() if isinstance(v, float)]
    assert len(numbers) == 12
    assert min(numbers) > 0


def test_what_one_thread_does_for_a_passage_is_not_shared_among_torchs(
    store: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(store: PassageStore, row: int) -> tuple[list[int], list[int]]:
        del store, row
        began = time.thread_time()
        while time.thread_time() - began < 0.002:
            pass
        return [101, 1_000, 102], [0, 0, 0]

    monkeypatch.setattr(measuring, "_sequence", work)
    monkeypatch.setattr(measuring, "EMBED_SECONDS", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        shape = replace(parse_encoder("1x32"), vocabulary=30_522)
        made = measuring.measure_embedding(shape, store, dim=16)
    finally:
        torch.set_num_threads(before)
    assert made.passage_seconds >= 0.002


GROUPS = {
    "version 2, in a container": ("0::/\n", {"memory.max": "4000000\n"}),
    "version 2, by its name": (
        "0::/jobs/seven\n",
        {"jobs/seven/memory.max": "max\n", "jobs/memory.max": "4000000\n"},
    ),
    "version 1, by its name": (
        "5:cpu,cpuacct:/\n4:memory:/job_7\n0::/\n",
        {"memory/memory.limit_in_bytes": "9223372036854771712\n"}
        | {"memory/job_7/memory.limit_in_bytes": "4000000\n"},
    ),
    "version 1, of which a container sees its own part": (
        "4:memory:/docker/0123abc\n",
        {"memory/memory.limit_in_bytes": "4000000\n"},
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_plan_has_the_memory_that_a_container_lets_it_have(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, limits = GROUPS[kind]
    (tmp_path / "own").write_text(told)
    for name, limit in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(limit)
    monkeypatch.setattr(container, "OWN", tmp_path / "own")
    monkeypatch.setattr(container, "GROUPS", tmp_path / "groups")
    assert usable_memory_bytes() == 4e6
    (memory,) = [one.found for one in look_at_machine() if one.name == "memory"]
    assert memory == f"{size(machine_memory_bytes())}, of which this process may use 4 MB"


@pytest.mark.parametrize("limit", [None, "max", "9223372036854771712", "0", "much"])
def test_without_a_limit_it_has_all_that_the_machine_has(
    limit: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text("0::/\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(container, "GROUPS", tmp_path)
    for own in ("own", "absent"):
        monkeypatch.setattr(container, "OWN", tmp_path / own)
        assert usable_memory_bytes() == machine_memory_bytes()
    (memory,) = [one.found for one in look_at_machine() if one.name == "memory"]
    assert memory == size(machine_memory_bytes())


def vars_of(rates: MachineRates) -> dict[str, object]:
    return {name: getattr(rates, name) for name in rates.__slots__}
