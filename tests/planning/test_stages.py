"""What stages cost, on machines where it can be worked out by hand."""

from dataclasses import replace

import pytest

from realm.config import FinetuneConfig, PretrainConfig, RefreshConfig
from realm.planning.costs import StageCost, all_reduce_bytes, search_seconds
from realm.planning.machine import MachineRates
from realm.planning.question_stages import (
    finetune_stage,
    num_fresh_passages,
    num_rebuilds,
    serving_stage,
)
from realm.planning.stages import (
    pretrain_stage,
    refresh_stage,
    snapshots_kept,
    split_stage,
)
from realm.planning.workload import Workload


def test_the_papers_index_is_3_4_gb_in_16_bits_and_6_8_in_32(wikipedia: Workload) -> None:
    assert wikipedia.scan_bytes == pytest.approx(3.4e9, rel=0.01)
    assert wikipedia.snapshot_bytes - wikipedia.scan_bytes == pytest.approx(6.8e9, rel=0.01)


def test_a_refresh_embeds_every_passage_once(wikipedia: Workload, rates: MachineRates) -> None:
    stage = refresh_stage(wikipedia, rates)
    each = wikipedia.embedder.embed_flops(150.0, 128, spread=1.4)
    assert stage.flops == 13_353_718 * each
    assert stage.parts["embedding"] == pytest.approx(13_353_718 * each / 1e12)
    assert stage.parts["writing"] == pytest.approx(13_353_718 * 128 * 6 / 1e9)
    assert stage.network_bytes == 0


def test_builders_share_a_refresh_and_are_handed_the_tower(
    wikipedia: Workload, rates: MachineRates
) -> None:
    alone, four = (refresh_stage(replace(wikipedia, builders=n), rates) for n in (1, 4))
    assert four.parts["embedding"] == pytest.approx(alone.parts["embedding"] / 4)
    assert four.parts["writing"] == alone.parts["writing"]
    assert four.network["parameters"] == 4 * wikipedia.tower_parameters
    assert four.flops == alone.flops


def test_trainers_share_a_step_and_pay_for_gradients(
    wikipedia: Workload, rates: MachineRates
) -> None:
    one, eight = (pretrain_stage(replace(wikipedia, trainers=n), rates) for n in (1, 8))
    assert eight.parts["computing"] == pytest.approx(one.parts["computing"] / 8)
    assert one.network_bytes == 0
    parameters = wikipedia.embedder_parameters + wikipedia.encoder.encoder_parameters
    assert eight.network["gradients"] == pytest.approx(2 * 7 / 8 * 4 * parameters)
    assert eight.mapped["index (16 bits)"] == one.mapped["index (16 bits)"] / 8


def test_gradients_of_one_process_go_nowhere() -> None:
    assert all_reduce_bytes(100, 1) == 0
    assert all_reduce_bytes(100, 2) == 400


def test_a_search_reads_the_matrix_once_and_multiplies_it_with_each_query(
    rates: MachineRates,
) -> None:
    one = search_seconds(rates, rows=1e6, dim=128, queries=1.0)
    assert one == pytest.approx(256e6 / 1e10 + 256e6 / 1e11)
    many = search_seconds(rates, rows=1e6, dim=128, queries=101.0)
    assert many - one == pytest.approx(100 * 256e6 / 1e11)


def test_adam_takes_16_bytes_a_parameter(wikipedia: Workload, rates: MachineRates) -> None:
    memory = pretrain_stage(wikipedia, rates).memory
    parameters = wikipedia.embedder_parameters + wikipedia.encoder.encoder_parameters
    held = memory["parameters"] + memory["gradients"] + memory["moments"]
    assert held == 16 * parameters


def test_untied_towers_are_two(wikipedia: Workload) -> None:
    untied = replace(wikipedia, pretrain=PretrainConfig(share_towers=False))
    assert untied.embedder_parameters == 2 * wikipedia.embedder_parameters


def test_smaller_groups_hold_fewer_activations(wikipedia: Workload, rates: MachineRates) -> None:
    large = replace(wikipedia, pretrain=PretrainConfig(batch_tokens=16_384, batch_size=64))
    small = replace(wikipedia, pretrain=PretrainConfig(batch_tokens=2_048, batch_size=64))
    name = "activations of the encoder"
    assert pretrain_stage(large, rates).memory[name] > 3 * pretrain_stage(small, rates).memory[name]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_without_instructions_for_16_bits_activations_are_counted_in_32(
    wikipedia: Workload, rates: MachineRates, dropout: float
) -> None:
    """Nothing is copied to 16 bits then; attention's weights are kept under dropout alone."""
    work = replace(wikipedia, pretrain=PretrainConfig(dropout=dropout))
    quick = pretrain_stage(work, rates).memory
    slow = pretrain_stage(work, replace(rates, has_quick_bfloat16=False)).memory
    assert quick["16-bit copies"] > 0
    assert slow["16-bit copies"] == 0
    shape, each = work.encoder, work.joint_wordpieces
    told = {"half": False, "keeps_attention": dropout > 0}
    ratio = shape.saved_bytes(each, **told) / shape.saved_bytes(
        each, half=True, keeps_attention=True
    )
    name = "activations of the encoder"
    assert slow[name] == pytest.approx(ratio * quick[name])


