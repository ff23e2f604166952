"""Each benchmark in its smallest form, on what the package ships; and what their figures mean."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Spread, Timings

from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import write_sources
from realm.corpus.store import PassageStore
from realm.device import CPU, has_quick_bfloat16

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def quick(name: str, folder: Path) -> dict[str, Any]:
    """Run a benchmark in its smallest form and return its results."""
    out = folder / f"{name}.json"
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--quick", "--work", folder, "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    content: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert content["quick"] is True
    return content


def figure(content: dict[str, Any], start: str) -> dict[str, Any]:
    return next(one for one in content["figures"] if one["what"].startswith(start))


def test_embedding(tmp_path: Path) -> None:
    content = quick("embedding", tmp_path)
    assert figure(content, "smallest cosine")["met"] is True
    is_quick = has_quick_bfloat16(CPU)
    peers = ["transformers padded", "sentence-transformers at"]
    peers += ["sentence-transformers in 16"] * is_quick
    assert all(figure(content, f"against {peer}")["value"] > 0 for peer in peers)
    bits = 16 if is_quick else 32
    assert 0 < figure(content, f"share of the rate of {bits}-bit products 2048")["value"] < 1.5
    assert content["settings"]["corpus"] == "the encyclopedia in the package"


@pytest.mark.slow
def test_training_step(tmp_path: Path) -> None:
    content = quick("training_step", tmp_path)
    assert figure(content, "loss, relative distance")["met"] is True
    assert figure(content, "gradient norm, relative distance")["met"] is True
    assert figure(content, "against transformers, whole")["value"] > 0
    assert min(told["bytes"] for steps in content["steps"].values() for told in steps) > 50 << 20


@pytest.mark.slow
def test_answering(tmp_path: Path) -> None:
    content = quick("answering", tmp_path)
    assert figure(content, "against all-MiniLM")["value"] > 0
    same = figure(content, "same answer as RealmForOpenQA")
    assert same["value"] == 1 or "no environment" in same["note"]


@pytest.mark.parametrize(("is_quick", "bits"), [(True, "bfloat16"), (False, "none")])
def test_the_reader_computes_in_the_bits_that_are_told(
    store: PassageStore,
    make_towers: Callable[..., Any],
    make_reader: Callable[..., Any],
    make_snapshot: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_quick: bool,
    bits: str,
) -> None:
    run, questions = tmp_path / "qa", tmp_path / "questions.jsonl"
    model = Model(tokenizer=store.tokenizer, towers=make_towers(), reader=make_reader())
    settings = {"question_wordpieces": 24, "joint_wordpieces": 96}
    save_checkpoint(checkpoint_folder(run, 3), model, settings=settings, inputs={})
    write_sources(run, store)
    questions.write_text('{"question": "Where was Fermat born?", "answers": ["Toulouse"]}\n' * 2)
    monkeypatch.setattr("realm.fine_tuned.has_quick_bfloat16", lambda _: is_quick)

    answering = importlib.import_module("answering")
    monkeypatch.setattr(answering, "default_model", lambda: run)
    opened = answering.open_answerer(store, make_snapshot(model.towers))
    assert opened.passage_reader.autocast == bits

    told = {"run": run, "questions": questions, "passages": None, "autocast": "auto"}
    told |= {"threads": 1, "limit": 1, "read": 2}
    measured = importlib.import_module("answer_latency").measure(argparse.Namespace(**told))
    assert measured.settings["autocast"] == bits


def test_a_round_is_whole_batches_of_each_third() -> None:
    draw_rounds = importlib.import_module("embedding").draw_rounds
    lengths = list(range(1000, 0, -1))  # of rows that are longest first
    rounds = draw_rounds(lengths, 5, 10)
    assert all(len(rows) == 30 for rows in rounds)
    for rows in rounds:
        batches = [rows[start : start + 10] for start in (0, 10, 20)]
        assert all(batch == list(range(batch[0], batch[0] - 10, -1)) for batch in batches)
        assert batches[0][0] > 660 >= batches[1][0] > 320 >= batches[2][0]
    assert len({tuple(rows) for rows in rounds}) == 5


def test_the_share_of_products_counts_operations_a_second() -> None:
    module = importlib.import_module("embedding")
    name, (rows, inner, columns) = next(iter(module.PRODUCTS.items()))
    product = 2 * rows * inner * columns * module.REPEATS
    timings = {other: Timings([1.0, 1.0], [1.0, 1.0]) for other in module.PRODUCTS}
    timings["ours"] = Timings([2.0, 4.0], [2.0, 4.0])
    found = module.share_of_products(timings, [product, product])
    assert found[0].what.endswith(name)
    assert found[0].value == Spread(0.375, 0.3125, 0.4375)  # between 1/2 and 1/4


def test_peers_that_embed_something_else_are_refused() -> None:
    module, torch = importlib.import_module("embedding"), importlib.import_module("torch")
    unit = torch.eye(3)
    engines = argparse.Namespace(
        exact=lambda rows: unit[: len(rows)], by_name={"a peer": lambda rows: unit[-len(rows) :]}
    )
    with pytest.raises(SystemExit, match="a peer embeds something else"):
        module.check_peers(engines, [0, 1])


def test_answers_are_compared_by_their_letters() -> None:
    letters = importlib.import_module("answering").letters
    assert letters("Saint-Étienne (1,200)") == letters("saint - Étienne ( 1 , 200 )")
    assert letters("Rome") != letters("Roma")
