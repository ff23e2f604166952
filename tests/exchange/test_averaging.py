"""Between two runs, one trained on from the other, lies a model of its own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.answering import Answerer
from realm.checkpoint.checkpoints import checkpoint_folder, load_model, save_checkpoint
from realm.checkpoint.defaults import stage_defaults
from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.sources import write_sources
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.exchange.averaging import average_runs
from realm.exchange.packing import pack_run
from realm.storage import MANIFEST, read_json
from realm.tokenizer import WordpieceTokenizer
from tests.towns import call_realm

Make = Callable[..., Any]
SETTINGS = {"stage": "finetune", "question_wordpieces": 24, "joint_wordpieces": 96}


@pytest.fixture
def model(tokenizer: WordpieceTokenizer, make_towers: Make, make_reader: Make) -> Model:
    return Model(tokenizer=tokenizer, towers=make_towers(), reader=make_reader(widths=5))


@pytest.fixture
def before(model: Model, store: PassageStore, tmp_path: Path) -> Path:
    return save_run(model, store, tmp_path / "before", step=3)


@pytest.fixture
def after(model: Model, before: Path, store: PassageStore, tmp_path: Path) -> Path:
    """The run before, its reader trained on: every parameter is a little other."""
    assert before.exists()
    with torch.no_grad():
        for value in model.need_reader().parameters():
            value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    return save_run(model, store, tmp_path / "after", step=5)


def save_run(model: Model, store: PassageStore, run: Path, *, step: int) -> Path:
    settings = {**SETTINGS, "steps": step}
    save_checkpoint(checkpoint_folder(run, step), model, settings=settings, inputs={})
    write_sources(run, store)
    return run


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_each_parameter_is_the_weighted_mean(
    before: Path, after: Path, tmp_path: Path, weight: float
) -> None:
    out = average_runs(before, after, tmp_path / "mean", weight=weight).folder
    old, new, mean = (load_model(p).need_reader().state_dict() for p in (before, after, out))
    for name, value in mean.items():
        expected = (1 - weight) * old[name].double() + weight * new[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)


def test_what_was_not_trained_stays_bit_for_bit_so_that_an_index_stays_in_use(
    before: Path, after: Path, tmp_path: Path
) -> None:
    out = average_runs(before, after, tmp_path / "mean").folder
    hashes = {tower_hash(load_model(p).need_towers().passage) for p in (before, after, out)}
    assert len(hashes) == 1


def test_it_says_how_far_the_two_were_apart_also_where_it_was_done(
    before: Path, after: Path, tmp_path: Path
) -> None:
    report = average_runs(before, after, tmp_path / "mean")
    old, new = (load_model(run).need_reader().state_dict() for run in (before, after))
    moved = torch.cat([(new[name] - old[name]).flatten() for name in old]).norm()
    size = torch.cat([value.flatten() for value in old.values()]).norm()
    assert report.distance == {"embedder": 0.0, "reader": pytest.approx(float(moved / size))}
    assert report.far == ()
    again = average_runs(before, after, tmp_path / "mean")
    assert again.already_done
    assert again.distance == report.distance


def test_two_that_never_were_one_are_told_as_far_apart(
    before: Path, model: Model, store: PassageStore, tmp_path: Path
) -> None:
    with torch.no_grad():
        for value in model.need_reader().parameters():
            value.mul_(-1)
    other = save_run(model, store, tmp_path / "other", step=5)
    assert average_runs(before, other, tmp_path / "mean").far == ("reader",)
    told = json.loads(
        call_realm("average", before, other, "--out", tmp_path / "mean", "--json").out
    )
    assert told["far"] == ["reader"]


def test_the_mean_answers_packs_and_knows_how_passages_were_cut(
    before: Path, after: Path, store: PassageStore, tmp_path: Path
) -> None:
    packed = pack_run(before, tmp_path / "small").folder
    out = average_runs(packed, after, tmp_path / "mean").folder
    answerer = Answerer.load(out, passages=store.folder)
    assert answerer.lengths.question == SETTINGS["question_wordpieces"]
    assert answerer.answer(["where was fermat born"])[0].answers
    again = pack_run(out, tmp_path / "small-mean").folder
    assert stage_defaults(again, "split") == {"max_wordpieces": 40, "language": "en"}
    settings = read_json(again / MANIFEST)["settings"]
    assert (settings["steps"], settings["average_weight"]) == (5, 0.5)


def test_another_weight_is_another_model(before: Path, after: Path, tmp_path: Path) -> None:
    first = average_runs(before, after, tmp_path / "mean", weight=0.25)
    second = average_runs(before, after, tmp_path / "mean", weight=0.75, rebuild=True)
    assert (first.already_done, second.already_done) == (False, False)
    assert read_json(second.folder / MANIFEST)["settings"]["average_weight"] == 0.75


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_out_of_range_is_refused(before: Path, tmp_path: Path, weight: float) -> None:
    with pytest.raises(ConfigError, match=r"expected 0 \(before\) to 1 \(after\)"):
        average_runs(before, before, tmp_path / "mean", weight=weight)


def test_models_of_other_parts_or_sizes_are_refused(
    before: Path, model: Model, make_reader: Make, store: PassageStore, tmp_path: Path
) -> None:
    wide = Model(tokenizer=model.tokenizer, towers=model.towers, reader=make_reader(widths=6))
    alone = Model(tokenizer=model.tokenizer, towers=model.towers)
    for name, other, part in (("wide", wide, "reader"), ("alone", alone, "reader")):
        run = save_run(other, store, tmp_path / name, step=1)
        with pytest.raises(ConfigError, match=f"differ in {part} .* expected two runs"):
            average_runs(before, run, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_one_tower_before_and_two_after_are_averaged_and_are_one_again_where_they_are_equal(
    before: Path, model: Model, store: PassageStore, tmp_path: Path
) -> None:
    towers = model.need_towers().untied()
    same = save_run(replace(model, towers=towers), store, tmp_path / "same", step=5)
    assert load_model(average_runs(before, same, tmp_path / "one").folder).need_towers().shared
    with torch.no_grad():
        towers.query.projection.weight.add_(0.1)
    learned = save_run(replace(model, towers=towers), store, tmp_path / "learned", step=5)
    found = load_model(average_runs(before, learned, tmp_path / "two").folder).need_towers()
    assert not found.shared
    torch.testing.assert_close(
        found.query.projection.weight - found.passage.projection.weight,
        torch.full_like(found.query.projection.weight, 0.05),
    )
