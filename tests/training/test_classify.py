"""Fine-tuning on claims: labels that only the right passage tells, and what learns from them."""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from realm.checkpoint.checkpoints import load_model, tower_hash
from realm.checkpoint.run_folder import TrainReport
from realm.checkpoint.sources import CLASSIFY, passages_of, task_of
from realm.classifying import ClaimClassifier
from realm.config import ClassifyConfig, OptimizerConfig, SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ConfigError, CorpusError
from realm.index.snapshot import Snapshot
from realm.model.classifier import label_logits
from realm.model.likelihood import label_log_likelihood
from realm.records import Claim
from realm.retrieval.reading import joint_inputs
from realm.storage import fingerprint
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer
from realm.training.classify import classify
from realm.training.classify_job import ClassifyJob

NAMES = [a + b + c for a in ("ba", "do", "fi", "gu") for b in "klmn" for c in ("an", "es", "or")]
DEEDS = {"true": "kept every promise", "false": "broke every promise"}
AssertSameRun = Callable[[Path, Path], None]


def told(seed: int = 0) -> dict[str, str]:
    """Return name -> label, half of them true."""
    chance = random.Random(seed)
    labels = ["true", "false"] * (len(NAMES) // 2)
    chance.shuffle(labels)
    return dict(zip(NAMES, labels, strict=True))


def articles(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """A passage each: nothing but its words says which label a name has."""
    return [
        {"id": name, "title": name, "text": f"Can you trust {name}. {name} {DEEDS[label]}."}
        for name, label in labels.items()
    ]


def claims_of(labels: Mapping[str, str]) -> list[Claim]:
    return [
        Claim(id=name, claim=f"you can trust {name}", label=label) for name, label in labels.items()
    ]


def write_store(folder: Path, labels: Mapping[str, str]) -> PassageStore:
    words = re.findall(r"\w+|[.]", " ".join(a["text"] for a in articles(told()))) 
    pieces = dict.fromkeys([*SPECIAL_TOKENS, *sorted(words), "you", "can", "trust", *"abcdefghijklmnopqrstuvwxyz"])
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(article) + "\n" for article in articles(labels))
    (folder / "articles.jsonl").write_text(lines, encoding="utf-8")
    tokenizer = WordpieceTokenizer.from_vocabulary(list(pieces))
    config = SplitConfig(max_wordpieces=48)
    split([folder / "articles.jsonl"], folder / "out", config=config, tokenizer=tokenizer)
    return PassageStore.open(folder / "out")
