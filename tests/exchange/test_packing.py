"""A packed run answers as the run does, in a quarter of the bytes, and every verb can load it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from realm.answering import Answerer
from realm.checkpoint.calibration import (
    CALIBRATION,
    Calibration,
    load_calibration,
    save_calibration,
)
from realm.checkpoint.checkpoints import (
    checkpoint_folder,
    find_checkpoint,
    load_model,
    save_checkpoint,
)
from realm.checkpoint.defaults import stage_defaults
from realm.checkpoint.packed import PACKED
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import write_sources
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.exchange.packing import pack_run
from realm.model.confidence import Calibrator
from realm.storage import MANIFEST, read_json
from realm.tokenizer import WordpieceTokenizer

Make = Callable[..., Any]
SETTINGS = {
    "stage": "finetune",
    "steps": 3,
    "question_wordpieces": 24,
    "joint_wordpieces": 96,
    "optimizer": {"learning_rate": 0.1},
}


@pytest.fixture
def model(tokenizer: WordpieceTokenizer, make_towers: Make, make_reader: Make) -> Model:
    """Two towers that have their table of wordpieces in common, and a reader."""
    towers = make_towers(share=False)
    table = towers.query.bert.embeddings.word_embeddings
    towers.passage.bert.embeddings.word_embeddings.load_state_dict(table.state_dict())
    return Model(tokenizer=tokenizer, towers=towers, reader=make_reader(widths=5))


@pytest.fixture
def run(model: Model, store: PassageStore, tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "qa"
    save_checkpoint(checkpoint_folder(folder, 3), model, settings=SETTINGS, inputs={})
    write_sources(folder, store)
    return folder


def test_a_packed_run_opens_like_a_checkpoint_and_its_scores_hardly_move(
    run: Path, model: Model, tmp_path: Path
) -> None:
    out = pack_run(run, tmp_path / "small").folder
    found = load_model(out)
    assert find_checkpoint(out) == out
    assert found.tokenizer.fingerprint == model.tokenizer.fingerprint
    assert found.need_towers().settings == model.need_towers().settings
    for name, value in model.need_reader().state_dict().items():
        packed = found.need_reader().state_dict()[name]
        rows = value.reshape(len(value), -1).abs().amax(dim=1)
        error = (packed - value).reshape(len(value), -1).abs().amax(dim=1)
        assert (error <= rows / 127).all(), name
    assert not found.need_reader().training


def test_towers_that_share_their_table_are_stored_with_one(run: Path, tmp_path: Path) -> None:
    report = pack_run(run, tmp_path / "small")
    names = [n for n in load_file(report.folder / PACKED) if "word_embeddings.weight" in n]
    assert sorted(n for n in names if not n.endswith(".scale")) == [
        "embedder.query.bert.embeddings.word_embeddings.weight",
        "reader.bert.embeddings.word_embeddings.weight",
    ]
    assert report.source_bytes > 2.5 * (report.folder / PACKED).stat().st_size


def test_it_answers_what_the_run_answers(run: Path, store: PassageStore, tmp_path: Path) -> None:
    out = pack_run(run, tmp_path / "small").folder
    whole, small = Answerer.load(run), Answerer.load(out, passages=store.folder)
    assert small.lengths == whole.lengths
    for question in ("where was fermat born", "what changed graph theory"):
        expected, found = (a.answer([question], num_answers=50)[0] for a in (whole, small))
        probabilities = {answer.text: answer.probability for answer in expected.answers}
        assert found.answers[0].text in probabilities
        assert set(found.read_rows) & set(expected.read_rows)


def test_it_says_how_the_passages_were_cut_and_what_the_run_was_made_with(
    run: Path, tmp_path: Path
) -> None:
    out = pack_run(run, tmp_path / "small").folder
    assert stage_defaults(out, "split") == {"max_wordpieces": 40, "language": "en"}
    settings = read_json(out / MANIFEST)["settings"]
    assert settings == {**SETTINGS, "weights": "int8", "defaults": settings["defaults"]}


def _calibration(run: Path) -> Calibration:
    return Calibration(
        model_fingerprint=str(read_json(find_checkpoint(run) / MANIFEST)["fingerprint"]),
        retriever="dense",
        num_passages=5,
        calibrator=Calibrator(names=(), means=(), scales=(), weights=(), bias=-20.0),
        min_probability=0.5,
    )


def test_a_calibration_comes_along_and_speaks_for_the_packed_model(
    run: Path, store: PassageStore, tmp_path: Path
) -> None:
    save_calibration(run, _calibration(run))
    answerer = Answerer.load(pack_run(run, tmp_path / "small").folder, passages=store.folder)
    assert answerer.why_uncalibrated is None
    assert answerer.answer(["where was fermat born"])[0].is_refused


def test_packing_again_brings_a_calibration_made_since_then(run: Path, tmp_path: Path) -> None:
    save_calibration(run, _calibration(run))
    pack_run(run, tmp_path / "small")
    save_calibration(run, replace(_calibration(run), min_probability=0.9))
    report = pack_run(run, tmp_path / "small")
    assert (report.already_done, report.calibration_left) == (True, None)
    found = load_calibration(report.folder)
    assert found is not None
    assert found.min_probability == 0.9


def test_the_calibration_of_another_checkpoint_does_not_come_along(
    run: Path, store: PassageStore, tmp_path: Path
) -> None:
    save_calibration(run, replace(_calibration(run), model_fingerprint="cafe" * 16))
    report = pack_run(run, tmp_path / "small")
    assert "belongs to another model (cafecafecafe, this is" in (report.calibration_left or "")
    answerer = Answerer.load(report.folder, passages=store.folder)
    assert not answerer.answer(["where was fermat born"])[0].is_calibrated


def test_without_the_passages_at_hand_it_is_packed_too(model: Model, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "alone", model, settings=SETTINGS, inputs={})
    out = pack_run(tmp_path / "alone", tmp_path / "small").folder
    assert stage_defaults(out, "split") == {}


def test_again_it_is_done_already_and_a_damaged_one_is_noticed(run: Path, tmp_path: Path) -> None:
    report = pack_run(run, tmp_path / "small")
    assert not report.already_done
    assert pack_run(run, tmp_path / "small").already_done
    data = bytearray((report.folder / PACKED).read_bytes())
    data[-1] ^= 1
    (report.folder / PACKED).write_bytes(data)
    with pytest.raises(ArtifactError, match="is damaged: its checksum"):
        load_model(report.folder)
    assert not pack_run(run, tmp_path / "small", rebuild=True).already_done
    load_model(report.folder)


def test_an_encoder_is_left_out(model: Model, make_encoder: Make, tmp_path: Path) -> None:
    whole = Model(
        tokenizer=model.tokenizer,
        towers=model.towers,
        reader=model.reader,
        encoder=make_encoder(),
    )
    save_checkpoint(tmp_path / "whole", whole, settings=SETTINGS, inputs={})
    packed = load_model(pack_run(tmp_path / "whole", tmp_path / "small").folder)
    assert packed.modules.keys() == {"embedder", "reader"}


def test_a_run_without_a_reader_is_refused(model: Model, tmp_path: Path) -> None:
    part = Model(tokenizer=model.tokenizer, towers=model.towers)
    save_checkpoint(tmp_path / "ict", part, settings={}, inputs={})
    with pytest.raises(ConfigError, match="this run has no reader"):
        pack_run(tmp_path / "ict", tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_pack_that_was_cut_short_of_its_calibration_gets_it(run: Path, tmp_path: Path) -> None:
    save_calibration(run, _calibration(run))
    out = pack_run(run, tmp_path / "small").folder
    told = (out / CALIBRATION).read_bytes()
    (out / CALIBRATION).unlink()  # as a kill after the rename leaves it
    assert pack_run(run, tmp_path / "small").already_done
    assert (out / CALIBRATION).read_bytes() == told


def test_two_towers_that_are_equal_are_packed_as_one(
    tokenizer: WordpieceTokenizer,
    make_towers: Make,
    make_reader: Make,
    store: PassageStore,
    tmp_path: Path,
) -> None:
    """Fine-tuning with a retriever that stands still parts them, and changes neither."""
    towers = make_towers(share=True).untied()
    model = Model(tokenizer=tokenizer, towers=towers, reader=make_reader(widths=5))
    save_checkpoint(checkpoint_folder(tmp_path / "qa", 3), model, settings=SETTINGS, inputs={})
    write_sources(tmp_path / "qa", store)
    found = load_model(pack_run(tmp_path / "qa", tmp_path / "small").folder).need_towers()
    assert found.shared
    with torch.no_grad():
        towers.query.projection.weight[0, 0] += 0.1
    save_checkpoint(checkpoint_folder(tmp_path / "qa", 4), model, settings=SETTINGS, inputs={})
    found = load_model(pack_run(tmp_path / "qa", tmp_path / "other").folder).need_towers()
    assert not found.shared


def test_of_a_packed_model_the_packed_weights_count(run: Path, tmp_path: Path) -> None:
    packed = pack_run(run, tmp_path / "small").folder
    again = pack_run(packed, tmp_path / "again")
    assert again.source_bytes == (packed / PACKED).stat().st_size
