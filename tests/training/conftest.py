"""A made-up world of a few dozen passages, and models small enough to train in a test."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import find_checkpoint, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.pretrained import load_pretrained
from realm.config import EncoderConfig, SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.model.bert import build_bert
from realm.model.embedder import Embedder, Towers
from realm.model.encoder import build_encoder
from realm.storage import MANIFEST
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

SCRATCH = EncoderConfig(init="scratch:1x32")
TIME_FIELDS = {"step_seconds", "tokens_per_second"}

FIRST = "Arlo Bexa Cimo Dule Efra Fipo Goma Hilu Iven Jora Kemo Luri".split()  # noqa: SIM905
TOWNS = "Tarvik Ulmer Vosta Welan Xandu Yprem".split()  # noqa: SIM905
THINGS = "lantern compass bridge clock sail mirror".split()  # noqa: SIM905


def world() -> list[dict[str, str]]:
    """Twelve people, each with an article of two or three passages."""
    articles: list[dict[str, str]] = []
    for number, name in enumerate(FIRST):
        town, other = TOWNS[number % 6], TOWNS[(number + 1) % 6]
        thing, year = THINGS[number % 6], 1900 + 3 * number
        text = (
            f"The builder {name} was born near the river in {town} in the year {year}. "
            f"As a child {name} made a {thing} out of wood and copper in {town}. "
            f"The people of {town} still keep that {thing} in the old hall. "
            f"In {year + 30} the builder {name} moved from {town} to the hills of {other}. "
            f"There {name} taught how to make a {thing} until the year {year + 50}. "
            f"A street in {other} is named after the builder {name} and the {thing}."
        )
        articles.append({"id": f"a{number}", "title": f"{name} of {town}", "text": text})
    return articles


MakeStore = Callable[..., PassageStore]
AssertSameRun = Callable[[Path, Path], None]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> WordpieceTokenizer:
    words = {
        word for article in world() for word in re.findall(r"\w+|[.]", article["text"].lower())
    }
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*sorted(words), *letters, *(f"##{letter}" for letter in letters)]
    return WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *dict.fromkeys(pieces)])


@pytest.fixture(scope="session")
def make_store(
    tokenizer: WordpieceTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> MakeStore:
    """Split articles, two or three sentences to a passage."""

    def make(articles: Sequence[Mapping[str, str]], *, max_wordpieces: int = 48) -> PassageStore:
        folder = tmp_path_factory.mktemp("passages")
        lines = "".join(json.dumps(article) + "\n" for article in articles)
        (folder / "articles.jsonl").write_text(lines, encoding="utf-8")
        config = SplitConfig(max_wordpieces=max_wordpieces)
        split([folder / "articles.jsonl"], folder / "out", config=config, tokenizer=tokenizer)
        return PassageStore.open(folder / "out")

    return make


@pytest.fixture(scope="session")
def store(make_store: MakeStore) -> PassageStore:
    return make_store(world())


@pytest.fixture(scope="session")
def examples(store: PassageStore, make_examples: Callable[..., ExampleStore]) -> ExampleStore:
    return make_examples(store)


@pytest.fixture(scope="session")
def start(store: PassageStore, make_start: Callable[..., dict[str, Path]]) -> dict[str, Path]:
    return make_start(store)


@pytest.fixture
def make_short(tmp_path: Path) -> Callable[[PassageStore], dict[str, Path]]:
    """Write a start whose towers and encoder have 64 positions."""

    def make(store: PassageStore) -> dict[str, Path]:
        pretrained = load_pretrained(SCRATCH, tokenizer=store.tokenizer)
        bert = {**pretrained.settings, "max_position_embeddings": 64}
        towers = Towers(Embedder(build_bert(bert), projection_size=16, pooling="mean"))
        parts = {
            "embedder": Model(tokenizer=store.tokenizer, towers=towers),
            "encoder": Model(tokenizer=store.tokenizer, encoder=build_encoder({"bert": bert})),
        }
        for name, model in parts.items():
            save_checkpoint(tmp_path / name, model, settings={}, inputs={})
        return {name: tmp_path / name for name in parts}

    return make


@pytest.fixture
def assert_same_run() -> AssertSameRun:
    """Compare what two runs left behind, bit for bit; times aside."""

    def check(found: Path, expected: Path) -> None:
        ends = [find_checkpoint(run) for run in (found, expected)]
        names = sorted(path.name for path in ends[1].iterdir())
        assert sorted(path.name for path in ends[0].iterdir()) == names
        for name in names:
            assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), name
        assert logged(found) == logged(expected)
        contents = [json.loads((run / MANIFEST).read_text()) for run in (found, expected)]
        assert contents[0]["fingerprint"] == contents[1]["fingerprint"]
        ended = [untimed(content["content"]["metrics"]) for content in contents]
        assert ended[0] == ended[1]

    return check


def untimed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in TIME_FIELDS}


def logged(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [untimed(json.loads(line)) for line in lines]
