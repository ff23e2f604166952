"""Weights in the old layout -> our modules: every name and shape is accounted for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.checkpoint.stored import StoredWeights
from realm.errors import ConfigError
from realm.exchange.layout import (
    EMBEDDER_NAMES,
    ENCODER_NAMES,
    PASSAGE_VECTORS,
    READER_NAMES,
    Kind,
    OldConfig,
    their_name,
)
from realm.model.embedder import build_towers
from realm.model.encoder import build_encoder
from realm.model.reader import build_reader
from realm.tokenizer import WordpieceTokenizer

NumTowers = Literal["one", "two"]
UNUSED = {
    "embedder": re.compile(r"cls\.predictions\.|realm\.embeddings\.position_ids$"),
    "encoder": re.compile(r"cls\.predictions\.decoder\.|realm\.embeddings\.position_ids$"),
    "reader": re.compile(r"cls\.predictions\.|realm\.embeddings\.position_ids$"),
}
"""Weights without a use: heads that no forward pass calls, copies of tied ones, a constant."""
_SCORER = ("query_embedder.", "embedder.")
"""Where a scorer's towers stand: the one for questions, the one for passages."""
NUM_NAMED = 4
"""Names that an error lists before it only counts."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A module of ours and where its weights stand."""

    kind: Literal["embedder", "encoder", "reader"]
    prefix: str
    module: nn.Module
    names: Mapping[str, str]


def build_model(
    folder: Path,
    kind: Kind,
    config: OldConfig,
    weights: StoredWeights,
    tokenizer: WordpieceTokenizer,
    *,
    num_towers: NumTowers | None = None,
) -> Model:
    """Return the modules of a checkpoint with its weights.

    Args:
        folder: where it lies, for messages.
        kind: its class.
        config: its settings.
        weights: its weights.
        tokenizer: its vocabulary.
        num_towers: how many towers a scorer must have; None: as many as it has.

    Raises:
        ConfigError: weights are missing, unknown or of another shape, or towers are not as many.
        ArtifactError: a file is damaged.
    """
    if config.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"{folder} embeds {config.vocab_size:,} wordpieces (config.json), its vocabulary has "
            f"{tokenizer.vocab_size:,}; take both from the same checkpoint"
        )
    shared = _is_shared(folder, kind, weights, num_towers)
    with torch.device("meta"):  # names and shapes alone: config.json may say anything
        described = _fresh(kind, config, tokenizer, shared=shared)
    _check(folder, kind, config, weights, _parts(kind, described, weights))
    if kind == "RealmForOpenQA":
        _numbers(folder, PASSAGE_VECTORS, weights.rows(PASSAGE_VECTORS, 0, 1))
    model = _fresh(kind, config, tokenizer, shared=shared)
    for part in _parts(kind, model, weights):
        state = {
            ours: _numbers(folder, name, weights.tensor(name))
            for ours, name in _stored_names(part, weights).items()
        }
        part.module.load_state_dict(state)
        part.module.eval()
    return model


