"""A checkpoint comes back as it was, or says which file is damaged."""

import json
import string
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from realm.checkpoint.checkpoints import (
    TrainingState,
    checkpoint_folder,
    find_checkpoint,
    list_checkpoints,
    load_model,
    load_state,
    remove_old_checkpoints,
    save_checkpoint,
)
from realm.checkpoint.parts import Model, tower_hash
from realm.errors import ArtifactError, ConfigError
from realm.model.embedder import build_towers
from realm.model.encoder import build_encoder
from realm.model.inputs import pad
from realm.model.reader import build_reader
from realm.storage import read_json, write_json
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

BERT = {
    "vocab_size": 31,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
}
STATE = TrainingState(
    step=7,
    tensors={
        "optimizer.0.exp_avg": torch.arange(6.0).view(2, 3),
        "optimizer.0.step": torch.ones(()),
    },
    values={"snapshot_step": 4},
)
FILES = ["model.safetensors", "model.json", "tokenizer.json"]


@pytest.fixture(scope="session")
def tokenizer() -> WordpieceTokenizer:
    return WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *string.ascii_lowercase])


@pytest.fixture
def model(tokenizer: WordpieceTokenizer) -> Model:
    torch.manual_seed(0)
    settings = {"bert": BERT, "projection_size": 8, "pooling": "mean", "share_towers": True}
    reader = {"bert": BERT, "span_hidden": 8, "max_answer_wordpieces": 3}
    return Model(
        tokenizer=tokenizer,
        towers=build_towers(settings),
        encoder=build_encoder({"bert": BERT}),
        reader=build_reader(reader),
    )


def save(folder: Path, model: Model, *, state: TrainingState | None = STATE) -> Path:
    save_checkpoint(folder, model, settings={"steps": 9}, inputs={"passages": "p"}, state=state)
    return folder


def states(part: nn.Module) -> dict[str, Tensor]:
    return dict(part.state_dict())


def equal(found: nn.Module, expected: nn.Module) -> bool:
    one, other = states(found), states(expected)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_part_comes_back_bit_for_bit(tmp_path: Path, model: Model) -> None:
    found = load_model(save(tmp_path / "c", model))
    assert list(found.modules) == ["embedder", "encoder", "reader"]
    for name, part in found.modules.items():
        assert equal(part, model.modules[name])
        assert not part.training
    assert found.tokenizer.fingerprint == model.tokenizer.fingerprint
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert (manifest["settings"], manifest["inputs"]) == ({"steps": 9}, {"passages": "p"})


def test_the_parts_that_come_back_compute_the_same(tmp_path: Path, model: Model) -> None:
    found = load_model(save(tmp_path / "c", model))
    inputs = pad([([2, 7, 8, 9, 3], [0] * 5), ([2, 6, 3], [0] * 3)], 0)
    with torch.no_grad():
        for one, other in ((found, model),):
            assert torch.equal(
                one.need_towers().query(inputs), other.need_towers().query.eval()(inputs)
            )
            places = torch.tensor([0, 1]), torch.tensor([2, 1])
            assert torch.equal(
                one.need_encoder()(inputs, *places), other.need_encoder().eval()(inputs, *places)
            )
            assert torch.equal(
                one.need_reader()(inputs, inputs.token_is_real),
                other.need_reader().eval()(inputs, inputs.token_is_real),
            )


def test_a_shared_tower_stays_shared_and_is_stored_once(tmp_path: Path, model: Model) -> None:
    shared = Model(tokenizer=model.tokenizer, towers=model.towers)
    two = Model(tokenizer=model.tokenizer, towers=model.need_towers().untied())
    with torch.no_grad():
        two.need_towers().passage.projection.bias.add_(1.0)
    sizes = [
        (save(tmp_path / name, of) / "model.safetensors").stat().st_size
        for name, of in (("shared", shared), ("two", two))
    ]
    assert sizes[1] > 1.9 * sizes[0]
    found = load_model(tmp_path / "shared").need_towers()
    assert found.shared
    assert equal(found.passage, model.need_towers().query)
    found = load_model(tmp_path / "two").need_towers()
    assert not found.shared
    assert equal(found.passage, two.need_towers().passage)
    assert not equal(found.passage, found.query)


def test_a_part_that_is_not_there_is_asked_for_by_name(tmp_path: Path, model: Model) -> None:
    found = load_model(save(tmp_path / "c", Model(tokenizer=model.tokenizer)))
    assert found.modules == {}
    for need, made_by in (
        (found.need_towers, "realm ict"),
        (found.need_encoder, "realm mlm"),
        (found.need_reader, "realm finetune"),
    ):
        with pytest.raises(ConfigError, match=made_by):
            need()


