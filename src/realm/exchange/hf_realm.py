"""A run -> the old Hugging Face layout, which transformers 4.16 to 4.57 load.

config.json, model.safetensors, vocab.txt, tokenizer_config.json; for open-QA also
block_records.npy. Heads that the old classes have and never call are left out: the old loader
says that they are newly initialised.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realm.checkpoint.parts import Model
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.exchange.block_records import write_block_records
from realm.exchange.layout import (
    EMBEDDER_NAMES,
    ENCODER_NAMES,
    LARGEST,
    PASSAGE_VECTORS,
    READER_NAMES,
    Kind,
    OldConfig,
    their_name,
)
from realm.index.snapshot import Snapshot
from realm.model.bert import PADDING_ROW, bert_settings
from realm.model.embedder import Embedder
from realm.model.encoder import Encoder
from realm.model.reader import Reader
from realm.storage import write_plain_json

CHUNK_ROWS = 65_536
OLD_RELEASE = "4.57.6"
"""The last release of transformers that had REALM."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What an open-QA checkpoint searches."""

    store: PassageStore
    snapshot: Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSettings:
    """What an old config.json says beyond the modules."""

    num_candidates: int = 8
    reader_beam_size: int = 5
    searcher_beam_size: int = 5_000
    reader_seq_len: int = 320


def write_hf_realm(
    model: Model, folder: Path, *, searched: Searched | None, settings: OldSettings
) -> dict[str, Kind]:
    """Write a run's parts as checkpoints of the old classes; return class by sub-folder.

    Args:
        model: the run's.
        folder: an existing folder. Embedder and reader make one RealmForOpenQA; embedder and
            encoder stand in sub-folders.
        searched: passages and their vectors, for open-QA.
        settings: beams and lengths.

    Raises:
        ConfigError: a part is nothing that the old classes can express.
        OSError: a file cannot be written.
    """
    kinds = _kinds(model)
    for place, kind in kinds.items():
        (folder / place).mkdir(exist_ok=True)
        _write(kind, model, folder / place, searched, settings)
    return kinds


def _kinds(model: Model) -> dict[str, Kind]:
    if model.towers is not None and model.reader is not None:
        return {"": "RealmForOpenQA"}
    kinds: dict[str, Kind] = {}
    if model.towers is not None:
        kinds["embedder"] = "RealmEmbedder" if model.towers.shared else "RealmScorer"
    if model.encoder is not None:
        kinds["encoder"] = "RealmKnowledgeAugEncoder"
    if model.reader is not None:
        kinds["reader"] = "RealmReader"
    return kinds if len(kinds) > 1 else dict.fromkeys([""], next(iter(kinds.values())))


def _write(
    kind: Kind, model: Model, folder: Path, searched: Searched | None, settings: OldSettings
) -> None:
    parts = _parts(kind, model)
    config = _config(kind, [part for part, _ in parts], searched, settings)
    tensors = {name: value for part, prefix in parts for name, value in _named(part, prefix)}
    vocabulary = model.tokenizer.vocabulary()
    normalisation = model.tokenizer.normalisation
    streamed: dict[str, tuple[tuple[int, int], Iterator[Tensor]]] = {}
    if kind == "RealmForOpenQA":
        if searched is None:
            raise ConfigError("found no passages; expected those of an open-QA run")
        shape = (len(searched.snapshot), model.need_towers().query.dim)
        streamed[PASSAGE_VECTORS] = (shape, _rows(searched.snapshot))
        write_block_records(
            folder / "block_records.npy",
            (searched.store.text(row) for row in range(len(searched.store))),
            len(searched.store),
        )
    write_safetensors(folder / "model.safetensors", tensors, streamed)
    write_plain_json(folder / "config.json", config)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), "utf-8")
    told = {
        "do_lower_case": normalisation["lowercase"],
        "strip_accents": normalisation["strip_accents"],
        "tokenize_chinese_chars": normalisation["split_chinese"],
        "tokenizer_class": "RealmTokenizer",
    }
    write_plain_json(folder / "tokenizer_config.json", told)


