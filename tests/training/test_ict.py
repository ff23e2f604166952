"""Inverse Cloze Task (section 3.4, ORQA section 5.1): which passage lost this sentence?"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.parts import tower_hash
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_records import read_metrics
from realm.config import EncoderConfig, IctConfig, OptimizerConfig, check
from realm.corpus.store import PassageStore
from realm.errors import ConfigError, CorpusError
from realm.model.inputs import pad
from realm.training import ict as stage
from realm.training.ict import IctJob, Pair, ict, start_towers
from realm.training.sampling import is_held_out

MakeStore = Callable[[Sequence[Mapping[str, str]]], PassageStore]


def config(**changed: Any) -> IctConfig:
    settings: dict[str, Any] = {
        "encoder": EncoderConfig(init="scratch:1x32"),
        "projection_size": 16,
        "steps": 4,
        "batch_size": 8,
        "autocast": "none",
        "dropout": 0.0,
        "held_out": 0.2,
        "threads": 1,
    }
    return IctConfig(**{**settings, **changed})


def job(store: PassageStore, **changed: Any) -> IctJob:
    settings = config(**changed)
    return IctJob(store, start_towers(store, settings), settings)


def many_pairs(of: IctJob, steps: int = 40) -> list[Pair]:
    return [pair for step in range(steps) for pair in of.pairs(step)]


def words(store: PassageStore, ids: list[int]) -> str:
    return store.tokenizer.decode([i for i in ids if i != store.tokenizer.cls_id])


def test_a_query_is_one_sentence_of_its_passage(store: PassageStore) -> None:
    drawn = Counter[str]()
    for pair in many_pairs(job(store)):
        passage = store[pair.row]
        sentences = [
            store.tokenizer.decode(store.tokenizer.encode(passage.text[start:end]).ids)
            for start, end in passage.sentences
        ]
        query = words(store, pair.query[0]).removesuffix(" [SEP]")
        assert query in sentences
        drawn[query] += 1
    assert len(drawn) > 30  # every sentence has its turn


def test_the_title_stands_with_the_passage_only(store: PassageStore) -> None:
    for pair in many_pairs(job(store), steps=3):
        title = store.title_wordpieces(pair.row).tolist()
        ids, segments = pair.passage
        assert ids[1 : 1 + len(title)] == title
        assert segments[: 2 + len(title)] == [0] * (2 + len(title))
        assert set(segments[2 + len(title) :]) == {1}
        assert set(pair.query[1]) == {0}


def test_a_removed_sentence_is_gone_and_the_rest_stays(store: PassageStore) -> None:
    removed = [pair for pair in many_pairs(job(store)) if pair.was_removed]
    assert removed
    for pair in removed:
        passage = store[pair.row]
        query = words(store, pair.query[0]).removesuffix(" [SEP]")
        body = words(store, pair.passage[0])
        assert query not in body
        for start, end in passage.sentences:
            other = store.tokenizer.decode(store.tokenizer.encode(passage.text[start:end]).ids)
            assert (other in body) == (other != query)


def test_a_kept_sentence_leaves_the_passage_whole(store: PassageStore) -> None:
    kept = [pair for pair in many_pairs(job(store)) if not pair.was_removed]
    assert kept
    for pair in kept:
        body = store.wordpieces(pair.row).tolist()
        assert pair.passage[0][-len(body) - 1 : -1] == body


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_sentences_are_removed_at_the_set_rate(store: PassageStore, rate: float) -> None:
    pairs = [
        pair
        for pair in many_pairs(job(store, remove_rate=rate), steps=80)
        if store.num_sentences(pair.row) > 1
    ]
    share = sum(pair.was_removed for pair in pairs) / len(pairs)
    assert share == pytest.approx(rate, abs=0.06)


def test_a_single_sentence_is_never_removed_and_learnt_from_only_when_kept(
    make_store: MakeStore,
) -> None:
    """ORQA: nothing would be left of the passage."""
    long = "The builder Arlo was born near the river. A street in Ulmer is named after Arlo."
    short = "The builder Arlo was born near the river."
    store = make_store(
        [
            {"id": f"{kind}{n}", "title": f"{kind} {n}", "text": text}
            for n in range(6)
            for kind, text in (("long", long), ("short", short))
        ]
    )
    drawn = many_pairs(job(store, held_out=0.0), steps=60)
    single = [pair for pair in drawn if store.num_sentences(pair.row) == 1]
    assert not any(pair.was_removed for pair in single)
    share = len(single) / (len(drawn) - len(single))
    assert share == pytest.approx(0.1, abs=0.06)  # 1 - remove_rate


def test_a_step_without_a_pair_changes_nothing(make_store: MakeStore) -> None:
    text = "The builder Arlo was born near the river. A street in Ulmer is named after Arlo."
    articles = [{"id": str(n), "title": f"t{n}", "text": text} for n in range(2)]
    single = "The builder Arlo was born there."
    articles += [{"id": f"s{n}", "title": f"single {n}", "text": single} for n in range(2)]
    alone = job(make_store(articles), held_out=0.0, batch_size=2, remove_rate=1.0)
    empty = next(step for step in range(100) if not alone.pairs(step))
    assert alone.step(empty) == {"loss": 0.0, "tokens": 0.0}
    assert all(p.grad is None for p in alone.towers.parameters())


def test_a_batch_without_negatives_is_refused() -> None:
    """The loss of one passage among one is 0 at every step."""
    with pytest.raises(ConfigError, match=r"batch_size: found 1.*greater than or equal to 2"):
        check(IctConfig, {"batch_size": 1}, section="ict")


def test_gradients_reach_both_towers(store: PassageStore) -> None:
    two = job(store, share_towers=False)
    two.step(0)
    for tower in (two.towers.query, two.towers.passage):
        gradient = tower.projection.weight.grad
        assert gradient is not None
        assert float(gradient.abs().sum()) > 0
    one = job(store, share_towers=True)
    one.step(0)
    shared = one.towers.query.projection.weight.grad
    together = [tower.projection.weight.grad for tower in (two.towers.query, two.towers.passage)]
    assert shared is not None
    assert together[0] is not None
    assert together[1] is not None
    torch.testing.assert_close(shared, together[0] + together[1])


def test_one_pass_over_the_batch_or_several_give_the_same_gradient(store: PassageStore) -> None:
    whole, parts = job(store), job(store, batch_tokens=64)
    assert whole.step(0)["loss"] == pytest.approx(parts.step(0)["loss"], rel=1e-5)
    for found, expected in zip(parts.towers.parameters(), whole.towers.parameters(), strict=True):
        if expected.grad is not None:
            assert found.grad is not None
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=5e-5)


def test_held_out_articles_are_never_trained_on(store: PassageStore, tmp_path: Path) -> None:
    trained = {store.title(pair.row) for pair in many_pairs(job(store))}
    held = {store.title(row) for row in range(len(store)) if is_held_out(store.title(row), 0.2)}
    assert held
    assert not trained & held
    ict(store, tmp_path / "run", config=config(steps=1))
    first = read_metrics(tmp_path / "run")[0]
    expected = [r for r in range(len(store)) if store.title(r) in held]
    assert first["eval/num_passages"] == sum(store.num_sentences(row) > 1 for row in expected)
    assert 0 <= first["eval/recall_at_1"] <= first["eval/recall_at_5"] <= 1


def test_the_loss_falls_and_the_sentence_finds_its_passage(
    store: PassageStore, tmp_path: Path
) -> None:
    report = ict(
        store,
        tmp_path / "run",
        config=config(
            steps=60, batch_size=16, optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=5)
        ),
    )
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert report.metrics["accuracy"] > 0.4  # chance: 1 in 16


@pytest.mark.parametrize("shared", [True, False])
def test_towers_are_one_or_two_as_set(
    store: PassageStore,
    tmp_path: Path,
    shared: bool,  # noqa: FBT001
) -> None:
    """Released code: one; the paper: two, which part at the first step."""
    ict(store, tmp_path / "run", config=config(steps=2, share_towers=shared))
    towers = load_model(tmp_path / "run").need_towers()
    assert towers.shared == shared
    assert (tower_hash(towers.query) == tower_hash(towers.passage)) == shared


def test_the_projection_starts_from_principal_components_or_at_random(
    store: PassageStore,
) -> None:
    components = start_towers(store, config()).query.projection.weight.detach()
    gram = components @ components.T
    off = gram - torch.diag(gram.diagonal())
    assert float(off.abs().max()) < 1e-4 * float(gram.diagonal().max())
    random = start_towers(store, config(projection_init="random")).query.projection.weight
    assert not torch.allclose(random, components)


def test_a_text_scores_the_set_scale_with_itself_at_first(store: PassageStore) -> None:
    started = job(store, initial_score_scale=7.0)
    started.towers.eval()
    pair = started.pairs(0)[0]
    with torch.no_grad():
        vector = started.towers.query(pad([pair.query], store.tokenizer.pad_id))
    assert float(vector @ vector.T) == pytest.approx(7.0, rel=0.01)


def test_a_corpus_of_single_sentences_is_refused_and_leaves_no_run(
    make_store: MakeStore, tmp_path: Path
) -> None:
    articles = [
        {"id": str(n), "title": f"t{n}", "text": "The builder Arlo was born there."}
        for n in range(3)
    ]
    with pytest.raises(CorpusError, match="needs at least 2"):
        ict(make_store(articles), tmp_path / "run", config=config())
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_is_nowhere_is_told(store: PassageStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no encoder"):
        ict(
            store,
            tmp_path / "run",
            config=config(encoder=EncoderConfig(init=str(tmp_path / "gone"))),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["query_wordpieces", "passage_wordpieces"])
def test_inputs_longer_than_the_encoder_reads_are_refused_and_leave_no_run(
    store: PassageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = load_pretrained(config().encoder, tokenizer=store.tokenizer)
    short = replace(found, settings={**found.settings, "max_position_embeddings": 64})
    monkeypatch.setattr(stage, "load_pretrained", lambda *_, **__: short)
    settings = config(**{"query_wordpieces": 64, "passage_wordpieces": 64, name: 65})
    with pytest.raises(ConfigError, match=f"{name}=65, expected at most 64 wordpieces"):
        ict(store, tmp_path / "run", config=settings)
    assert not (tmp_path / "run").exists()
