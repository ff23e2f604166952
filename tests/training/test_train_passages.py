"""Fine-tuning that trains Embed_doc, too: gradients, the refreshed index, what the run leaves."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from realm.answering import Answerer
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import tower_hash
from realm.checkpoint.run_records import read_metrics
from realm.config import FinetuneConfig, IndexConfig, OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.opening import find_snapshot
from realm.index.snapshot import Snapshot, list_snapshots, snapshot_folder
from realm.model.embedder import Towers, embed_in_groups
from realm.model.likelihood import (
    correct_log_likelihood,
    emdr2_log_likelihood,
    passage_log_likelihood,
    pdist_loss,
)
from realm.model.realm import span_logits
from realm.records import Question
from realm.refresh.status import run_status
from realm.refresh.sync import SyncRefresher
from realm.retrieval.batch import passage_sequence
from realm.retrieval.bm25 import Bm25Retriever
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.reading import span_inputs
from realm.training import refreshing
from realm.training.finetune import finetune
from realm.training.finetune_job import FinetuneJob
from realm.training.index_in_use import Seen
from realm.training.mixing import QuestionSet
from realm.training.passage_scores import FreshScores
from realm.training.supervision import Judged, correct_spans, judge, rows_to_read

MakeJob = Callable[..., FinetuneJob]
Tune = Callable[..., Path]

ASKED = [("arlo", "Tarvik"), ("bexa", "Ulmer"), ("cimo", "Vosta"), ("dule", "Welan")]
QUESTIONS = [
    Question(
        id=str(number),
        question=f"where was the builder {name} born",
        answers=(town,),
        passage_id=f"a{number}",
    )
    for number, (name, town) in enumerate(ASKED)
]
NOWHERE = Question(id="n", question="who was born in the old hall", answers=("Napoleon",))
SYNC = RefreshConfig(mode="sync", every_steps=3)


def config(**changed: Any) -> FinetuneConfig:
    settings: dict[str, Any] = {
        "steps": 4,
        "batch_size": 4,
        "num_passages": 3,
        "retriever_beam": 10,
        "fresh_passages": 4,
        "span_hidden": 16,
        "autocast": "none",
        "dropout": 0.0,
        "held_out": 0.0,
        "threads": 1,
        "train_passages": True,
        "refresh": SYNC,
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
    }
    return FinetuneConfig(**{**settings, **changed})


@pytest.fixture
def tune(store: PassageStore, start: dict[str, Path], tmp_path: Path) -> Tune:
    """Fine-tune; return the run."""

    def run(name: str = "run", **changed: Any) -> Path:
        more = {key: changed.pop(key) for key in ("tell", "on_metrics") if key in changed}
        begin = changed.pop("run", start["embedder"])
        finetune(
            QUESTIONS,
            store,
            tmp_path / name,
            run=begin,
            encoder=start["encoder"],
            config=config(**changed),
            **more,
        )
        return tmp_path / name

    return run


@pytest.fixture(scope="session")
def with_reader(
    store: PassageStore, start: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with two towers and a reader."""
    run = tmp_path_factory.mktemp("reader") / "run"
    folders = {"run": start["embedder"], "encoder": start["encoder"]}
    settings = config(train_passages=False, steps=1)
    finetune(QUESTIONS, store, run, config=settings, **folders)
    return run


@pytest.fixture
def make_job(
    store: PassageStore, start: dict[str, Path], with_reader: Path, tmp_path: Path
) -> MakeJob:
    """Return a job before step 1, whose towers have moved since the index was built."""

    def make(
        questions: Sequence[Question] = QUESTIONS,
        lexical: Bm25Retriever | None = None,
        **changed: Any,
    ) -> FinetuneJob:
        settings = config(**changed)
        towers = load_model(start["embedder"]).need_towers()
        if settings.share_towers is False:
            towers = towers.untied()
        reader = load_model(with_reader).need_reader()
        index = IndexConfig(autocast="none")
        refresher = SyncRefresher(tmp_path / "job", store, config=settings.refresh, index=index)
        sets = [QuestionSet(questions=questions)]
        job = FinetuneJob(sets, store, refresher, towers, reader, settings, lexical=lexical)
        job.before_step(0)
        move(job.towers)
        job.before_step(1)
        return job

    return make