def _parts(kind: Kind, model: Model) -> list[tuple[Embedder | Encoder | Reader, str]]:
    """Return our modules with the prefixes of their old names."""
    if kind == "RealmKnowledgeAugEncoder":
        return [(model.need_encoder(), "")]
    if kind == "RealmReader":
        return [(model.need_reader(), "")]
    towers = model.need_towers()
    for tower in (towers.query, towers.passage):
        if tower.pooling != "pooler":
            raise ConfigError(
                f"this run's embedder pools by {tower.pooling!r}, and the old classes know only "
                "[CLS] through BERT's pooler; expected a run trained with `--set pooling=pooler`. "
                "`--to sentence-transformers` can express it"
            )
    if kind == "RealmEmbedder":
        return [(towers.query, "")]
    if kind == "RealmScorer":
        return [(towers.query, "query_embedder."), (towers.passage, "embedder.")]
    return [(towers.query, "embedder."), (model.need_reader(), "reader.")]


def _named(part: Embedder | Encoder | Reader, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (old name, value) of a part's weights."""
    names, scale = READER_NAMES, 1.0
    if isinstance(part, Encoder):
        names = ENCODER_NAMES
    if isinstance(part, Embedder):  # its layer norm has BERT's eps there
        names, scale = EMBEDDER_NAMES, part.projection_scale(part.bert.config.layer_norm_eps)
    for ours, value in part.state_dict().items():
        scaled = value.double() * scale if ours.startswith("projection.") else value
        yield prefix + their_name(ours, names), scaled.float()


def _config(
    kind: Kind,
    parts: list[Embedder | Encoder | Reader],
    searched: Searched | None,
    settings: OldSettings,
) -> dict[str, Any]:
    berts = [{PADDING_ROW: 0, **bert_settings(part.bert)} for part in parts]
    if any(bert != berts[0] for bert in berts):
        differing = sorted(
            name for name in berts[0] if any(b[name] != berts[0][name] for b in berts)
        )
        raise ConfigError(
            f"embedder and reader differ in {', '.join(differing)}, and the old layout has one "
            "config.json for both; expected towers and encoder started from the same BERT"
        )
    shapes: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, Embedder):
            shapes["retriever_proj_size"] = part.dim
        if isinstance(part, Reader):
            shapes["span_hidden_size"] = part.span_hidden
            shapes["max_span_width"] = part.max_answer_wordpieces
            shapes["reader_layer_norm_eps"] = part.norm.eps
    num_blocks = len(searched.store) if searched else 0
    most = num_blocks or LARGEST  # the old code fails where it is to find more than there are
    config = OldConfig(
        architectures=(kind,),
        **berts[0],
        **shapes,
        num_candidates=settings.num_candidates,
        reader_beam_size=min(settings.reader_beam_size, most),
        searcher_beam_size=min(settings.searcher_beam_size, most),
        reader_seq_len=settings.reader_seq_len,
        num_block_records=num_blocks,
    )
    return {
        **config.model_dump(mode="json"),
        "bos_token_id": 0,
        "eos_token_id": 2,
        "transformers_version": OLD_RELEASE,
    }


def _rows(snapshot: Snapshot) -> Iterator[Tensor]:
    return (rows for _, rows in snapshot.exact.chunks(CHUNK_ROWS))


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    streamed: Mapping[str, tuple[tuple[int, int], Iterator[Tensor]]],
) -> None:
    """Write a safetensors file of float32 tensors, some of which are too large to hold.

    The format: length of the header, the header (JSON: type, shape and place of each tensor,
    padded with blanks to eight bytes), then the numbers in that order.

    Args:
        path: the file.
        tensors: name -> tensor.
        streamed: name -> (shape, its rows in pieces).

    Raises:
        OSError: it cannot be written.
    """
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    shapes |= {name: shape for name, (shape, _) in streamed.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    with path.open("wb") as stream:
        stream.write(len(told).to_bytes(8, "little"))
        stream.write(told)
        for value in tensors.values():
            stream.write(value.contiguous().numpy().tobytes())
        for _, pieces in streamed.values():
            for piece in pieces:
                stream.write(piece.contiguous().numpy().tobytes())
