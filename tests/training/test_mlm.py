"""The encoder's warm start: copy, read and guess."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_records import read_metrics
from realm.config import EncoderConfig, MaskConfig, MlmConfig, OptimizerConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.storage import MANIFEST, read_json
from realm.training import mlm as stage
from realm.training.mlm import mlm
from realm.training.mlm_job import GUESS_AMONG_READ, MaskedReading, MlmJob, window
from realm.training.sampling import is_held_out

SCRATCH = EncoderConfig(init="scratch:1x32")


def config(**changed: Any) -> MlmConfig:
    settings: dict[str, Any] = {
        "encoder": SCRATCH,
        "steps": 3,
        "batch_size": 10,
        "autocast": "none",
        "dropout": 0.0,
        "held_out": 0.2,
        "threads": 1,
    }
    return MlmConfig(**{**settings, **changed})


def job(store: PassageStore, examples: ExampleStore | None, **changed: Any) -> MlmJob:
    torch.manual_seed(0)
    encoder = load_pretrained(SCRATCH, tokenizer=store.tokenizer).build_encoder()
    return MlmJob(store, examples, encoder, config(**changed))


def many(of: MlmJob, steps: int = 60) -> list[MaskedReading]:
    return [reading for step in range(steps) for reading in of.readings(step)]


def sentence_of(reading: MaskedReading, store: PassageStore) -> list[int]:
    """Return the sentence's wordpieces as they were before masking."""
    ids, segments = reading.ids
    ids = list(ids)
    for place, target in zip(reading.positions, reading.targets, strict=True):
        assert ids[place] == store.tokenizer.mask_id
        ids[place] = target
    return ids[1 : segments.index(1) - 1]


def body_of(reading: MaskedReading) -> list[int]:
    ids, segments = reading.ids
    return ids[segments.index(1) : -1]


def holds(body: Sequence[int], sentence: Sequence[int]) -> bool:
    size = len(sentence)
    return any(list(body[i : i + size]) == list(sentence) for i in range(len(body) - size + 1))


def shares(of: MlmJob, store: PassageStore) -> dict[str, float]:
    counts = {"copy": 0, "read": 0, "guess": 0}
    readings = many(of)
    for reading in readings:
        body = body_of(reading)
        if not body:
            counts["guess"] += 1
        else:
            counts["copy" if holds(body, sentence_of(reading, store)) else "read"] += 1
    return {name: count / len(readings) for name, count in counts.items()}


def test_copy_read_and_guess_have_their_shares(store: PassageStore, examples: ExampleStore) -> None:
    found = shares(job(store, examples, copy_rate=0.3, read_rate=0.5, batch_size=10), store)
    assert found["read"] == pytest.approx(0.5 * (1 - GUESS_AMONG_READ), abs=0.05)
    assert found["copy"] == pytest.approx(0.3, abs=0.06)
    assert found["guess"] == pytest.approx(0.2 + 0.5 * GUESS_AMONG_READ, abs=0.06)


def test_shares_of_more_than_the_whole_are_refused_where_there_is_something_to_read(
    store: PassageStore, examples: ExampleStore, tmp_path: Path
) -> None:
    """Else fewer were copied than asked for, and none guessed, unsaid."""
    greedy = config(copy_rate=0.7, read_rate=0.5, steps=1)
    with pytest.raises(ConfigError, match=r"copy_rate=0.7 and read_rate=0.5.*at most 1"):
        mlm(store, tmp_path / "run", config=greedy, examples=examples)
    assert not (tmp_path / "run").exists()
    mlm(store, tmp_path / "without", config=greedy)


def test_without_examples_nothing_is_read(store: PassageStore) -> None:
    found = shares(job(store, None, copy_rate=0.4, read_rate=0.4), store)
    assert found["read"] == 0.0
    assert found["copy"] == pytest.approx(0.4, abs=0.06)


def test_a_read_passage_holds_the_span_but_not_the_sentence(
    store: PassageStore, examples: ExampleStore
) -> None:
    only = job(store, examples, read_rate=1.0, copy_rate=0.0, side_mask_rate=0.0)
    read = [reading for reading in many(only, 20) if body_of(reading)]
    assert read
    for reading in read:
        body = body_of(reading)
        assert not holds(body, sentence_of(reading, store))
        assert holds(body, reading.targets)


def test_side_targets_are_masked_beside_the_span(
    store: PassageStore, examples: ExampleStore
) -> None:
    def masked(rate: float) -> float:
        of = job(store, examples, read_rate=1.0, copy_rate=0.0, side_mask_rate=rate)
        readings = many(of, 20)
        pieces = sum(len(sentence_of(reading, store)) for reading in readings)
        return sum(len(reading.targets) for reading in readings) / pieces

    assert masked(0.3) - masked(0.0) == pytest.approx(0.3 * (1 - masked(0.0)), abs=0.05)


