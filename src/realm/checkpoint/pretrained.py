"""Pre-trained BERT weights: from a package, a folder or the hub; as they are or cut short."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from realm.checkpoint.folders import pretrained_folder
from realm.checkpoint.stored import StoredWeights
from realm.config import EncoderConfig
from realm.errors import ConfigError
from realm.model.bert import KEPT_SETTINGS, Bert, build_bert
from realm.model.encoder import Encoder
from realm.readable import counted
from realm.storage import fingerprint_of, read_json
from realm.tokenizer import WordpieceTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A BERT to start a tower from."""

    settings: dict[str, Any]
    """For `build_bert`."""
    weights: dict[str, Tensor]
    """State of the BertModel; empty for a start from scratch."""
    head: dict[str, Tensor]
    """State of the MLM head, empty when the checkpoint comes without one."""
    fingerprint: str
    """Of the BertModel and its settings: what embeds. Who trains the head names it beside this."""

    def build(self) -> Bert:
        """Return a new BertModel with these weights."""
        bert = build_bert(self.settings)
        if self.weights:
            bert.load_state_dict(self.weights)
        return bert

    def build_encoder(self) -> Encoder:
        """Return a new encoder with these weights, and the MLM head where there is one."""
        encoder = Encoder(self.build())
        if self.head:
            encoder.head.load_state_dict(self.head)
        return encoder


def load_pretrained(config: EncoderConfig, *, tokenizer: WordpieceTokenizer) -> Pretrained:
    """Return the weights that `config.init` names, cut to `config.num_layers`.

    Raises:
        ConfigError: nothing there, another model family, too few layers, or a vocabulary that is
            not the one the passages were cut with.
    """
    if config.init.startswith("scratch:"):
        return _scratch(config, tokenizer)
    folder = pretrained_folder(config.init)
    settings = read_json(folder / "config.json")
    if settings.get("model_type") != "bert":
        raise ConfigError(
            f"{config.init} is a {settings.get('model_type')!r} model, expected 'bert' "
            "(BERT, MiniLM and others that use BERT's architecture)"
        )
    own = WordpieceTokenizer.load(folder)
    if own.fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"the passages were cut with another tokenizer than that of {config.init}; "
            f"run `realm split ... --tokenizer {config.init}`"
        )
    kept = {name: settings[name] for name in KEPT_SETTINGS if name in settings}
    layers = int(kept["num_hidden_layers"])
    kept["num_hidden_layers"] = _num_layers(config, layers)
    stored = StoredWeights.open(folder)
    found = {name: stored.tensor(name) for name in stored}
    weights, head = _bert_names(found, int(kept["num_hidden_layers"]))
    _check_weights(config.init, kept, weights, tokenizer)
    return Pretrained(
        settings=kept,
        weights=weights,
        head=head,
        fingerprint=fingerprint_of({"init": hash_tensors(weights), "settings": kept}),
    )


def _scratch(config: EncoderConfig, tokenizer: WordpieceTokenizer) -> Pretrained:
    shape = config.init.removeprefix("scratch:").split("x")
    if len(shape) != 2 or not all(part.isdecimal() and int(part) for part in shape):
        raise ConfigError(
            f"init={config.init!r}; expected scratch:LAYERSxWIDTH, e.g. scratch:2x128"
        )
    layers, width = (int(part) for part in shape)
    settings = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": width,
        "num_hidden_layers": _num_layers(config, layers),
        "num_attention_heads": max(1, width // 32),
        "intermediate_size": 4 * width,
    }
    if width % settings["num_attention_heads"]:
        raise ConfigError(f"scratch width {width} must be a multiple of 32")
    return Pretrained(settings=settings, weights={}, head={}, fingerprint=fingerprint_of(settings))


def _num_layers(config: EncoderConfig, available: int) -> int:
    if config.num_layers is not None and config.num_layers > available:
        raise ConfigError(
            f"found num_layers={config.num_layers}, but {config.init} has {available} layers; "
            "ask for as many at most, or for all of them: --set encoder.num_layers=none"
        )
    return config.num_layers or available


def _check_weights(
    init: str, settings: dict[str, Any], weights: dict[str, Tensor], tokenizer: WordpieceTokenizer
) -> None:
    """Refuse weights that do not fit their own settings; fill in a pooler that was left out."""
    expected = build_bert(settings).state_dict()
    for name, value in _neutral_pooler(int(settings["hidden_size"])).items():
        weights.setdefault(name, value)
    if missing := sorted(expected.keys() - weights.keys()):
        raise ConfigError(
            f"{init} lacks {counted(len(missing), 'BERT weight')}, e.g. {missing[0]}; is it a BERT?"
        )
    if unknown := sorted(weights.keys() - expected.keys()):
        raise ConfigError(
            f"{init} has {counted(len(unknown), 'weight')} that BERT has not, e.g. {unknown[0]}; "
            "expected BERT's architecture as it is"
        )
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            raise ConfigError(
                f"{init} has {name} of shape {tuple(weights[name].shape)}, its config.json says "
                f"{tuple(value.shape)}; take both files from the same checkpoint"
            )
    rows = len(weights["embeddings.word_embeddings.weight"])
    if rows < tokenizer.vocab_size:
        raise ConfigError(
            f"{init} embeds {rows} wordpieces, its tokenizer has {tokenizer.vocab_size}; "
            "take both files from the same checkpoint"
        )


def _neutral_pooler(width: int) -> dict[str, Tensor]:
    """Return a pooler that only applies tanh: masked-language models come without one."""
    return {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}


def _bert_names(
    found: dict[str, Tensor], num_layers: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (BertModel weights, MLM head weights) under the names used here."""
    bert: dict[str, Tensor] = {}
    for raw, value in found.items():
        name = raw.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
        if not name.startswith(("embeddings.", "encoder.", "pooler.")):
            continue
        if name.endswith("position_ids"):
            continue
        if name.startswith("encoder.layer.") and int(name.split(".")[2]) >= num_layers:
            continue
        bert[name] = value.float()
    prefix = "cls.predictions."
    source = {
        "dense.weight": "transform.dense.weight",
        "dense.bias": "transform.dense.bias",
        "norm.weight": "transform.LayerNorm.weight",
        "norm.bias": "transform.LayerNorm.bias",
        "bias": "bias",
    }
    cleaned = {
        raw.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias"): value
        for raw, value in found.items()
        if raw.startswith(prefix)
    }
    if not all(name in cleaned for name in source.values()):
        return bert, {}
    return bert, {ours: cleaned[theirs].float() for ours, theirs in source.items()}


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of named tensors' values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
