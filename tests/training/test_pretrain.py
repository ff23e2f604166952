"""Joint pre-training: what is read, what learns, and when the index is fresh."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import load_model, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_records import read_metrics
from realm.checkpoint.sources import passages_of
from realm.config import (
    EncoderConfig,
    IndexConfig,
    MaskConfig,
    OptimizerConfig,
    PretrainConfig,
    RefreshConfig,
)
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.masking.taggers import Tagger
from realm.model.likelihood import marginal_log_likelihood
from realm.refresh.sync import SyncRefresher
from realm.retrieval.candidates import NULL_ROW
from realm.tokenizer import WordpieceTokenizer
from realm.training.pretrain import check_candidates, pretrain
from realm.training.pretrain_job import PretrainJob

MakeShort = Callable[[PassageStore], dict[str, Path]]
MakeJob = Callable[..., PretrainJob]


def config(**changed: Any) -> PretrainConfig:
    settings: dict[str, Any] = {
        "steps": 4,
        "batch_size": 4,
        "num_candidates": 4,
        "autocast": "none",
        "dropout": 0.0,
        "held_out": 0.2,
        "num_eval_examples": 6,
        "threads": 1,
        "eval_every_steps": 100,
        "refresh": RefreshConfig(mode="sync"),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
    }
    return PretrainConfig(**{**settings, **changed})


@pytest.fixture
def make_job(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> MakeJob:
    """Return a job that stands before step 0, its index fresh."""

    def make(**changed: Any) -> PretrainJob:
        settings = config(**changed)
        refresher = SyncRefresher(
            tmp_path / "job",
            store,
            config=settings.refresh,
            index=IndexConfig(autocast=settings.autocast),
        )
        towers = load_model(start["embedder"]).need_towers()
        encoder = load_model(start["encoder"]).need_encoder()
        job = PretrainJob(examples, towers, encoder, refresher, settings)
        job.before_step(0)
        return job

    return make


def steps_of(run: Path, name: str) -> list[float]:
    return [line[name] for line in read_metrics(run) if name in line]


def test_the_null_passage_comes_first_and_the_own_passage_never(make_job: MakeJob) -> None:
    """Section 3.4: "Null document" and "Prohibiting trivial retrievals"."""
    job = make_job()
    for step in range(6):
        drawn = job.sampler.batch(step, 4)
        rows, stale = job.candidates(drawn)
        for example, chosen, scores in zip(drawn, rows, stale, strict=True):
            assert chosen[0] == NULL_ROW
            assert len(set(chosen)) == len(chosen) == 4
            assert example.origin not in chosen
            assert not any(example.sentence in job.store.text(row) for row in chosen[1:])
            assert scores[0].isnan()
            assert (scores[1:].diff() <= 0).all()  # best first


def test_the_own_passage_may_be_read_in_the_ablation(make_job: MakeJob) -> None:
    job = make_job(exclude_own=False, num_candidates=make_job().store.text_column().length())
    drawn = job.sampler.batch(0, 4)
    rows, _ = job.candidates(drawn)
    assert sum(e.origin in chosen for e, chosen in zip(drawn, rows, strict=True)) >= 3


def test_without_the_null_passage_it_gets_no_probability(make_job: MakeJob) -> None:
    with_null, without = make_job().step(0), make_job(null_passage=False).step(0)
    assert with_null["p_null"] > 0
    assert without["p_null"] == 0.0
    assert math.isfinite(without["loss"])
    assert without["loss"] != with_null["loss"]


def test_where_nothing_else_is_found_the_null_passage_is_read_all_the_same(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every passage holds the sentence: nothing may be nan."""
    job = make_job(null_passage=False)
    monkeypatch.setattr(job.finder, "are_own", lambda _, rows: [True] * len(rows))
    measured = job.step(0)
    assert measured["p_null"] == 1.0
    assert all(math.isfinite(value) for value in measured.values())