def move(towers: Towers) -> None:
    """Change Embed_doc as some steps do."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in towers.passage.projection.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))


def gradients(*parts: nn.Module) -> list[Tensor]:
    return [
        torch.zeros_like(p) if p.grad is None else p.grad
        for part in parts
        for p in part.parameters()
    ]


def whole_graph(job: FinetuneJob, store: PassageStore, is_fresh: Callable[..., bool]) -> Tensor:
    """Return a step's loss by the equations, all passages embedded in one graph.

    Args:
        job: not yet run.
        store: the passages.
        is_fresh: (row, judged, read) -> whether its vector is a fresh one.
    """
    texts = [passage_sequence(store, store.tokenizer, row, 288) for row in range(len(store))]
    fresh = embed_in_groups(job.towers.passage, texts, pad_id=0, batch_tokens=4_096)
    index = job.dense.snapshot
    stale = index.exact[torch.arange(len(store))]
    assert (fresh - stale).abs().max() > 0.05
    losses: list[Tensor] = []
    for number in job.mixture.at(1, job.config.batch_size):
        question = job.mixture.questions[number]
        vector = job.dense.embed([question.question])
        if job.hybrid:
            rows, _ = job.hybrid.search([question.question], vector, 10)
        else:
            rows = index.search(vector, 10)[1]
        judged = judge(store, question, rows[0].tolist(), gold_passages=job.config.gold_passages)
        draw = np.random.default_rng([job.config.seed, 1, number])
        read = rows_to_read(judged, job.config, draw)
        chosen = [row for row in range(len(store)) if is_fresh(row, judged, read)]
        early = fresh[chosen] @ vector[0]
        if job.hybrid:
            early = early + job.hybrid.weigh(question.question, torch.tensor(chosen))
        found = dict(zip(judged.rows, judged.is_right.tolist(), strict=True))
        right = torch.tensor([found.get(row, False) or row in judged.gold for row in chosen])
        losses.append(-correct_log_likelihood(early[None], right[None])[0])
        scores = fresh[read] @ vector[0]
        if job.hybrid:
            scores = scores + job.hybrid.weigh(question.question, torch.tensor(read))
        losses.append(reader_loss(job, store, question, judged, read, scores))
    return torch.stack(losses).sum() / job.config.batch_size


def reader_loss(
    job: FinetuneJob,
    store: PassageStore,
    question: Question,
    judged: Judged,
    read: list[int],
    scores: Tensor,
) -> Tensor:
    """Return what reader and, by its answers, retriever lose with one question."""
    ids = store.tokenizer.encode(question.question).ids
    also = [NULL_ROW] if job.config.null_passage else []
    inputs = span_inputs(store, ids, [*read, *also], job.config.joint_wordpieces)
    bare = span_logits(job.reader, inputs, job.reading.budget)
    correct = correct_spans(store, question, [*read, *also], bare, gold=judged.gold)
    is_marginal = job.config.objective == "marginal"
    prior = (scores if is_marginal else scores.detach()).log_softmax(dim=0)
    raised = [part + one for part, one in zip(bare, prior, strict=False)] + bare[len(read) :]
    flat = torch.cat([part.reshape(-1) for part in raised])
    loss = -correct_log_likelihood(flat[None], correct[None])[0]
    if is_marginal:
        return loss
    parts = [part.reshape(-1) for part in bare]
    spans = pad_sequence(parts, batch_first=True, padding_value=float("-inf"))[None]
    marks = pad_sequence(list(correct.split([len(part) for part in parts])), batch_first=True)[None]
    if job.config.objective == "emdr2":
        return -emdr2_log_likelihood(scores[None], spans, marks)[0]
    return loss + pdist_loss(scores[None], passage_log_likelihood(spans, marks))[0]


def head_and_right(count: int) -> Callable[..., bool]:
    """Return which passages the docs say are fresh: the head, one right, what is read."""

    def is_fresh(row: int, judged: Judged, read: list[int]) -> bool:
        head = list(judged.rows[:count])
        right = [r for r, is_right in zip(judged.rows, judged.is_right, strict=True) if is_right]
        if right and right[0] not in head:
            head = [*head[:-1], right[0]]
        return row in head or row in read

    return is_fresh


EVERYTHING_ON: dict[str, Any] = {
    "retriever": "hybrid",
    "lexical_weight": 0.5,
    "draw_from": 8,
    "gold_passages": True,
    "null_passage": True,
}


@pytest.mark.parametrize("share", [None, False])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"batch_tokens": 64},
        {"objective": "emdr2"},
        {"objective": "pdist", "batch_tokens": 100},
        EVERYTHING_ON,
    ],
    ids=["marginal", "in-groups", "emdr2", "pdist", "everything"],
)
def test_a_step_with_fresh_vectors_is_autograd_through_the_whole(
    make_job: MakeJob, store: PassageStore, changed: dict[str, Any], *, share: bool | None
) -> None:
    """Both towers and the reader; no vector of the index is in the loss."""
    lexical = Bm25Retriever.open(store) if "retriever" in changed else None
    questions = [*QUESTIONS[:3], NOWHERE]
    job, plain = (make_job(questions, lexical, share_towers=share, **changed) for _ in range(2))
    loss = job.step(1)["loss"]
    expected = whole_graph(plain, store, head_and_right(4))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    for name in ("query", "passage"):
        found = gradients(getattr(job.towers, name))
        wanted = gradients(getattr(plain.towers, name))
        assert sum(float(value.abs().sum()) for value in wanted) > 0
        for value, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(value, other, rtol=1e-3, atol=2e-5)
    for value, other in zip(gradients(job.reader), gradients(plain.reader), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=2e-5)


def test_with_the_whole_beam_fresh_the_early_loss_is_that_of_the_beam(
    make_job: MakeJob, store: PassageStore
) -> None:
    job, plain = (make_job(fresh_passages=10) for _ in range(2))
    job.step(1)
    whole_graph(plain, store, lambda row, judged, _: row in judged.rows).backward()
    for value, other in zip(gradients(job.towers), gradients(plain.towers), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=2e-5)


def test_a_gold_passage_that_was_not_found_counts_as_right_because_it_is_read(
    make_job: MakeJob,
) -> None:
    settings: dict[str, Any] = {"retriever_beam": 2, "num_passages": 2, "fresh_passages": 1}
    plain = make_job(**settings)
    vector = plain.dense.embed([QUESTIONS[0].question])
    found = plain.dense.snapshot.search(vector, 2)[1][0].tolist()
    articles = [plain.store[row].article_id for row in range(len(plain.store))]
    others = set(articles) - {articles[row] for row in found}
    far = replace(QUESTIONS[0], passage_id=min(others))
    job = make_job([far], batch_size=1, gold_passages=True, **settings)
    measured = job.step(1)
    assert measured["recall_at_5"] == 0.0
    assert measured["loss_early"] > 0.0


def test_the_first_right_passage_is_among_the_fresh_ones_wherever_it_stands(
    make_job: MakeJob,
) -> None:
    scores = make_job().scores
    assert isinstance(scores, FreshScores)

    def judged(*right: int) -> Judged:
        is_right = np.isin(range(20, 30), right)
        return Judged(rows=list(range(20, 30)), is_right=is_right, holds=is_right, gold=())

    assert judged(28).are_right([28, 20, 21]).tolist() == [True, False, False]
    assert scores.rows_to_embed(judged(28, 29), [20]) == [20, 21, 22, 28]
    assert scores.rows_to_embed(judged(22, 29), [20]) == [20, 21, 22, 23]
    assert scores.rows_to_embed(judged(), [20, 5]) == [20, 21, 22, 23, 5]
    few = make_job(fresh_passages=0).scores
    assert isinstance(few, FreshScores)
    assert few.rows_to_embed(judged(28), [20, 5]) == [20, 5]


def test_embed_doc_gets_a_gradient_only_with_the_setting(
    make_job: MakeJob, store: PassageStore, with_reader: Path, tune: Tune
) -> None:
    job = make_job(share_towers=False)
    job.step(1)
    for name in ("word_embeddings", "encoder.layer.0", "projection", "norm"):
        of_part = [p.grad for n, p in job.towers.passage.named_parameters() if name in n]
        assert sum(float(g.abs().sum()) for g in of_part if g is not None) > 0, name
    assert {name for name, _ in job.trained().items()} == {"embedder", "reader"}
    assert job.trained()["embedder"][0] is job.towers

    model = load_model(with_reader)
    run = tune("fixed", train_passages=False)
    snapshot = Snapshot.open(run / "index" / "step-0")
    sets = [QuestionSet(questions=QUESTIONS)]
    parts = model.need_towers(), model.need_reader()
    fixed = FinetuneJob(sets, store, snapshot, *parts, config(train_passages=False))
    fixed.step(0)
    assert all(p.grad is None for p in fixed.towers.passage.parameters())
    assert "index/score_drift" not in fixed.step(0)
    assert fixed.before_step(0) == {}


def test_drift_is_that_of_the_passages_scored_afresh(make_job: MakeJob) -> None:
    fresh = make_job()
    drifted = fresh.step(1)
    assert drifted["index/score_drift"] > 0.05
    assert drifted["index/rank_correlation"] < 1.0
    assert drifted["index/retrieved_staleness_steps"] == 1.0


def of(run: Path, name: str) -> list[float]:
    return [line[name] for line in read_metrics(run) if name in line]


def test_the_index_is_refreshed_in_time_and_its_age_is_counted(tune: Tune) -> None:
    run = tune(steps=8, eval_every_steps=6, held_out=0.3)
    assert of(run, "index/staleness_steps") == [0, 1, 2, 0, 1, 2, 0, 1]
    assert of(run, "index/refreshed") == [1, 0, 0, 1, 0, 0, 1, 0]
    drift = of(run, "index/score_drift")
    assert max(drift[0], drift[3], drift[6]) < 1e-4 < min(drift[1], drift[2], drift[7])
    assert of(run, "index/retrieved_staleness_steps") == [0, 1, 2, 0, 1, 2, 0, 1]
    assert of(run, "eval/index_recall")[0] == 1.0
    assert all(0 <= value <= 1 for value in of(run, "eval/index_recall"))


def test_without_refresh_the_first_index_serves_to_the_end_and_the_run_answers_with_a_new_one(
    tune: Tune,
) -> None:
    run = tune(steps=5, refresh=RefreshConfig(mode="off"))
    assert of(run, "index/staleness_steps") == [0, 1, 2, 3, 4]
    assert [step for step, _ in list_snapshots(run)] == [0, 5]


def test_what_was_scored_afresh_can_be_written_into_the_index(make_job: MakeJob) -> None:
    job = make_job(refresh=RefreshConfig(mode="sync", every_steps=100, write_back=True))
    assert job.live is not None
    before = job.live.exact[torch.arange(len(job.store))]
    job.step(1)
    rows, vectors, steps = job.live.refresher.index.replaced()
    assert 4 <= len(rows) <= 4 * (4 + 3)
    assert steps.unique().tolist() == [1]
    assert (vectors - before[rows]).abs().max() > 0.05
    torch.testing.assert_close(vectors, job.live.embed(rows.tolist()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("available", "builders", "expected"), [(8, 2, 6), (4, 1, 3), (1, 1, 1), (2, 3, 1), (4, 0, 4)]
)
def test_builders_get_some_of_the_threads_that_the_process_has_not_of_the_machine(
    available: int, builders: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks on one machine part its cores by OMP_NUM_THREADS; torch counts by it."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    refresh = RefreshConfig(builders=builders)
    torch.set_num_threads(available)
    try:
        told = refreshing.with_threads(PretrainConfig(refresh=refresh)).threads
        own = refreshing.with_threads(PretrainConfig(refresh=refresh, threads=5)).threads
        alone = refreshing.with_threads(PretrainConfig(refresh=SYNC)).threads
    finally:
        torch.set_num_threads(1)
    assert (told, own, alone) == (expected, 5, None)


def test_of_several_vectors_of_a_passage_the_last_is_written_whatever_the_threads(
    make_job: MakeJob,
) -> None:
    """Dropout makes them differ; torch shares out the writing of many among its threads."""
    job = make_job(refresh=RefreshConfig(mode="sync", every_steps=100, write_back=True))
    assert job.live is not None
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(len(job.store), (8_000,), generator=draw)
    vectors = torch.randn(8_000, 16, generator=draw)
    seen = [
        Seen(rows=some, drift=torch.zeros(len(some)), vectors=theirs)
        for some, theirs in zip(rows.split(3_000), vectors.split(3_000), strict=True)
    ]
    torch.set_num_threads(4)
    try:
        job.live.take(seen, {})
    finally:
        torch.set_num_threads(1)
    last = {int(row): number for number, row in enumerate(rows)}
    expected = vectors[[last[row] for row in range(len(job.store))]]
    everything = torch.arange(len(job.store))
    assert torch.equal(job.live.exact[everything], expected)
    assert torch.equal(job.live.refresher.index.scan[everything], expected.bfloat16())


def test_re_ranking_finds_what_a_fresh_index_finds(make_job: MakeJob, store: PassageStore) -> None:
    deep = RefreshConfig(mode="sync", rerank_passages=len(store))
    job = make_job(retriever_beam=5, refresh=deep)
    plain = make_job(retriever_beam=5)
    assert job.live is not None
    assert plain.live is not None
    vectors = job._eval_vectors() if job.eval_questions else job.dense.embed(["where was arlo"])
    fresh = job.live.embed(range(len(store)))
    wanted = (vectors.detach() @ fresh.T).topk(5).indices
    torch.testing.assert_close(job.live.search(vectors.detach(), 5)[1], wanted)
    assert not torch.equal(plain.live.search(vectors.detach(), 5)[1], wanted)


@pytest.mark.parametrize(
    ("share_towers", "is_shared"), [(None, True), (True, True), (False, False)]
)
def test_the_finished_run_answers_with_an_index_of_its_last_embed_doc(
    tune: Tune,
    store: PassageStore,
    start: dict[str, Path],
    *,
    share_towers: bool | None,
    is_shared: bool,
) -> None:
    run = tune(share_towers=share_towers)
    towers = load_model(run).need_towers()
    assert towers.shared is is_shared
    before = load_model(start["embedder"]).need_towers()
    assert tower_hash(towers.passage) != tower_hash(before.passage)
    found = find_snapshot(run, towers.passage, store)
    assert found is not None
    assert found.folder == snapshot_folder(run, 4)
    answerer = Answerer.load(run)
    assert isinstance(answerer.dense.snapshot, Snapshot)
    assert answerer.dense.snapshot.folder == found.folder
    asked = [QUESTIONS[0].question]
    with torch.no_grad():
        texts = [passage_sequence(store, store.tokenizer, row, 288) for row in range(len(store))]
        passages = embed_in_groups(towers.passage, texts, pad_id=0, batch_tokens=4_096)
        best = (answerer.dense.embed(asked) @ passages.T).topk(3).indices
    assert answerer.dense.retrieve(asked, 3)[0][0] == best[0].tolist()
    assert not (run / "other-passages").exists()


def test_a_run_killed_before_its_last_index_builds_it_when_called_again(
    tune: Tune, store: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(refreshing, "build_together", dies)
        with pytest.raises(KeyboardInterrupt):
            tune()
    run = tune()
    assert find_checkpoint(run).name == "step-4"
    assert find_snapshot(run, load_model(run).need_towers().passage, store) is not None


def test_builders_refresh_the_index_beside_the_trainer(
    tune: Tune, store: PassageStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bound on staleness makes it wait for its builder: `realm index --follow`."""
    told: list[str] = []
    refresh = RefreshConfig(every_steps=20, max_staleness_steps=3, shard_rows=8)
    run = tune(steps=8, refresh=refresh, tell=told.append)
    assert max(of(run, "index/staleness_steps")) <= 3
    assert sum(of(run, "index/refreshed")) >= 2
    assert any("waited" in sentence for sentence in told)
    assert find_snapshot(run, load_model(run).need_towers().passage, store) is not None
    seen = run_status(run)
    assert seen.is_finished
    assert [one.name for one in seen.builders] == ["builder-0"]
    assert seen.refresh["mode"] == "async"

    from realm.cli.main import build_app

    build_app()(["status", str(run), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["metrics"]["recall_at_5"] >= 0


def test_the_vectors_of_the_start_serve_as_the_first_index(
    tune: Tune, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    """They are taken over, not computed again: an index of other vectors shows where it is from."""
    begin = tmp_path / "begin"
    (begin / "checkpoints").mkdir(parents=True)
    shutil.copytree(start["embedder"], begin / "checkpoints" / "step-7")
    tower = load_model(start["embedder"]).need_towers().passage
    version = EmbedderVersion(model_hash=tower_hash(tower), step=7)
    with torch.no_grad():
        tower.projection.bias.add_(1.0)
    index = IndexConfig(autocast="none")
    marked = build_index(tower, store, snapshot_folder(begin, 7), version=version, config=index)
    run = tune(steps=1, run=begin)
    first = Snapshot.open(snapshot_folder(run, 0))
    everything = torch.arange(len(store))
    assert torch.equal(first.exact[everything], marked.exact[everything])
    shorter = tune("shorter", steps=1, run=begin, passage_wordpieces=200)
    other = Snapshot.open(snapshot_folder(shorter, 0))
    assert not torch.equal(other.exact[everything], marked.exact[everything])


def test_two_towers_cannot_become_one(tune: Tune, tmp_path: Path, with_reader: Path) -> None:
    with pytest.raises(ConfigError, match="has two towers"):
        tune(run=with_reader, share_towers=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"retriever_rate": 0.0}, "retriever_rate above 0"),
        ({"train_passages": False, "share_towers": True}, "needs train_passages=true"),
        (
            {"retriever": "hybrid", "refresh": RefreshConfig(rerank_passages=20)},
            "needs retriever='dense'",
        ),
        ({"refresh": RefreshConfig(rerank_passages=9)}, "less than retriever_beam=10"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        config(**changed)


def test_a_run_that_does_not_train_passages_is_the_run_it_was_before() -> None:
    """Its request names none of the settings, so that older runs resume, and refreshes nothing."""
    known = config(train_passages=False, fresh_passages=7).identity()
    assert known == config(train_passages=False).identity()
    assert not {"train_passages", "fresh_passages", "refresh", "passage_wordpieces"} & set(known)
    own = config().identity()
    assert own["train_passages"]
    assert (
        own["refresh"]
        == config(refresh=SYNC.model_copy(update={"builders": 9})).identity()["refresh"]
    )
