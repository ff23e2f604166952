"""The old Hugging Face layout of REALM: its config.json, and which weight is called what.

Five classes (six kinds of checkpoint: a scorer has one tower or two). Each consists of our
modules under other names:

    RealmEmbedder           one tower
    RealmScorer             query_embedder (questions), embedder (passages); equal when shared
    RealmKnowledgeAugEncoder    the encoder
    RealmReader             the reader
    RealmForOpenQA          embedder (the question tower), reader, block_emb (passages' embeddings)

The port was added to transformers in 4.16 and removed in 5.0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers.activations import ACT2FN

from realm.errors import ConfigError
from realm.model.bert import PADDING_ROW
from realm.storage import read_json

Kind = Literal[
    "RealmEmbedder", "RealmScorer", "RealmKnowledgeAugEncoder", "RealmReader", "RealmForOpenQA"
]
KINDS: tuple[Kind, ...] = (
    "RealmEmbedder",
    "RealmScorer",
    "RealmKnowledgeAugEncoder",
    "RealmReader",
    "RealmForOpenQA",
)
PASSAGE_VECTORS = "block_emb"
LARGEST = 1 << 24
"""No size of a real BERT is greater; a damaged config.json may say anything."""
EMBEDDER_NAMES = {"bert.": "realm.", "projection.": "cls.dense.", "norm.": "cls.LayerNorm."}
ENCODER_NAMES = {
    "bert.": "realm.",
    "head.dense.": "cls.predictions.transform.dense.",
    "head.norm.": "cls.predictions.transform.LayerNorm.",
    "head.bias": "cls.predictions.bias",
}
READER_NAMES = {
    "bert.": "realm.",
    "projection.": "qa_outputs.dense_intermediate.",
    "norm.": "qa_outputs.layer_normalization.",
    "score.": "qa_outputs.dense_output.",
}
"""Start of a name here -> start of the same name there."""


class OldConfig(BaseModel):
    """What of an old config.json means something; defaults are the port's."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    architectures: tuple[str, ...] = ()
    model_type: str = "realm"
    position_embedding_type: str = "absolute"
    vocab_size: int = Field(default=30_522, ge=1, le=LARGEST)
    hidden_size: int = Field(default=768, ge=1, le=LARGEST)
    num_hidden_layers: int = Field(default=12, ge=1, le=1_000)
    num_attention_heads: int = Field(default=12, ge=1)
    intermediate_size: int = Field(default=3_072, ge=1, le=LARGEST)
    hidden_act: str = "gelu_new"
    max_position_embeddings: int = Field(default=512, ge=8, le=LARGEST)
    type_vocab_size: int = Field(default=2, ge=2, le=LARGEST)
    layer_norm_eps: float = Field(default=1e-12, gt=0)
    """Also of the embedder's last layer norm, where the authors' code has 1e-3."""
    initializer_range: float = Field(default=0.02, gt=0)
    pad_token_id: int = Field(default=1, ge=0)
    """A row that never learns; not the tokenizer's [PAD], which is 0."""
    retriever_proj_size: int = Field(default=128, ge=1, le=LARGEST)
    num_candidates: int = Field(default=8, ge=1)
    span_hidden_size: int = Field(default=256, ge=1, le=LARGEST)
    max_span_width: int = Field(default=10, ge=1)
    reader_layer_norm_eps: float = Field(default=1e-3, gt=0)
    reader_beam_size: int = Field(default=5, ge=1)
    reader_seq_len: int = Field(default=320, ge=16)
    num_block_records: int = Field(default=13_353_718, ge=0)
    searcher_beam_size: int = Field(default=5_000, ge=1)

    @property
    def bert(self) -> dict[str, Any]:
        """Settings for `build_bert`."""
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            PADDING_ROW: self.pad_token_id,
        }

    def towers(self, *, share_towers: bool) -> dict[str, Any]:
        """Settings for `build_towers`."""
        return {
            "bert": self.bert,
            "projection_size": self.retriever_proj_size,
            "pooling": "pooler",
            "norm_eps": self.layer_norm_eps,
            "share_towers": share_towers,
        }

    @property
    def reader(self) -> dict[str, Any]:
        """Settings for `build_reader`."""
        return {
            "bert": self.bert,
            "span_hidden": self.span_hidden_size,
            "max_answer_wordpieces": self.max_span_width,
            "norm_eps": self.reader_layer_norm_eps,
        }

    @property
    def joint_wordpieces(self) -> int:
        """Longest input of the reader."""
        return min(self.reader_seq_len, self.max_position_embeddings)

    @property
    def question_wordpieces(self) -> int:
        """Longest question: half of what the reader reads, so that passages alone are ever cut."""
        return max(8, self.joint_wordpieces // 2)


def read_config(folder: Path) -> tuple[Kind, OldConfig]:
    """Return the class and the settings of a checkpoint in the old layout.

    Raises:
        ConfigError: no config.json there, or one of another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no config.json; expected a checkpoint in the old Hugging Face layout "
            "(config.json, weights, vocab.txt)"
        )
    told = read_json(path)
    kind = _kind(path, told)  # first: another model's settings are not to be explained
    try:
        config = OldConfig.model_validate(told)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: found {item['input']!r}, {item['msg']}"
            for item in error.errors()
        )
        raise ConfigError(f"{path}: {wrong}") from None
    _check(path, config)
    return kind, config


def _kind(path: Path, told: Mapping[str, Any]) -> Kind:
    model_type, found = told.get("model_type", "realm"), told.get("architectures")
    names = cast("list[object]", found) if isinstance(found, list) else [found]
    kinds: list[Kind] = [kind for kind in KINDS if kind in names]
    if model_type != "realm" or len(kinds) != 1:
        raise ConfigError(
            f"{path} is of a {model_type!r} model with architectures {names!r:.200}, expected "
            f"'realm' and one of {', '.join(KINDS)}; a plain BERT is no REALM checkpoint, start "
            "from it with `realm ict --init FOLDER`"
        )
    return kinds[0]


def _check(path: Path, config: OldConfig) -> None:
    if config.position_embedding_type != "absolute":
        raise ConfigError(
            f"{path}: found position_embedding_type={config.position_embedding_type!r}, expected "
            "'absolute': today's BERT has no relative positions, and no published REALM uses them"
        )
    if config.hidden_act not in ACT2FN:
        raise ConfigError(
            f"{path}: found hidden_act={config.hidden_act!r}, expected an activation that "
            "transformers knows, such as 'gelu_new'"
        )
    if config.pad_token_id >= config.vocab_size:
        raise ConfigError(
            f"{path}: found pad_token_id={config.pad_token_id}, expected less than "
            f"vocab_size={config.vocab_size}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"{path}: found hidden_size={config.hidden_size} and "
            f"num_attention_heads={config.num_attention_heads}, expected a multiple"
        )


def their_name(ours: str, names: Mapping[str, str]) -> str:
    """Return what the old layout calls one of our weights, without the prefix of its part.

    Args:
        ours: name in our module's state.
        names: EMBEDDER_NAMES, ENCODER_NAMES or READER_NAMES.
    """
    start = next(start for start in names if ours.startswith(start))
    return names[start] + ours.removeprefix(start)