def test_one_example_without_a_passage_does_not_spoil_the_numbers_of_the_others(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    unlucky = job.sampler.batch(0, 4)[0].row
    are_own = job.finder.are_own
    monkeypatch.setattr(
        job.finder,
        "are_own",
        lambda e, rows: [True] * len(rows) if e.row == unlucky else are_own(e, rows),
    )
    assert all(math.isfinite(value) for value in job.step(0).values())


def test_gradients_reach_embedder_and_encoder_until_the_embedder_is_frozen(
    make_job: MakeJob,
) -> None:
    job = make_job()
    job.step(0)
    for part in (job.towers.query, job.encoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    frozen = make_job(retriever_frozen_steps=1)
    frozen.step(0)
    assert all(p.grad is None for p in frozen.towers.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in frozen.encoder.parameters())
    frozen.step(1)
    assert any(p.grad is not None for p in frozen.towers.parameters())


@pytest.mark.parametrize(("frozen_steps", "moves"), [(3, False), (2, True)])
def test_frozen_towers_stay_as_they_were(
    examples: ExampleStore,
    store: PassageStore,
    start: dict[str, Path],
    tmp_path: Path,
    frozen_steps: int,
    moves: bool,  # noqa: FBT001
) -> None:
    settings = config(steps=3, retriever_frozen_steps=frozen_steps)
    pretrain(examples, store, tmp_path / "run", config=settings, **start)
    before, after = load_model(start["embedder"]), load_model(tmp_path / "run")
    hashes = [tower_hash(model.need_towers().query) for model in (before, after)]
    assert (hashes[0] != hashes[1]) == moves
    encoder = load_model(start["encoder"]).need_encoder()
    trained = after.need_encoder().head.dense.weight
    assert not torch.equal(encoder.head.dense.weight, trained)


def test_groups_of_a_batch_give_the_gradient_of_the_whole(make_job: MakeJob) -> None:
    whole, parts = make_job(), make_job(batch_tokens=64)
    assert len(parts._groups(*_drawn(parts))) > 1
    assert parts.step(0)["loss"] == pytest.approx(whole.step(0)["loss"], rel=1e-5)
    for found, expected in zip(
        parts.model.modules.values(), whole.model.modules.values(), strict=True
    ):
        for p, q in zip(found.parameters(), expected.parameters(), strict=True):
            if q.grad is not None:
                assert p.grad is not None
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)


def _drawn(job: PretrainJob) -> tuple[Any, Any]:
    drawn = job.sampler.batch(0, job.config.batch_size)
    return drawn, job.candidates(drawn)[0]


def test_the_objective_sums_over_passages_outside_or_inside_the_masks(make_job: MakeJob) -> None:
    """Eq. 1: outside the product over masks; released code: for each mask, then the mean."""
    torch.manual_seed(0)
    scores = torch.randn(3, 4)
    log_probs = torch.randn(3, 4, 2).log_softmax(dim=-1)
    is_real = torch.tensor([[True, True], [True, False], [True, True]])
    span, token = (
        make_job(marginal=kind).objective(scores, log_probs, is_real) for kind in ("span", "token")
    )
    torch.testing.assert_close(span, marginal_log_likelihood(scores, log_probs, is_real))
    weights = scores.softmax(dim=-1)[:, :, None]
    per_mask = (weights * log_probs.exp()).sum(dim=1).log().masked_fill(~is_real, 0.0)
    torch.testing.assert_close(token, per_mask.sum(dim=-1) / is_real.sum(dim=-1))
    torch.testing.assert_close(span[1], token[1])  # one mask: the two agree
    assert not torch.allclose(span[0], token[0])


def test_what_is_minimised_is_logged_beside_the_loss_of_the_paper(make_job: MakeJob) -> None:
    span, token = make_job().step(0), make_job(marginal="token").step(0)
    assert span["objective"] == pytest.approx(span["loss"], rel=1e-6)
    assert token["loss"] == pytest.approx(span["loss"], rel=1e-6)
    assert token["objective"] <= token["loss"] + 1e-6  # a mean over masks, not a sum


def test_two_towers_part_where_one_is_asked_to_be_two(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    pretrain(examples, store, tmp_path / "two", config=config(steps=2, share_towers=False), **start)
    towers = load_model(tmp_path / "two").need_towers()
    assert not towers.shared
    assert tower_hash(towers.query) != tower_hash(towers.passage)
    folders = {**start, "embedder": tmp_path / "two"}
    kept = config(steps=1)
    pretrain(examples, store, tmp_path / "kept", config=kept, **folders)
    assert not load_model(tmp_path / "kept").need_towers().shared  # as the warm start has it
    with pytest.raises(ConfigError, match="has two towers"):
        tied = config(steps=1, share_towers=True)
        pretrain(examples, store, tmp_path / "tied", config=tied, **folders)
    assert not (tmp_path / "tied").exists()


def test_the_embedder_learns_at_its_own_rate(make_job: MakeJob) -> None:
    rates = {name: rate for name, (_, rate) in make_job(retriever_rate=0.25).trained().items()}
    assert rates == {"embedder": 0.25, "encoder": 1.0}


def test_every_number_is_there_and_finite(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    report = pretrain(examples, store, tmp_path / "run", config=config(dropout=0.1), **start)
    own = {
        "loss",
        "loss_per_mask",
        "p_null",
        "utility/mean",
        "utility/best",
        "utility/marginal_minus_null",
        "index/score_drift",
        "index/rank_correlation",
    }
    at_steps = {"tokens", "tokens_per_second", "step_seconds", "learning_rate", "gradient_norm"}
    refresh = {f"index/{n}" for n in ("refreshed", "staleness_steps", "retrieved_staleness_steps")}
    refresh.add("eval/index_recall")
    accuracy = {f"{k}_accuracy{n}" for k in ("span", "piece") for n in ("", "_null")}
    held_out = {f"eval/{name}" for name in own | accuracy | {"candidates_hold_span", "examples"}}
    assert set(report.metrics) == own | at_steps | refresh | held_out | {"examples", "objective"}
    for line in read_metrics(tmp_path / "run"):
        assert all(math.isfinite(value) for value in line.values())
    assert report.metrics["eval/examples"] == 6
    assert report.metrics["utility/best"] >= report.metrics["utility/mean"]
    assert passages_of(tmp_path / "run") == store.folder.resolve()


@pytest.mark.parametrize("batch_tokens", [64, 100_000])
def test_gradients_through_drawn_candidates_are_left_and_told(
    make_job: MakeJob, batch_tokens: int
) -> None:
    """Each group draws its own, the same whenever the step is done again."""
    settings = {"gradient_candidates": 1, "batch_tokens": batch_tokens}
    job = make_job(**settings)
    first, again, second = job.step(0), make_job(**settings).step(0), job.step(1)
    assert first["loss"] == pytest.approx(make_job().step(0)["loss"], rel=1e-5)
    assert first["posterior_drawn"] == again["posterior_drawn"]
    assert 0.05 < first["posterior_drawn"] < 0.95
    assert second["posterior_drawn"] != first["posterior_drawn"]
    for part in (job.towers, job.encoder):
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


def test_scores_have_not_drifted_right_after_a_refresh(make_job: MakeJob) -> None:
    measured = make_job().step(0)
    assert measured["index/score_drift"] < 1e-4
    assert measured["index/rank_correlation"] > 0.9


def test_the_index_is_refreshed_in_time_and_its_age_is_counted(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    """Measured at step 6, so that the index is refreshed by the measuring there."""
    settings = config(
        steps=8, refresh=RefreshConfig(mode="sync", every_steps=3), eval_every_steps=6
    )
    pretrain(examples, store, tmp_path / "run", config=settings, **start)
    assert steps_of(tmp_path / "run", "index/staleness_steps") == [0, 1, 2, 0, 1, 2, 0, 1]
    assert steps_of(tmp_path / "run", "index/refreshed") == [1, 0, 0, 1, 0, 0, 1, 0]
    drift = steps_of(tmp_path / "run", "index/score_drift")
    assert max(drift[0], drift[3], drift[6]) < 1e-4 < min(drift[1], drift[2], drift[7])
    index = sorted(path.name for path in (tmp_path / "run" / "index").iterdir())
    assert index == ["step-6"]  # what nobody needs is removed


def test_without_refresh_the_first_index_serves_to_the_end(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    settings = config(steps=5, refresh=RefreshConfig(mode="off", every_steps=2))
    pretrain(examples, store, tmp_path / "run", config=settings, **start)
    assert steps_of(tmp_path / "run", "index/staleness_steps") == [0, 1, 2, 3, 4]
    assert steps_of(tmp_path / "run", "index/refreshed") == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("drawn", [None, 1])
def test_the_loss_falls(
    examples: ExampleStore,
    store: PassageStore,
    start: dict[str, Path],
    tmp_path: Path,
    drawn: int | None,
) -> None:
    settings = config(
        gradient_candidates=drawn,
        steps=20,
        batch_size=8,
        refresh=RefreshConfig(mode="sync", every_steps=10),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    )
    pretrain(examples, store, tmp_path / "run", config=settings, **start)
    losses = steps_of(tmp_path / "run", "loss")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_more_candidates_than_passages_are_refused(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    check_candidates(len(store), len(store))
    with pytest.raises(ConfigError, match="num_candidates=1000"):
        pretrain(examples, store, tmp_path / "run", config=config(num_candidates=1_000), **start)
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_vocabulary_is_refused(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    tokens = [store.tokenizer.token(number) for number in range(store.tokenizer.vocab_size)]
    other = WordpieceTokenizer.from_vocabulary([*tokens, "zzz"])
    scratch = load_pretrained(EncoderConfig(init="scratch:1x32"), tokenizer=other)
    encoder = Model(tokenizer=other, encoder=scratch.build_encoder())
    save_checkpoint(tmp_path / "encoder", encoder, settings={}, inputs={})
    folders = {**start, "encoder": tmp_path / "encoder"}
    with pytest.raises(ConfigError, match="another tokenizer"):
        pretrain(examples, store, tmp_path / "run", config=config(), **folders)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["embedder", "encoder"])
def test_each_source_must_hold_its_part(
    examples: ExampleStore,
    store: PassageStore,
    start: Mapping[str, Path],
    tmp_path: Path,
    missing: str,
) -> None:
    other = {"embedder": "encoder", "encoder": "embedder"}[missing]
    with pytest.raises(ConfigError, match=f"has no {missing}"):
        folders = {**start, missing: start[other]}
        pretrain(examples, store, tmp_path / "run", config=config(), **folders)
    assert not (tmp_path / "run").exists()


def test_examples_longer_than_the_run_reads_are_refused(
    store: PassageStore, tagger: Tagger, start: dict[str, Path], tmp_path: Path
) -> None:
    mask(store, tmp_path / "examples", config=MaskConfig(query_wordpieces=97), tagger=tagger)
    examples = ExampleStore.open(tmp_path / "examples")
    with pytest.raises(ConfigError, match="up to 97 wordpieces"):
        pretrain(examples, store, tmp_path / "run", config=config(), **start)


def test_the_checkpoint_says_which_snapshot_it_searched(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    settings = config(steps=3, refresh=RefreshConfig(mode="sync", every_steps=2))
    pretrain(examples, store, tmp_path / "run", config=settings, **start)
    training = tmp_path / "run" / "checkpoints" / "step-3" / "training.json"
    known = json.loads(training.read_text())
    assert (known["step"], known["snapshot_step"]) == (3, 2)


@pytest.mark.parametrize("name", ["query_wordpieces", "passage_wordpieces", "joint_wordpieces"])
def test_inputs_longer_than_a_part_reads_are_refused_and_leave_no_run(
    examples: ExampleStore, store: PassageStore, make_short: MakeShort, tmp_path: Path, name: str
) -> None:
    """Each of the three; without the refusal the first long text would end training."""
    lengths = {"query_wordpieces": 60, "passage_wordpieces": 64, "joint_wordpieces": 64, name: 65}
    lengths["joint_wordpieces"] = max(lengths["joint_wordpieces"], lengths["query_wordpieces"] + 2)
    settings = config(**lengths)
    with pytest.raises(ConfigError, match=f"{name}=65, expected at most 64 wordpieces"):
        pretrain(examples, store, tmp_path / "run", config=settings, **make_short(store))
    assert not (tmp_path / "run").exists()