def test_sentences_are_masked_at_the_set_rate_in_short_spans(store: PassageStore) -> None:
    readings = many(job(store, None, mask_rate=0.3))
    pieces = sum(len(sentence_of(reading, store)) for reading in readings)
    assert 0.3 <= sum(len(reading.targets) for reading in readings) / pieces < 0.42
    for reading in readings:
        assert reading.positions == sorted(set(reading.positions))


def test_held_out_articles_are_never_trained_on(
    store: PassageStore, examples: ExampleStore
) -> None:
    of = job(store, examples)
    held = {row for row in range(len(store)) if is_held_out(store.title(row), 0.2)}
    assert held
    assert not held & set(of.train_rows)
    assert not held & {pair.origin for pair in of.pairs}
    assert set(of.eval_rows) <= held
    assert {pair.origin for pair in of.eval_pairs} <= held

    def sentences(rows: Iterable[int]) -> set[tuple[int, ...]]:
        return {
            tuple(store.tokenizer.encode(store[row].text[start:end]).ids)
            for row in rows
            for start, end in store[row].sentences
        }

    drawn = {tuple(sentence_of(reading, store)) for reading in many(of)}
    assert not drawn & (sentences(held) - sentences(of.train_rows))


def test_groups_of_a_batch_give_the_gradient_of_the_whole(
    store: PassageStore, examples: ExampleStore
) -> None:
    whole, parts = job(store, examples), job(store, examples, batch_tokens=64)
    assert whole.step(0)["loss"] == pytest.approx(parts.step(0)["loss"], rel=1e-5)
    for found, expected in zip(parts.encoder.parameters(), whole.encoder.parameters(), strict=True):
        if expected.grad is not None:
            assert found.grad is not None
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-6)


def test_the_loss_falls(store: PassageStore, examples: ExampleStore, tmp_path: Path) -> None:
    mlm(
        store,
        tmp_path / "run",
        config=config(
            steps=60, batch_size=8, optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=5)
        ),
        examples=examples,
    )
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_each_task_is_measured_on_its_own(
    store: PassageStore, examples: ExampleStore, tmp_path: Path
) -> None:
    report = mlm(store, tmp_path / "run", config=config(), examples=examples)
    for task in ("read", "guess", "copy", "dense_guess"):
        assert 0 <= report.metrics[f"eval/{task}_accuracy"] <= 1
        assert report.metrics[f"eval/{task}_loss"] > 0
    encoder = load_model(tmp_path / "run").need_encoder()
    assert encoder.bert.config.vocab_size == store.tokenizer.vocab_size


def test_a_batch_of_short_sentences_takes_a_long_one_from_elsewhere(
    make_store: Any,
) -> None:
    """A run must not die on the way because one draw was unlucky."""
    texts = ["The builder Arlo was born near the river in Tarvik.", *["Arlo made it."] * 5]
    store = make_store([{"id": str(n), "title": f"t{n}", "text": t} for n, t in enumerate(texts)])
    drawn = many(job(store, None, batch_size=1, held_out=0.0), 12)
    assert len(drawn) == 12
    assert {tuple(sentence_of(reading, store)) for reading in drawn} == {
        tuple(store.wordpieces(0).tolist())
    }


def test_a_corpus_of_short_sentences_is_refused(
    make_store: Any,
    tmp_path: Path,
) -> None:
    store = make_store([{"id": "0", "title": "t", "text": "Arlo made it."}])
    with pytest.raises(CorpusError, match="no sentence of 8 wordpieces"):
        mlm(store, tmp_path / "run", config=config())


def test_examples_of_other_passages_are_refused(
    make_store: Any,
    examples: ExampleStore,
    tmp_path: Path,
) -> None:
    other = make_store([{"id": "0", "title": "t", "text": "The builder Arlo was born in Tarvik."}])
    with pytest.raises(ConfigError, match="masked from other passages"):
        mlm(other, tmp_path / "run", config=config(), examples=examples)
    assert not (tmp_path / "run").exists()


def test_examples_longer_than_the_run_reads_are_refused(
    store: PassageStore, examples: ExampleStore, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="query_wordpieces"):
        mlm(store, tmp_path / "run", config=config(query_wordpieces=16), examples=examples)


def test_random_masks_serve_for_copying_only(store: PassageStore, tmp_path: Path) -> None:
    mask(store, tmp_path / "examples", config=MaskConfig(scheme="span", query_wordpieces=32))
    of = job(store, ExampleStore.open(tmp_path / "examples"))
    assert of.pairs == []
    assert shares(of, store)["read"] == 0.0