def test_sixteen_bit_parts_are_kept_in_32(tmp_path: Path, model: Model) -> None:
    encoder = model.need_encoder().to(torch.bfloat16)
    save(tmp_path / "c", Model(tokenizer=model.tokenizer, encoder=encoder))
    found = load_model(tmp_path / "c").need_encoder()
    assert {value.dtype for value in states(found).values()} == {torch.float32}
    assert torch.equal(found.head.dense.weight, encoder.head.dense.weight.float())


def test_what_a_resume_needs_comes_back(tmp_path: Path, model: Model) -> None:
    found = load_state(save(tmp_path / "c", model))
    assert (found.step, found.values) == (7, {"snapshot_step": 4})
    assert found.tensors.keys() == STATE.tensors.keys()
    for name, value in STATE.tensors.items():
        assert torch.equal(found.tensors[name], value)


def test_an_exported_model_is_loaded_but_not_resumed(tmp_path: Path, model: Model) -> None:
    save(tmp_path / "c", model, state=None)
    assert load_model(tmp_path / "c").modules
    with pytest.raises(ArtifactError, match=r"training\.safetensors is missing"):
        load_state(tmp_path / "c")


def test_a_published_checkpoint_is_never_changed(tmp_path: Path, model: Model) -> None:
    save(tmp_path / "c", model)
    with pytest.raises(ArtifactError, match="never changed"):
        save(tmp_path / "c", model)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
@pytest.mark.parametrize("name", [*FILES, "training.safetensors", "training.json"])
def test_a_damaged_file_is_named(tmp_path: Path, model: Model, name: str, damage: str) -> None:
    """Safetensors itself would not notice a flipped bit in a parameter."""
    path = save(tmp_path / "c", model) / name
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-len(content) // 3] ^= 4
        path.write_bytes(bytes(content))
    elif damage == "truncated":
        path.write_bytes(bytes(content[: len(content) // 2]))
    else:
        path.unlink()
    load = load_model if name in FILES else load_state
    expected = "missing" if damage == "removed" and name != "model.json" else "damaged"
    if (name, damage) == ("model.json", "removed"):
        with pytest.raises(ArtifactError, match="found no checkpoint"):
            load(tmp_path / "c")
        return
    with pytest.raises(ArtifactError, match=rf"{name} is {expected}"):
        load(tmp_path / "c")


def test_the_newest_finished_checkpoint_of_a_run_is_taken(tmp_path: Path, model: Model) -> None:
    run = tmp_path / "run"
    for step in (9, 100, 20):
        save(checkpoint_folder(run, step), model)
    for unfinished in (".step-300.partial", "step-200", "step-best", "other"):
        (run / "checkpoints" / unfinished).mkdir()
        (run / "checkpoints" / unfinished / "model.json").write_text("{}")
    (run / "checkpoints" / "step-best" / "manifest.json").write_text("{}")
    assert [path.name for path in list_checkpoints(run)] == ["step-9", "step-20", "step-100"]
    assert find_checkpoint(run) == checkpoint_folder(run, 100)
    assert find_checkpoint(checkpoint_folder(run, 20)) == checkpoint_folder(run, 20)
    assert load_model(run).modules


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "nowhere") == []
    with pytest.raises(ArtifactError, match="found no checkpoint in"):
        load_model(tmp_path)
    with pytest.raises(ArtifactError, match="found no folder"):
        load_model(tmp_path / "nowhere")


def test_a_folder_of_another_kind_is_told(tmp_path: Path, model: Model) -> None:
    folder = save(tmp_path / "c", model)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "kind": "index"})
    with pytest.raises(ArtifactError, match="holds 'index', expected 'checkpoint'"):
        load_model(folder)


def test_old_checkpoints_are_removed(tmp_path: Path, model: Model) -> None:
    for step in (1, 2, 3, 10):
        save(checkpoint_folder(tmp_path, step), model)
    remove_old_checkpoints(tmp_path, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-10", "step-3"]


def test_one_killed_while_it_was_removed_is_no_checkpoint_and_goes_the_next_time(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a resume would look for its parameters, or for the snapshot it searched."""
    for step in (1, 2, 3):
        save(checkpoint_folder(tmp_path, step), model)

    def killed(folder: Path) -> None:
        (folder / "training.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_old_checkpoints(tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-2", "step-3"]
    remove_old_checkpoints(tmp_path, keep=2)
    assert not checkpoint_folder(tmp_path, 1).exists()


def test_the_hash_of_a_tower_is_that_of_its_parameters(model: Model) -> None:
    towers = model.need_towers()
    assert tower_hash(towers.query) == tower_hash(towers.untied().passage)
    before = tower_hash(towers.query)
    with torch.no_grad():
        towers.query.norm.bias[0] += 1e-6
    assert tower_hash(towers.query) != before
