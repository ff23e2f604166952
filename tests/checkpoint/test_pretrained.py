"""BERT weights from folders, packages and from scratch; nothing is fetched here."""

import importlib.util
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from realm.checkpoint import pretrained
from realm.checkpoint.folders import MINILM_PACKAGE, load_tokenizer
from realm.checkpoint.pretrained import hash_tensors, load_pretrained
from realm.config import EncoderConfig
from realm.errors import ArtifactError, ConfigError
from realm.model.bert import build_bert
from realm.model.encoder import Encoder
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

BERT: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
HEAD = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
}
TOKENS = [*SPECIAL_TOKENS, *string.ascii_lowercase]

MakeFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer() -> WordpieceTokenizer:
    return WordpieceTokenizer.from_vocabulary(TOKENS)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(build_bert(BERT))


def bert_weights(encoder: Encoder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.bert.state_dict().items()}


def head_weights(encoder: Encoder) -> dict[str, Tensor]:
    """Return the MLM head under the names of published checkpoints."""
    weights = {"cls.predictions.bias": torch.arange(31.0)}
    for ours, theirs in HEAD.items():
        for kind in ("weight", "bias"):
            weights[f"{theirs}.{kind}"] = encoder.head.state_dict()[f"{ours}.{kind}"].clone()
    return weights


@pytest.fixture
def make_folder(tmp_path: Path, tokenizer: WordpieceTokenizer, encoder: Encoder) -> MakeFolder:
    """Write a checkpoint folder as others publish them."""

    def make(
        weights: dict[str, Tensor] | None = None,
        *,
        settings: dict[str, Any] | None = None,
        binary: bool = False,
    ) -> Path:
        folder = tmp_path / "bert"
        folder.mkdir()
        config = {"model_type": "bert", "hidden_dropout_prob": 0.1, **BERT, **(settings or {})}
        (folder / "config.json").write_text(json.dumps(config))
        tokenizer.save(folder / "tokenizer.json")
        weights = bert_weights(encoder) if weights is None else weights
        if binary:
            torch.save(weights, folder / "pytorch_model.bin")
        else:
            save_file(weights, folder / "model.safetensors")
        return folder

    return make


def load(folder: Path | str, tokenizer: WordpieceTokenizer, num_layers: int | None = None) -> Any:
    config = EncoderConfig(init=str(folder), num_layers=num_layers)
    return load_pretrained(config, tokenizer=tokenizer)


def assert_same_bert(found: dict[str, Tensor], encoder: Encoder) -> None:
    expected = bert_weights(encoder)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_folder_gives_its_weights_and_settings(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, encoder: Encoder
) -> None:
    found = load(make_folder(), tokenizer)
    assert_same_bert(found.weights, encoder)
    assert found.settings == BERT  # what is only about running is left behind
    assert found.head == {}
    assert_same_bert(dict(found.build().state_dict()), encoder)


def test_the_first_layers_are_kept(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, encoder: Encoder
) -> None:
    folder = make_folder()
    found = load(folder, tokenizer, 2)
    assert found.settings["num_hidden_layers"] == 2
    built = found.build().state_dict()
    assert {name.split(".")[2] for name in built if ".layer." in name} == {"0", "1"}
    whole = encoder.bert.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in built.items())
    assert found.fingerprint != load(folder, tokenizer).fingerprint
    with pytest.raises(ConfigError, match=r"num_layers=4.* has 3 layers; .*num_layers=none"):
        load(folder, tokenizer, 4)


def test_prefixed_and_old_names_are_understood(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, encoder: Encoder
) -> None:
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in bert_weights(encoder).items()
    }
    assert any(name.endswith("gamma") for name in old)
    old["bert.embeddings.position_ids"] = torch.arange(16)
    old["cls.seq_relationship.weight"] = torch.zeros(2, 32)
    found = load(make_folder(old), tokenizer)
    assert_same_bert(found.weights, encoder)
    assert found.head == {}


@pytest.mark.parametrize("old_names", [False, True])
def test_a_masked_language_model_brings_its_head(
    make_folder: MakeFolder,
    tokenizer: WordpieceTokenizer,
    encoder: Encoder,
    old_names: bool,  # noqa: FBT001
) -> None:
    weights = {f"bert.{name}": value for name, value in bert_weights(encoder).items()}
    head = head_weights(encoder)
    if old_names:
        head = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in head.items()
        }
    found = load(make_folder(weights | head), tokenizer).build_encoder()
    for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias"):
        assert torch.equal(found.head.state_dict()[name], encoder.head.state_dict()[name])
    assert torch.equal(found.head.bias, torch.arange(31.0))


def test_a_model_without_a_pooler_gets_a_neutral_one(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, encoder: Encoder
) -> None:
    """Masked-language models are published without it; the mean over tokens needs none."""
    weights = {n: value for n, value in bert_weights(encoder).items() if "pooler" not in n}
    found = load(make_folder(weights), tokenizer)
    assert torch.equal(found.weights["pooler.dense.weight"], torch.eye(32))
    assert not found.weights["pooler.dense.bias"].any()
    assert found.build().pooler is not None


def test_weights_in_torchs_own_format_are_read_without_running_code(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, encoder: Encoder
) -> None:
    found = load(make_folder(binary=True), tokenizer)
    assert_same_bert(found.weights, encoder)