def test_gradients_through_few_candidates_cost_less(
    wikipedia: Workload, rates: MachineRates
) -> None:
    """Reading 8 candidates, and 2 of them forward and back: 8 + 3 x 2 instead of 3 x 8."""
    whole, drawn = (
        pretrain_stage(replace(wikipedia, pretrain=PretrainConfig(gradient_candidates=n)), rates)
        for n in (None, 2)
    )
    assert 0.7 < drawn.flops / whole.flops < 0.8  # the towers' half stays as it is
    name = "activations of the encoder"
    assert drawn.memory[name] < 0.1 * whole.memory[name]
    assert drawn.memory["activations of the towers"] == whole.memory["activations of the towers"]
    assert drawn.memory["logits"] == whole.memory["logits"] / 4


def test_text_stages_go_by_wordpieces(wikipedia: Workload, rates: MachineRates) -> None:
    short = replace(wikipedia, passage_wordpieces=75.0)
    assert split_stage(short, rates).seconds == split_stage(wikipedia, rates).seconds / 2


def test_snapshots_are_kept_for_the_checkpoints_that_need_them(wikipedia: Workload) -> None:
    def kept(**settings: object) -> int:
        return snapshots_kept(replace(wikipedia, pretrain=PretrainConfig(**settings)))

    assert kept(refresh=RefreshConfig(mode="off")) == 1
    assert kept(steps=500) == 1  # so few are ever built
    assert kept(steps=501) == 2
    assert kept(steps=10_000) == 3  # in use, being built, one of both checkpoints
    assert kept(steps=10_000, save_every_steps=500) == 4


def test_a_question_costs_embedding_search_and_reading(
    wikipedia: Workload, rates: MachineRates
) -> None:
    stage = serving_stage(wikipedia, rates)
    assert stage.seconds == pytest.approx(sum(stage.parts.values()))
    assert stage.parts["search"] == pytest.approx(3.42e9 / 1e10 + 3.42e9 / 1e11, rel=0.01)


def test_a_question_is_read_whole_and_trainers_share_a_batch_in_memory_too(
    wikipedia: Workload, rates: MachineRates
) -> None:
    def activations(trainers: int = 1, **changed: int) -> float:
        config = FinetuneConfig.model_validate({"batch_tokens": 4_096, **changed})
        work = replace(wikipedia, finetune=config, trainers=trainers)
        return finetune_stage(work, rates).memory["activations"]

    fifty, hundred = (activations(num_passages=n, retriever_beam=500) for n in (50, 100))
    assert hundred == pytest.approx(2 * fifty)  # more than batch_tokens: they have one loss
    assert activations(batch_size=4, num_passages=5) < activations(batch_size=16, num_passages=5)
    shared = activations(trainers=4, batch_size=16, num_passages=5)
    assert shared == pytest.approx(activations(batch_size=4, num_passages=5))


@pytest.mark.parametrize(("steps", "rebuilds"), [(1, 0), (500, 0), (501, 1), (1_000, 1)])
def test_no_rebuild_follows_the_last_step(wikipedia: Workload, steps: int, rebuilds: int) -> None:
    """A trainer that rebuilds the index itself does so before steps 500, 1000, ... it still has."""
    work = replace(wikipedia, pretrain=PretrainConfig(steps=steps))
    every = work.refresh.every_steps
    assert work.num_refreshes == sum(step % every == 0 for step in range(1, steps)) == rebuilds


def test_trainers_send_each_other_the_questions_of_fine_tuning_s_own_batch(
    wikipedia: Workload, rates: MachineRates
) -> None:
    def stage(batch_size: int) -> StageCost:
        config = FinetuneConfig(batch_size=batch_size)
        return finetune_stage(replace(wikipedia, finetune=config, trainers=4), rates)

    sent = [stage(batch_size).network["queries and scores"] for batch_size in (4, 400)]
    assert sent == [3 * n * (128 * 4 + 5_000 * 12) for n in (1, 100)]
    assert stage(4).parts["queries and scores"] == sent[0] / rates.network_bytes


def test_training_passages_costs_their_embedding_in_each_step_and_in_each_refresh(
    wikipedia: Workload, rates: MachineRates
) -> None:
    def stage(**changed: object) -> tuple[FinetuneConfig, StageCost]:
        config = FinetuneConfig.model_validate({"steps": 1_001, **changed})
        return config, finetune_stage(replace(wikipedia, finetune=config), rates)

    _, fixed = stage()
    config, learnt = stage(train_passages=True, refresh={"mode": "sync", "every_steps": 500})
    fresh = 1_001 * config.batch_size * 20 * wikipedia.passage_flops * 3
    assert learnt.flops - fixed.flops == pytest.approx(fresh)
    assert num_rebuilds(config) == 3  # at 500 and 1000, and the last one
    assert learnt.seconds - fixed.seconds > 3 * refresh_stage(wikipedia, rates).seconds
    assert learnt.memory["tower"] > 0
    assert "tower" not in fixed.memory
    drawn, _ = stage(train_passages=True, draw_from=50, refresh={"mode": "async"})
    assert (num_fresh_passages(drawn), num_rebuilds(drawn)) == (25, 1)
    untied = stage(train_passages=True, share_towers=False)[1]
    tied = stage(train_passages=True)[1]
    gained = untied.disk["checkpoints"] / tied.disk["checkpoints"]
    assert gained > 1.3
