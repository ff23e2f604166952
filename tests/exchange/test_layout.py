"""What an old config.json says, and that every weight is accounted for by name and shape."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from realm.checkpoint.parts import Model
from realm.checkpoint.stored import StoredWeights
from realm.errors import ArtifactError, ConfigError
from realm.exchange.importing import load_vocabulary
from realm.exchange.layout import (
    EMBEDDER_NAMES,
    ENCODER_NAMES,
    KINDS,
    READER_NAMES,
    OldConfig,
    read_config,
    their_name,
)
from realm.exchange.naming import build_model

Copied = Callable[..., Path]
Weights = dict[str, Tensor]
KIND_OF = {
    "embedder": "RealmEmbedder",
    "scorer_shared": "RealmScorer",
    "scorer_two_tower": "RealmScorer",
    "encoder": "RealmKnowledgeAugEncoder",
    "reader": "RealmReader",
    "openqa": "RealmForOpenQA",
}
QUERY_PROJECTION = "query_embedder.cls.dense.weight"


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def read_weights(folder: Path) -> Weights:
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def change_weights(folder: Path, change: Callable[[Weights], Any]) -> Path:
    """Write the weights again, changed, as safetensors."""
    weights = read_weights(folder)
    change(weights)
    (folder / "pytorch_model.bin").unlink(missing_ok=True)
    copies = {name: value.clone().contiguous() for name, value in weights.items()}
    save_file(copies, folder / "model.safetensors")
    return folder


def build(folder: Path, **options: Any) -> Model:
    kind, config = read_config(folder)
    weights = StoredWeights.open(folder)
    return build_model(folder, kind, config, weights, load_vocabulary(folder), **options)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(folder, **options)
    return str(caught.value)


# config.json


@pytest.mark.parametrize("name", KIND_OF)
def test_each_class_is_known(name: str, copied: Copied) -> None:
    kind, config = read_config(copied(name))
    assert kind == KIND_OF[name]
    assert (config.hidden_size, config.vocab_size, config.max_span_width) == (16, 122, 4)


def test_what_a_config_does_not_say_is_as_the_port_had_it() -> None:
    assert OldConfig().model_dump() == {
        "architectures": (),
        "model_type": "realm",
        "position_embedding_type": "absolute",
        "vocab_size": 30522,
        "hidden_size": 768,
        "retriever_proj_size": 128,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_candidates": 8,
        "intermediate_size": 3072,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "span_hidden_size": 256,
        "max_span_width": 10,
        "reader_layer_norm_eps": 1e-3,
        "reader_beam_size": 5,
        "reader_seq_len": 320,
        "num_block_records": 13353718,
        "searcher_beam_size": 5000,
        "pad_token_id": 1,
    }


def test_a_config_that_says_little_gets_the_ports_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["RealmEmbedder"]}')
    assert read_config(tmp_path)[1] == OldConfig(architectures=("RealmEmbedder",))


def test_a_folder_without_a_config_is_told(copied: Copied) -> None:
    folder = copied("embedder")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no config\.json; expected a checkpoint in the old"):
        read_config(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("not JSON", "config.json is damaged"),
        ('{"architectures": ["Realm', "config.json is damaged"),
        ("[]", "config.json holds a list, expected an object"),
        ("\udcff", "config.json is damaged"),
    ],
)
def test_a_config_that_is_no_json_object_is_told(content: str, told: str, copied: Copied) -> None:
    folder = copied("embedder")
    (folder / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=told):
        read_config(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": "wide"}, "hidden_size: found 'wide', Input should be a valid integer"),
        ({"hidden_size": 16.5}, "hidden_size: found 16.5"),
        ({"hidden_size": 0}, "hidden_size: found 0, Input should be greater than"),
        ({"vocab_size": [122]}, "vocab_size: found [122]"),
        ({"pad_token_id": None}, "pad_token_id: found None"),
        ({"hidden_act": {}}, "hidden_act: found {}"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: found nan, Input should be a finite"),
        ({"reader_layer_norm_eps": 0}, "reader_layer_norm_eps: found 0"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings: found 1000000000000"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: found 1000000"),
        ({"searcher_beam_size": 0, "max_span_width": -1}, "max_span_width: found -1"),
        ({"searcher_beam_size": 0, "max_span_width": -1}, "; searcher_beam_size: found 0"),
        ({"position_embedding_type": "relative_key"}, "found position_embedding_type='relative_k"),
        ({"num_attention_heads": 3}, "found hidden_size=16 and num_attention_heads=3"),
        ({"hidden_act": "nope"}, "found hidden_act='nope', expected an activation"),
        ({"pad_token_id": 122}, "found pad_token_id=122, expected less than vocab_size=122"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    changes: dict[str, Any], told: str, copied: Copied
) -> None:
    folder = write_config(copied("embedder"), **changes)
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    assert told in str(caught.value)
    assert str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["RealmForNothing"]}, "'realm' model with architectures ['RealmForNo"),
        ({"architectures": []}, "architectures []"),
        ({"architectures": None}, "architectures [None]"),
        ({"architectures": ["RealmEmbedder", "RealmReader"]}, "['RealmEmbedder', 'RealmReader']"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "'bert' model with architectur"),
        ({"model_type": "bert"}, "'bert' model with architectures ['RealmEmbedder']"),
        (
            {"architectures": ["RobertaModel"], "model_type": "roberta", "type_vocab_size": 1},
            "'roberta' model",  # not: type_vocab_size: found 1
        ),
    ],
)
def test_another_model_is_no_realm_checkpoint(
    changes: dict[str, Any], told: str, copied: Copied
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write_config(copied("embedder"), **changes))
    assert told in str(caught.value)
    assert all(kind in str(caught.value) for kind in KINDS)
    assert "start from it with `realm ict --init FOLDER`" in str(caught.value)


# Settings


def test_the_settings_of_a_bert_are_honoured(copied: Copied) -> None:
    folder = write_config(copied("openqa"), initializer_range=0.01)
    model = build(folder)
    for part in (model.need_towers().query, model.need_reader()):
        config = part.bert.config
        assert config.hidden_act == "gelu_new"
        assert config.layer_norm_eps == 1e-12
        assert config.initializer_range == 0.01
        eps = {m.eps for m in part.bert.modules() if isinstance(m, torch.nn.LayerNorm)}
        assert eps == {1e-12}
        acts = {type(layer.intermediate.intermediate_act_fn) for layer in part.bert.encoder.layer}
        assert [act.__name__ for act in acts] == ["NewGELUActivation"]


def test_another_activation_and_another_eps_are_honoured_too(copied: Copied) -> None:
    changes = {"hidden_act": "relu", "layer_norm_eps": 1e-5, "reader_layer_norm_eps": 1e-2}
    model = build(write_config(copied("openqa"), **changes))
    tower, reader = model.need_towers().query, model.need_reader()
    assert tower.bert.config.hidden_act == reader.bert.config.hidden_act == "relu"
    assert (tower.norm.eps, reader.norm.eps) == (1e-5, 1e-2)
    encoder = build(write_config(copied("encoder", "encoder"), **changes)).need_encoder()
    assert encoder.head.activation(torch.tensor(-1.0)) == 0
    assert encoder.head.norm.eps == 1e-5


def test_the_embedders_norm_has_berts_eps_and_the_readers_its_own(copied: Copied) -> None:
    model = build(copied("openqa"))
    assert model.need_towers().query.norm.eps == 1e-12
    assert model.need_towers().query.pooling == "pooler"
    assert model.need_reader().norm.eps == 1e-3


def test_projection_and_head_keep_their_biases(copied: Copied) -> None:
    for name, module in (
        ("embedder", "need_towers"),
        ("encoder", "need_encoder"),
        ("reader", "need_reader"),
    ):
        folder = copied(name, name)
        stored = read_weights(folder)
        part = getattr(build(folder), module)()
        found, old = {
            "need_towers": lambda p: (p.query.projection.bias, "cls.dense.bias"),
            "need_encoder": lambda p: (p.head.bias, "cls.predictions.bias"),
            "need_reader": lambda p: (p.score.bias, "qa_outputs.dense_output.bias"),
        }[module](part)
        assert found.equal(stored[old])
        assert found.abs().max() > 0


def test_the_reader_has_the_span_width_and_the_hidden_units_of_the_config(copied: Copied) -> None:
    reader = build(write_config(copied("reader"), max_span_width=7)).need_reader()
    assert reader.max_answer_wordpieces == 7
    assert reader.span_hidden == 12
    with pytest.raises(ConfigError, match=r"dense_output\.weight of shape"):
        build(write_config(copied("reader", "other"), span_hidden_size=11))


def test_the_padding_row_never_learns_and_the_tokenizers_pad_does(copied: Copied) -> None:
    """pad_token_id is 1, `[unused0]`; `[PAD]` is 0 and learns like any wordpiece."""
    model = build(copied("embedder"))
    table = model.need_towers().query.bert.embeddings.word_embeddings
    assert table.padding_idx == 1
    assert (model.tokenizer.pad_id, model.tokenizer.token(1)) == (0, "[unused0]")
    table(torch.tensor([0, 1, 2])).sum().backward()
    assert table.weight.grad[1].abs().max() == 0
    assert table.weight.grad[0].abs().min() > 0
    usual = build(write_config(copied("embedder", "usual"), pad_token_id=0)).need_towers()
    assert usual.query.bert.embeddings.word_embeddings.padding_idx == 0


def test_the_padding_row_is_kept_as_it_is_stored(copied: Copied) -> None:
    folder = copied("embedder")
    name = "realm.embeddings.word_embeddings.weight"
    change_weights(folder, lambda weights: weights[name][:2].fill_(5.0))
    table = build(folder).need_towers().query.bert.embeddings.word_embeddings
    assert (table.weight[:2] == 5.0).all()


# Names and shapes


@pytest.mark.parametrize("name", KIND_OF)
def test_every_weight_of_ours_has_the_value_of_its_old_name(name: str, copied: Copied) -> None:
    folder = copied(name)
    stored, model = read_weights(folder), build(folder)
    parts = {
        "embedder": [("towers.query", "", EMBEDDER_NAMES)],
        "scorer_shared": [("towers.query", "embedder.", EMBEDDER_NAMES)],
        "scorer_two_tower": [
            ("towers.query", "query_embedder.", EMBEDDER_NAMES),
            ("towers.passage", "embedder.", EMBEDDER_NAMES),
        ],
        "encoder": [("encoder", "", ENCODER_NAMES)],
        "reader": [("reader", "", READER_NAMES)],
        "openqa": [
            ("towers.query", "embedder.", EMBEDDER_NAMES),
            ("reader", "reader.", READER_NAMES),
        ],
    }[name]
    for path, prefix, names in parts:
        part: Any = model
        for step in path.split("."):
            part = getattr(part, step)
        for ours, value in part.state_dict().items():
            assert value.equal(stored[prefix + their_name(ours, names)]), ours
        assert not part.training
    assert model.towers is None or model.towers.shared is (name != "scorer_two_tower")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("embedder", "cls.dense.bias"),
        ("scorer_two_tower", "embedder.cls.LayerNorm.weight"),
        ("scorer_two_tower", "query_embedder.realm.pooler.dense.weight"),
        ("encoder", "cls.predictions.transform.dense.bias"),
        ("encoder", "cls.predictions.bias"),
        ("reader", "qa_outputs.layer_normalization.bias"),
        ("openqa", "block_emb"),
        ("openqa", "reader.realm.embeddings.LayerNorm.bias"),
    ],
)
def test_a_missing_weight_is_named(name: str, missing: str, copied: Copied) -> None:
    def remove(weights: Weights) -> None:
        weights.pop(missing)
        weights.pop("cls.predictions.decoder.bias", None)

    told = refused(change_weights(copied(name), remove))
    assert f"is no whole {KIND_OF[name]}: it lacks {missing}. Take" in told


def test_many_missing_weights_are_named_and_counted(copied: Copied) -> None:
    def cut(weights: Weights) -> None:
        for name in [n for n in weights if ".layer.1." in n]:
            del weights[name]

    told = refused(change_weights(copied("encoder"), cut))
    assert "it lacks realm.encoder.layer.1.attention.output.LayerNorm.bias, " in told
    assert "and 12 more" in told


@pytest.mark.parametrize("name", ["embedder", "encoder", "reader", "openqa", "scorer_shared"])
@pytest.mark.parametrize("extra", ["classifier.weight", "realm.encoder.layer.2.output.dense.bias"])
def test_an_unknown_weight_is_named(name: str, extra: str, copied: Copied) -> None:
    folder = change_weights(copied(name), lambda weights: weights.update({extra: torch.ones(3)}))
    told = refused(folder)
    assert f"it has {extra}, unknown to a {KIND_OF[name]}" in told


def test_more_layers_than_the_config_says_are_unknown(copied: Copied) -> None:
    told = refused(write_config(copied("embedder"), num_hidden_layers=1))
    assert "it has realm.encoder.layer.1." in told
    assert "and 12 more, unknown to a RealmEmbedder" in told


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        (
            "embedder",
            {"retriever_proj_size": 9},
            "cls.dense.weight of shape (8, 16), by config.json (9, 16)",
        ),
        (
            "embedder",
            {"vocab_size": 200},
            "realm.embeddings.word_embeddings.weight of shape (122, 16), by config.json (200, 16)",
        ),
        (
            "reader",
            {"max_position_embeddings": 32},
            "realm.embeddings.position_embeddings.weight of shape (64, 16), by config.json (32, 1",
        ),
        (
            "openqa",
            {"num_block_records": 21},
            "block_emb of shape (20, 8), by config.json (21, 8)",
        ),
        (
            "embedder",
            {"hidden_size": 10_000_000},  # is not allocated
            "cls.dense.weight of shape (8, 16), by config.json (8, 10000000)",
        ),
    ],
)
def test_a_wrong_shape_is_named_with_the_right_one(
    name: str, changes: dict[str, int], told: str, copied: Copied
) -> None:
    assert told in refused(write_config(copied(name), **changes))


def test_missing_unknown_and_misshapen_weights_are_told_together(copied: Copied) -> None:
    def change(weights: Weights) -> None:
        weights["cls.dense.weight"] = torch.ones(8, 15)
        weights["cls.extra"] = weights.pop("cls.dense.bias")

    told = refused(change_weights(copied("embedder"), change))
    assert "lacks cls.dense.bias" in told
    assert "has cls.extra, unknown" in told
    assert "cls.dense.weight of shape (8, 15), by config.json (8, 16)" in told


@pytest.mark.parametrize(
    ("name", "claim", "told"),
    [
        ("reader", "RealmEmbedder", "lacks cls.LayerNorm.bias, "),
        ("reader", "RealmEmbedder", "has qa_outputs.dense_intermediate.bias, "),
        ("encoder", "RealmEmbedder", "lacks cls.LayerNorm.bias, "),
        ("embedder", "RealmScorer", "lacks embedder.cls.LayerNorm.bias, "),
        ("scorer_two_tower", "RealmEmbedder", "lacks cls.LayerNorm.bias, "),
        ("embedder", "RealmKnowledgeAugEncoder", "has cls.LayerNorm.bias, "),
        ("encoder", "RealmReader", "lacks qa_outputs.dense_intermediate.bias, "),
        ("openqa", "RealmScorer", "has block_emb, "),
        ("scorer_shared", "RealmForOpenQA", "lacks block_emb, reader."),
        ("embedder", "RealmForOpenQA", "lacks block_emb, "),
    ],
)
def test_a_checkpoint_of_another_class_is_refused(
    name: str, claim: str, told: str, copied: Copied
) -> None:
    found = refused(write_config(copied(name), architectures=[claim]))
    assert f"is no whole {claim}: it " in found
    assert f"it {told}" in found


@pytest.mark.parametrize("name", ["embedder", "encoder", "reader", "openqa", "scorer_two_tower"])
def test_constants_and_unused_heads_are_passed_over(name: str, copied: Copied) -> None:
    """As the uploads of 2021 have them: position_ids, tied decoders, heads nobody calls."""
    prefixes = {"openqa": ("embedder.", "reader."), "scorer_two_tower": ("embedder.",)}
    expected = build(copied(name, "plain"))

    def add(weights: Weights) -> None:
        for prefix in prefixes.get(name, ("",)):
            weights[f"{prefix}realm.embeddings.position_ids"] = torch.arange(64)[None]
            weights[f"{prefix}cls.predictions.decoder.weight"] = torch.ones(122, 16)
            weights[f"{prefix}cls.predictions.decoder.bias"] = torch.ones(122)

    found = build(change_weights(copied(name), add))
    for part, module in expected.modules.items():
        for ours, value in module.state_dict().items():
            assert found.modules[part].state_dict()[ours].equal(value)


def test_position_ids_are_known_where_they_belong_only(copied: Copied) -> None:
    extra = {"position_ids": torch.arange(64)[None]}
    folder = change_weights(copied("embedder"), lambda weights: weights.update(extra))
    assert "has position_ids, unknown" in refused(folder)


def test_a_head_whose_bias_has_the_decoders_name_is_read(copied: Copied) -> None:
    def rename(weights: Weights) -> None:
        weights["cls.predictions.decoder.bias"] = weights.pop("cls.predictions.bias")

    folder = copied("encoder")
    bias = read_weights(folder)["cls.predictions.bias"]
    encoder = build(change_weights(folder, rename)).need_encoder()
    assert encoder.head.bias.equal(bias)
    assert bias.abs().max() > 0


def test_half_precision_becomes_single(copied: Copied) -> None:
    def halve(weights: Weights) -> None:
        weights["embedder.cls.dense.weight"] = torch.full((8, 16), 0.1)
        weights.update({n: v.half() for n, v in weights.items() if v.is_floating_point()})

    tower = build(change_weights(copied("openqa"), halve)).need_towers().query
    assert {value.dtype for value in tower.state_dict().values()} == {torch.float32}
    assert tower.projection.weight.detach()[0, 0] == 0.0999755859375


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("embedder.cls.dense.weight", torch.int8),
        ("reader.qa_outputs.dense_output.bias", torch.bool),
        ("block_emb", torch.int64),
    ],
)
def test_numbers_of_another_kind_are_refused(name: str, dtype: torch.dtype, copied: Copied) -> None:
    folder = copied("openqa")
    change_weights(folder, lambda weights: weights.update({name: weights[name].to(dtype)}))
    assert f"holds {name} as {dtype}, expected floating-point numbers" in refused(folder)


# Towers of a scorer


def test_a_scorer_has_one_tower_where_both_are_equal(copied: Copied) -> None:
    model = build(copied("scorer_shared"), num_towers="one")
    assert model.need_towers().shared
    told = refused(copied("scorer_shared", "again"), num_towers="two")
    assert "holds one tower, expected two: its query_embedder and embedder are the same" in told
    assert "Leave --towers out" in told


def test_a_scorer_with_two_towers_keeps_both(copied: Copied) -> None:
    folder = copied("scorer_two_tower")
    stored = read_weights(folder)
    for options in ({}, {"num_towers": "two"}):
        towers = build(folder, **options).need_towers()
        assert not towers.shared
        assert towers.query.projection.weight.equal(stored[QUERY_PROJECTION])
        assert towers.passage.projection.weight.equal(stored["embedder.cls.dense.weight"])
    told = refused(folder, num_towers="one")
    assert "holds two different towers, expected one; leave --towers out" in told


def test_one_number_makes_the_difference_between_one_tower_and_two(copied: Copied) -> None:
    def change(weights: Weights) -> None:
        weights[QUERY_PROJECTION] = weights[QUERY_PROJECTION].clone()
        weights[QUERY_PROJECTION][3, 5] += 1e-3

    assert not build(change_weights(copied("scorer_shared"), change)).need_towers().shared


@pytest.mark.parametrize("left", ["embedder.", "query_embedder."])
def test_a_shared_scorer_may_have_its_tower_under_one_name(left: str, copied: Copied) -> None:
    """As safetensors keep it: of tied weights one name is left."""

    def drop(weights: Weights) -> None:
        for name in [n for n in weights if not n.startswith(left)]:
            del weights[name]

    expected = build(copied("scorer_shared", "whole")).need_towers().query.state_dict()
    towers = build(change_weights(copied("scorer_shared"), drop)).need_towers()
    assert towers.shared
    assert all(value.equal(expected[name]) for name, value in towers.query.state_dict().items())


@pytest.mark.parametrize("name", ["embedder", "openqa"])
def test_two_towers_are_not_to_be_had_from_a_class_with_one(name: str, copied: Copied) -> None:
    folder = copied(name)
    told = refused(folder, num_towers="two")
    assert f"holds one tower, expected two: a {KIND_OF[name]} has one" in told
    assert build(folder, num_towers="one").need_towers().shared


def test_a_vocabulary_larger_than_the_embeddings_is_refused(copied: Copied) -> None:
    folder = copied("embedder")
    with (folder / "vocab.txt").open("a") as stream:
        stream.write("more\nwords\n")
    told = refused(folder)
    assert "embeds 122 wordpieces (config.json), its vocabulary has 124; take both from" in told


def test_a_vocabulary_smaller_than_the_embeddings_is_fine(copied: Copied) -> None:
    folder = copied("embedder")
    lines = (folder / "vocab.txt").read_bytes().splitlines(keepends=True)
    (folder / "vocab.txt").write_bytes(b"".join(lines[:-2]))
    model = build(folder)
    assert model.tokenizer.vocab_size == 120
    assert len(model.need_towers().query.bert.embeddings.word_embeddings.weight) == 122