@pytest.mark.parametrize(
    ("init", "has_weights", "has_head", "expected"),
    [
        ("ridge", True, False, 1),
        ("ridge", True, True, 0),
        ("ridge", False, False, 0),
        ("random", True, False, 0),
    ],
)
def test_the_ridge_head_is_for_encoders_that_come_without_one(
    store: PassageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    init: str,
    has_weights: bool,  # noqa: FBT001
    has_head: bool,  # noqa: FBT001
    expected: int,
) -> None:
    calls: list[int] = []
    pretrained = load_pretrained(SCRATCH, tokenizer=store.tokenizer)
    encoder = pretrained.build_encoder()
    known = type(pretrained)(
        settings=pretrained.settings,
        weights=dict(encoder.bert.state_dict()) if has_weights else {},
        head=dict(encoder.head.state_dict()) if has_head else {},
        fingerprint="known",
    )
    monkeypatch.setattr(stage, "load_pretrained", lambda *_, **__: known)
    monkeypatch.setattr(stage, "init_head", lambda *_: calls.append(1))
    mlm(store, tmp_path / "run", config=config(steps=1, head_init=init))
    assert len(calls) == expected


def test_a_run_from_another_head_is_another_run(
    store: PassageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints may differ in their head alone, and this stage trains it."""
    pretrained = load_pretrained(SCRATCH, tokenizer=store.tokenizer)
    encoder = pretrained.build_encoder()
    bert, head = dict(encoder.bert.state_dict()), dict(encoder.head.state_dict())

    def start_from(bias: float) -> None:
        moved = {**head, "bias": torch.full_like(head["bias"], bias)}
        known = replace(pretrained, weights=bert, head=moved)
        monkeypatch.setattr(stage, "load_pretrained", lambda *_, **__: known)

    run = tmp_path / "run"
    start_from(0.0)
    mlm(store, run, config=config(steps=1))
    assert mlm(store, run, config=config(steps=1)).already_done
    start_from(1.0)
    with pytest.raises(ArtifactError, match="other input head"):
        mlm(store, run, config=config(steps=1))


def test_a_run_without_a_head_to_start_from_names_none(store: PassageStore, tmp_path: Path) -> None:
    """Runs from minilm or from scratch are those that they were."""
    mlm(store, tmp_path / "run", config=config(steps=1))
    inputs = read_json(tmp_path / "run" / MANIFEST)["inputs"]
    assert set(inputs) == {"passages", "encoder"}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 40), st.randoms())
def test_a_window_holds_what_the_passage_is_read_for(
    body: list[int], size: int, random: Random
) -> None:
    start = random.randrange(len(body))
    wanted = body[start : start + random.randint(1, size)]
    found = window(body, wanted, size, np.random.default_rng(random.randrange(100)))
    assert len(found) == min(size, len(body))
    assert holds(body, found)
    assert holds(found, wanted)


def test_a_window_starts_anywhere_where_nothing_is_looked_for() -> None:
    body = list(range(20))
    starts = {window(body, [99], 15, np.random.default_rng(seed))[0] for seed in range(60)}
    assert starts == set(range(6))


def test_passages_are_read_through_a_window(store: PassageStore, examples: ExampleStore) -> None:
    only = job(store, examples, window=16, read_rate=1.0, copy_rate=0.0, side_mask_rate=0.0)
    readings = many(only, 20)
    bodies = [body_of(reading) for reading in readings]
    assert max(len(body) for body in bodies) == 16
    for reading, body in zip(readings, bodies, strict=True):
        assert not body or holds(body, reading.targets)


def test_sentence_and_passage_together_are_no_longer_than_the_encoder_reads(
    make_store: Callable[..., PassageStore],
) -> None:
    """Each may have its length: the passage gives way."""
    text = " ".join(f"The people of Tarvik keep the lantern of {year}." for year in range(60))
    store = make_store([{"id": "long", "title": "", "text": text}], max_wordpieces=510)
    long = job(store, None, copy_rate=1.0, window=512, passage_wordpieces=512, held_out=0.0)
    readings = many(long, 2)
    assert max(len(reading.ids[0]) for reading in readings) == 512
    for reading in readings:
        assert sentence_of(reading, store)  # every mask stands where it is looked for
    assert long.step(0)["loss"] > 0


@pytest.mark.parametrize("room", [{"passage_wordpieces": 16}, {"window": 510}])
def test_what_a_passage_is_read_for_is_not_cut_off_where_there_is_less_room_than_a_window(
    make_store: Callable[..., PassageStore], room: dict[str, int]
) -> None:
    text = " ".join(f"The people of Tarvik keep the lantern of {year}." for year in range(60))
    store = make_store([{"id": "long", "title": "", "text": text}], max_wordpieces=510)
    narrow = job(store, None, query_wordpieces=32, copy_rate=1.0, held_out=0.0, **room)
    readings = many(narrow, 20)
    assert all(holds(body_of(reading), sentence_of(reading, store)) for reading in readings)
    assert max(len(r.ids[0]) for r in readings) == 32 + narrow.config.passage_wordpieces


def test_a_sentence_as_long_as_the_encoder_reads_is_refused_and_leaves_no_run(
    store: PassageStore, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"query_wordpieces=512, expected at most 511"):
        mlm(store, tmp_path / "run", config=config(query_wordpieces=512))
    assert not (tmp_path / "run").exists()
