"""What follows from the costs: builders, staleness, what does not fit."""

from dataclasses import replace

import pytest

from realm.config import PretrainConfig, RefreshConfig
from realm.planning.machine import ACCELERATORS, MachineRates, computed_rates
from realm.planning.plan import (
    builders_needed,
    make_plan,
    split_processes,
    staleness,
)
from realm.planning.stages import pretrain_stage, refresh_stage
from realm.planning.workload import Workload
from realm.readable import duration, size

PAPER = PretrainConfig(steps=200_000, batch_size=512)


@pytest.fixture
def paper(wikipedia: Workload) -> Workload:
    """Section 4.3: 64 trainers, 16 builders, 200k steps of 512 queries x 8 candidates."""
    return replace(wikipedia, pretrain=PAPER, trainers=64, builders=16)


@pytest.fixture
def tpu() -> MachineRates:
    return computed_rates(ACCELERATORS["tpu-v3"], network_gbits=400.0)


def test_the_builders_that_are_needed_keep_pace_and_one_fewer_does_not(
    paper: Workload, tpu: MachineRates
) -> None:
    needed = builders_needed(paper, tpu)
    assert needed is not None
    room = 500 * sum(pretrain_stage(paper, tpu).parts.values())
    seconds = [refresh_stage(replace(paper, builders=n), tpu).seconds for n in (needed, needed - 1)]
    assert seconds[0] <= room * 1.001
    assert seconds[1] > room


def test_a_refresh_of_the_paper_costs_as_much_as_500_of_its_steps(
    paper: Workload, tpu: MachineRates
) -> None:
    """Equal efficiency would need 64 builders and more; the paper's 16 mean slower steps."""
    step, refresh = pretrain_stage(paper, tpu), refresh_stage(paper, tpu)
    assert refresh.flops == pytest.approx(500 * step.flops / step.steps, rel=0.25)


def test_staleness_between_steps_is_half_and_all_of_the_interval(
    wikipedia: Workload, rates: MachineRates
) -> None:
    assert staleness(wikipedia, rates) == (250, 500)


def test_staleness_beside_the_trainers_adds_the_rebuild(paper: Workload, tpu: MachineRates) -> None:
    enough = replace(paper, builders=builders_needed(paper, tpu) or 0)
    mean, oldest = staleness(enough, tpu)
    assert 500 < mean < oldest <= 1_000
    slow_mean, slow_oldest = staleness(replace(paper, builders=4), tpu)
    assert slow_oldest > 5 * oldest
    assert slow_mean == pytest.approx(0.75 * slow_oldest)


def test_without_refresh_the_index_ages_to_the_end(
    wikipedia: Workload, rates: MachineRates
) -> None:
    off = PretrainConfig(steps=1_000, refresh=RefreshConfig(mode="off"))
    assert staleness(replace(wikipedia, pretrain=off), rates) == (500, 1_000)
    assert split_processes(replace(wikipedia, pretrain=off), rates, 8).builders == 0


def test_processes_are_divided_with_as_few_builders_as_keep_pace(
    paper: Workload, tpu: MachineRates
) -> None:
    divided = split_processes(paper, tpu, 256)
    assert divided.trainers + divided.builders == 256
    assert (builders_needed(divided, tpu) or 999) <= divided.builders
    fewer = replace(divided, trainers=divided.trainers + 1, builders=divided.builders - 1)
    assert (builders_needed(fewer, tpu) or 999) > fewer.builders
    assert split_processes(paper, tpu, 1).builders == 0


def test_waiting_for_refreshes_counts_and_building_beside_does_not(
    paper: Workload, tpu: MachineRates
) -> None:
    beside, between = (make_plan(replace(paper, builders=n), tpu) for n in (16, 0))
    assert between.total_seconds - beside.total_seconds == pytest.approx(
        400 * between.refresh_seconds, rel=0.01
    )


def test_an_index_that_does_not_fit_says_how_many_processes_hold_it(
    wikipedia: Workload, rates: MachineRates
) -> None:
    made = make_plan(replace(wikipedia, passages=1_000_000_000), rates)
    told = next(line for line in made.warnings if line.startswith("pretrain"))
    assert "256 GB" in told
    assert "5 processes hold it" in told or "6 processes hold it" in told
    assert "IVF-PQ with 40 bytes a passage (40 GB in all)" in told
    fits = make_plan(replace(wikipedia, passages=1_000_000), rates)
    assert not [line for line in fits.warnings if "hold it" in line]


def test_a_model_that_does_not_fit_is_told(wikipedia: Workload, rates: MachineRates) -> None:
    made = make_plan(wikipedia, replace(rates, memory_bytes=2e9))
    assert any("pretrain: a process needs" in line for line in made.warnings)


def test_builders_that_cannot_keep_pace_are_told(paper: Workload, tpu: MachineRates) -> None:
    made = make_plan(replace(paper, builders=2), tpu)
    assert any(line.startswith("2 builders cannot rebuild") for line in made.warnings)
    assert any(line.endswith("the trainer would wait for it") for line in made.warnings)
    refresh = paper.refresh.model_copy(update={"when_stale": "stop"})
    stops = paper.pretrain.model_copy(update={"refresh": refresh})
    made = make_plan(replace(paper, builders=2, pretrain=stops), tpu)
    assert any(line.endswith("training would stop") for line in made.warnings)
    slow = make_plan(paper, replace(tpu, disk_write_bytes=1e5))
    assert slow.builders_needed is None
    assert any("faster storage" in line for line in slow.warnings)


def test_a_plan_is_plain_values(wikipedia: Workload, rates: MachineRates) -> None:
    import json

    values = json.loads(json.dumps(make_plan(wikipedia, rates).as_dict()))
    assert [stage["name"] for stage in values["stages"]][:3] == ["split", "mask", "ict"]
    assert values["passages"] == 13_353_718


def test_numbers_read_well() -> None:
    assert [size(n) for n in (12.0, 3.418e9, 2e12)] == ["12 bytes", "3.42 GB", "2 TB"]
    assert [duration(s) for s in (0.031, 8.2, 720.0, 200_000.0)] == [
        "31 ms",
        "8.2 s",
        "12 min",
        "2.31 days",
    ]
    assert [size(n) for n in (999.4e6, 999.7e6, 1.234e15)] == ["999 MB", "1 GB", "1,234 TB"]
    assert [duration(s) for s in (0.9994, 0.9997, 1e11)] == ["999 ms", "1 s", "3,171 years"]