class Evil:
    """Would run code when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return Path(self.marker).touch, ()  # type: ignore[return-value]


def test_code_in_a_weights_file_is_refused_and_not_run(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    folder = make_folder(binary=True)
    torch.save({"bert": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(folder, tokenizer)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_damaged_weights_file_is_told(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, name: str, content: bytes
) -> None:
    folder = make_folder()
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(folder, tokenizer)


def test_a_folder_without_weights_is_told(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer
) -> None:
    folder = make_folder()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no model\.safetensors or pytorch_model\.bin"):
        load(folder, tokenizer)


def test_another_family_is_refused(make_folder: MakeFolder, tokenizer: WordpieceTokenizer) -> None:
    with pytest.raises(ConfigError, match="'roberta' model, expected 'bert'"):
        load(make_folder(settings={"model_type": "roberta"}), tokenizer)


def test_another_vocabulary_is_refused(make_folder: MakeFolder) -> None:
    other = WordpieceTokenizer.from_vocabulary([*TOKENS, "word"])
    with pytest.raises(ConfigError, match=r"another tokenizer.*realm split .* --tokenizer"):
        load(make_folder(), other)


def test_weights_that_do_not_fit_their_settings_are_refused(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer
) -> None:
    with pytest.raises(ConfigError, match=r"of shape \(31, 32\), its config.json says \(31, 64\)"):
        load(make_folder(settings={"hidden_size": 64, "intermediate_size": 32}), tokenizer)


def test_missing_and_unknown_weights_are_named(
    make_folder: MakeFolder, tokenizer: WordpieceTokenizer, encoder: Encoder
) -> None:
    weights = bert_weights(encoder)
    folder = make_folder()
    gone = "encoder.layer.1.output.dense.bias"
    save_file(
        {name: value for name, value in weights.items() if name != gone},
        folder / "model.safetensors",
    )
    with pytest.raises(ConfigError, match=f"lacks 1 BERT weight, e.g. {gone}"):
        load(folder, tokenizer)
    more = "encoder.layer.0.attention.self.distance_embedding.weight"
    save_file(weights | {more: torch.zeros(3, 3)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=f"1 weight that BERT has not, e.g. {more}"):
        load(folder, tokenizer)


def test_more_wordpieces_than_embeddings_are_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    more = WordpieceTokenizer.from_vocabulary([*TOKENS, "word"])
    more.save(folder / "tokenizer.json")
    with pytest.raises(ConfigError, match="embeds 31 wordpieces, its tokenizer has 32"):
        load(folder, more)


def test_an_id_beyond_the_embeddings_is_refused_though_there_are_enough_of_them(
    make_folder: MakeFolder,
) -> None:
    folder = make_folder()
    told = json.loads(WordpieceTokenizer.from_vocabulary(TOKENS[:-1]).as_json())
    told["model"]["vocab"] |= {TOKENS[-1]: 40}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="embeds 31 wordpieces, its tokenizer has 41"):
        load(folder, WordpieceTokenizer.load(folder))


def test_scratch_is_layers_by_width(tokenizer: WordpieceTokenizer) -> None:
    found = load("scratch:2x64", tokenizer)
    assert found.weights == found.head == {}
    built = found.build()
    assert (built.config.num_hidden_layers, built.config.hidden_size) == (2, 64)
    assert (built.config.num_attention_heads, built.config.intermediate_size) == (2, 256)
    assert built.config.vocab_size == tokenizer.vocab_size
    assert load("scratch:2x64", tokenizer, 1).settings["num_hidden_layers"] == 1
    assert found.fingerprint == load("scratch:2x64", tokenizer).fingerprint
    assert found.fingerprint != load("scratch:3x64", tokenizer).fingerprint
    with pytest.raises(ConfigError, match=r"num_layers=3.* has 2 layers"):
        load("scratch:2x64", tokenizer, 3)


@pytest.mark.parametrize("shape", ["", "2", "2x", "0x32", "2x0", "2x3x4", "axb", "²x32", "-1x32"])
def test_a_wrong_shape_is_told(tokenizer: WordpieceTokenizer, shape: str) -> None:
    with pytest.raises(ConfigError, match="expected scratch:LAYERSxWIDTH"):
        load(f"scratch:{shape}", tokenizer)


def test_a_width_that_heads_cannot_share_is_told(tokenizer: WordpieceTokenizer) -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        load("scratch:1x100", tokenizer)


def test_equal_tensors_have_equal_hashes_whatever_their_order() -> None:
    one, two = torch.arange(4.0), torch.ones(2, dtype=torch.bfloat16)
    found = hash_tensors({"a": one, "b": two})
    assert found == hash_tensors({"b": two, "a": one})
    assert found != hash_tensors({"a": one.view(2, 2), "b": two})
    assert found != hash_tensors({"a": two, "b": one})
    assert found != hash_tensors({"a": one + 1, "b": two})


def test_the_package_holds_minilm_bit_for_bit() -> None:
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        pytest.skip(f"{MINILM_PACKAGE} is not installed (extra `demo`)")
    found = pretrained.load_pretrained(
        EncoderConfig(num_layers=1), tokenizer=load_tokenizer("minilm")
    )
    assert found.settings["hidden_size"] == 384
    assert found.settings["num_hidden_layers"] == 1
    assert found.head == {}
    assert len(found.weights["embeddings.word_embeddings.weight"]) == 30_522
