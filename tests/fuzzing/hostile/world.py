"""A tiny untrained model with words of many scripts: it reads anything, and answers anything."""

import string
from functools import cache
from pathlib import Path
from typing import Any

from hostile.scratch import scratch
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

SCRIPTS = (
    "àéîñöüßøłığ\u0131"
    "абвгдежзиклмнопрстя"
    "αβγδεικλμνοπρστω"
    "אבגדהושלםמ"
    "ابتحدرسصعفقكلمنهوي"
    "कखगतदनपमयरलवसह"
    "กขคงจ"
    "日本語中国人大学"
    "あいうえかきくさしすアイウエカキク"
    "\u1112\u1161\u11ab\u1100\u1173\u11af"
    "ａｂｃ１２３"  # noqa: RUF001
    "ﬁﬂﬀ"
    "𝒜𝐚𠮷"
)
"""Letters with a wordpiece of their own; others become [UNK], word by word."""
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}


@cache
def tokenizer() -> WordpieceTokenizer:
    """Return a tokenizer, uncased as BERT's."""
    letters = list(dict.fromkeys(string.ascii_lowercase + string.digits + SCRIPTS))
    words = ["the", "was", "born", "in", "library", "closes", "at", "eight", "when", "mask"]
    pieces = [*words, *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    return WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *dict.fromkeys(pieces)])


@cache
def packed_model() -> Path:
    """Write a model that retrieves, by vectors and by words, and reads; packed as it ships."""
    from realm.checkpoint.checkpoints import save_checkpoint
    from realm.exchange.packing import pack_run

    settings = {
        "question_wordpieces": 64,
        "joint_wordpieces": 128,
        "retriever": "hybrid",
        "lexical_weight": 0.5,
        "defaults": {"split": {"max_wordpieces": 40}},
    }
    save_checkpoint(scratch() / "whole", _model("embedder", "reader"), settings=settings, inputs={})
    return pack_run(scratch() / "whole", scratch() / "packed").folder


@cache
def encoder() -> Path:
    """Write a checkpoint that fills blanks."""
    settings = {"query_wordpieces": 64, "passage_wordpieces": 64, "joint_wordpieces": 128}
    from realm.checkpoint.checkpoints import save_checkpoint

    folder = scratch() / "encoder"
    save_checkpoint(folder, _model("embedder", "encoder"), settings=settings, inputs={})
    return folder


def open_realm(library: str) -> Any:
    """Return the model over an empty library of this name."""
    import realm

    return realm.load(packed_model(), library=scratch() / library, encoder=encoder())


def _model(*parts: str) -> Any:
    import torch

    from realm.checkpoint.parts import Model
    from realm.model.embedder import build_towers
    from realm.model.encoder import build_encoder
    from realm.model.reader import build_reader

    torch.manual_seed(0)
    bert = {**SHAPE, "vocab_size": tokenizer().vocab_size}
    towers = {"bert": bert, "projection_size": 16, "pooling": "mean", "share_towers": False}
    made: dict[str, Any] = {}
    if "embedder" in parts:
        made["towers"] = build_towers(towers).eval()
    if "encoder" in parts:
        made["encoder"] = build_encoder({"bert": bert}).eval()
    if "reader" in parts:
        reader = {"bert": bert, "span_hidden": 12, "max_answer_wordpieces": 5}
        made["reader"] = build_reader(reader).eval()
    return Model(tokenizer=tokenizer(), **made)