def _numbers(folder: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        raise ConfigError(
            f"{folder} holds {name} as {value.dtype}, expected floating-point numbers; take the "
            "checkpoint as it was before it was quantised"
        )
    return value.float()


def _fresh(kind: Kind, config: OldConfig, tokenizer: WordpieceTokenizer, *, shared: bool) -> Model:
    has_towers = kind in {"RealmEmbedder", "RealmScorer", "RealmForOpenQA"}
    has_reader = kind in {"RealmReader", "RealmForOpenQA"}
    return Model(
        tokenizer=tokenizer,
        towers=build_towers(config.towers(share_towers=shared)) if has_towers else None,
        encoder=build_encoder({"bert": config.bert})
        if kind == "RealmKnowledgeAugEncoder"
        else None,
        reader=build_reader(config.reader) if has_reader else None,
    )


def _parts(kind: Kind, model: Model, weights: StoredWeights) -> list[_Part]:
    """Return our modules with the prefixes under which the checkpoint has them."""
    if kind == "RealmKnowledgeAugEncoder":
        return [_Part("encoder", "", model.need_encoder(), ENCODER_NAMES)]
    if kind == "RealmReader":
        return [_Part("reader", "", model.need_reader(), READER_NAMES)]
    towers = model.need_towers()
    if kind == "RealmEmbedder":
        return [_Part("embedder", "", towers.query, EMBEDDER_NAMES)]
    if kind == "RealmForOpenQA":
        return [
            _Part("embedder", "embedder.", towers.query, EMBEDDER_NAMES),
            _Part("reader", "reader.", model.need_reader(), READER_NAMES),
        ]
    if towers.shared:
        found = [p for p in _SCORER if any(name.startswith(p) for name in weights)]
        prefix = next(iter(found), _SCORER[1])
        return [_Part("embedder", prefix, towers.query, EMBEDDER_NAMES)]
    return [
        _Part("embedder", _SCORER[0], towers.query, EMBEDDER_NAMES),
        _Part("embedder", _SCORER[1], towers.passage, EMBEDDER_NAMES),
    ]


def _twin(name: str) -> str:
    """Return the name of the same weight in a scorer's other tower."""
    query, passage = _SCORER
    if name.startswith(query):
        return passage + name.removeprefix(query)
    return query + name.removeprefix(passage)


def _is_shared(
    folder: Path, kind: Kind, weights: StoredWeights, num_towers: NumTowers | None
) -> bool:
    """Return whether one tower serves questions and passages."""
    found: NumTowers = "one"
    if kind == "RealmScorer":
        query = [name for name in weights if name.startswith(_SCORER[0])]
        twins = [name for name in query if _twin(name) in weights]
        equal = all(weights.tensor(name).equal(weights.tensor(_twin(name))) for name in twins)
        has_both = any(name.startswith(_SCORER[1]) for name in weights)
        found = "two" if query and has_both and not (twins and equal) else "one"
    if num_towers == "two" and found == "one":
        told = (
            "its query_embedder and embedder are the same tower"
            if kind == "RealmScorer"
            else f"a {kind} has one"
        )
        raise ConfigError(
            f"{folder} holds one tower, expected two: {told}. Leave --towers out (training can "
            "untie them: `--set share_towers=false`), or name a scorer with two"
        )
    if num_towers == "one" and found == "two":
        raise ConfigError(
            f"{folder} holds two different towers, expected one; leave --towers out to keep both"
        )
    return found == "one"


def _stored_names(part: _Part, weights: StoredWeights) -> dict[str, str]:
    """Return our name -> stored name of every weight of a part."""
    names = {ours: part.prefix + their_name(ours, part.names) for ours in part.module.state_dict()}
    bias, copy = (f"{part.prefix}cls.predictions.{end}" for end in ("bias", "decoder.bias"))
    return {
        ours: copy if name == bias and bias not in weights and copy in weights else name
        for ours, name in names.items()
    }


def _is_unused(part: _Part, name: str) -> bool:
    rest = name.removeprefix(part.prefix)
    return name.startswith(part.prefix) and bool(UNUSED[part.kind].match(rest))


def _check(
    folder: Path, kind: Kind, config: OldConfig, weights: StoredWeights, parts: list[_Part]
) -> None:
    """Refuse weights that are missing, unknown, or of another shape than config.json says."""
    expected = {
        name: tuple(part.module.state_dict()[ours].shape)
        for part in parts
        for ours, name in _stored_names(part, weights).items()
    }
    if kind == "RealmForOpenQA":
        expected[PASSAGE_VECTORS] = (config.num_block_records, config.retriever_proj_size)
    spare = [name for name in weights if any(_is_unused(part, name) for part in parts)]
    if kind == "RealmScorer" and len(parts) == 1:  # the same tower under its other name
        spare += [_twin(name) for name in (*expected, *spare)]
    told: list[str] = []
    if missing := sorted(expected.keys() - weights.keys()):
        told.append(f"lacks {_list(missing)}")
    if unknown := sorted(weights.keys() - expected.keys() - set(spare)):
        told.append(f"has {_list(unknown)}, unknown to a {kind}")
    told += [
        f"has {name} of shape {weights[name]}, by config.json {shape}"
        for name, shape in sorted(expected.items())
        if name in weights and weights[name] != shape
    ][:NUM_NAMED]
    if told:
        raise ConfigError(
            f"{folder} is no whole {kind}: it {'; it '.join(told)}. Take config.json and weights "
            "from the same checkpoint"
        )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return f"{', '.join(names[:NUM_NAMED])}{more}"
