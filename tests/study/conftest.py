"""A study on two dozen articles of the encyclopedia, with models that train in seconds."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm import encyclopedia
from realm.study.run import StudyInputs
from realm.study.settings import StudySettings
from realm.tokenizer import SPECIAL_TOKENS

NUM_ARTICLES = 24
TRAIN = """
steps = 2
batch_size = 4
threads = 1
held_out = 0.1
save_every_steps = 1
eval_every_steps = 2
"""
SETTINGS = f"""
[study]
compare = [["a", "d"], ["a", "e"]]
recall_at = [1, 5]
bootstrap_samples = 100

[split]
max_wordpieces = 64

[ict]{TRAIN}
encoder = {{ init = "scratch:1x32" }}
projection_size = 16

[mlm]{TRAIN}
encoder = {{ init = "scratch:1x32" }}
window = 24

[pretrain]{TRAIN}
num_candidates = 3
num_eval_examples = 4
refresh = {{ mode = "sync", every_steps = 1, max_staleness_steps = 2, audit_passages = 0 }}

[finetune]{TRAIN}
num_passages = 2
retriever_beam = 10
span_hidden = 8

[evaluate]
bootstrap_samples = 100

[rows.a]
label = "whole"
seeds = [0, 1]
paper_recall_at_5 = 38.5
paper_exact_match = 38.2

[rows.b]
label = "retriever alone"
encoder = "start"
pretrained_as = "a"

[rows.c]
label = "encoder alone"
retriever = "start"
pretrained_as = "a"

[rows.d]
label = "warm start alone"
retriever = "start"
encoder = "start"

[rows.e]
label = "random tokens"
mask = {{ scheme = "token" }}

[rows.h]
label = "never refreshed"
pretrain = {{ refresh = {{ mode = "off" }} }}
"""
MakeSettings = Callable[..., StudySettings]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("settings") / "study.toml"
    file.write_text(SETTINGS, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StudyInputs:
    folder = tmp_path_factory.mktemp("encyclopedia")
    lines = encyclopedia.articles_file().read_text(encoding="utf-8").splitlines(keepends=True)
    sources: dict[str, Any] = {
        "articles": lines[:NUM_ARTICLES],
        "others": lines[NUM_ARTICLES : 2 * NUM_ARTICLES],
    }
    for split, count in (("train", 8), ("test", 6)):
        asked = encyclopedia.questions_file(split).read_text(encoding="utf-8")  # type: ignore[arg-type]
        sources[split] = asked.splitlines(keepends=True)[:count]
    for name, kept in sources.items():
        (folder / f"{name}.jsonl").write_text("".join(kept), encoding="utf-8")
    words = sorted(set(re.findall(r"[a-z]+|[^\sa-z]", "".join(lines).lower())))
    pieces = dict.fromkeys([*SPECIAL_TOKENS, *words])
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return StudyInputs(
        passages=(folder / "articles.jsonl",),
        also=folder / "others.jsonl",
        train=folder / "train.jsonl",
        dev=folder / "test.jsonl",
        tokenizer=str(vocabulary),
    )
