"""Open-QA fine-tuning (section 4, ORQA): what learns, what stands still, and the gradient."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from realm.answering import Answerer
from realm.checkpoint.checkpoints import load_model, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_records import read_metrics
from realm.checkpoint.sources import passages_of
from realm.cli.training_display import TrainingDisplay
from realm.config import EncoderConfig, FinetuneConfig, IndexConfig, OptimizerConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot
from realm.model.bert import set_dropout
from realm.model.likelihood import (
    correct_log_likelihood,
    emdr2_log_likelihood,
    passage_log_likelihood,
    pdist_loss,
)
from realm.model.realm import span_logits
from realm.records import Question
from realm.reporting.curves import read_curves
from realm.retrieval.bm25 import Bm25Retriever
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.matching import holds_answer
from realm.retrieval.reading import span_inputs
from realm.storage import fingerprint
from realm.tokenizer import WordpieceTokenizer
from realm.training.finetune import finetune
from realm.training.finetune_job import FinetuneJob
from realm.training.mixing import QuestionSet
from realm.training.supervision import correct_spans, judge, rows_to_read

MakeShort = Callable[[PassageStore], dict[str, Path]]
MakeJob = Callable[..., FinetuneJob]

QUESTIONS = [
    Question(id="1", question="where was the builder arlo born", answers=("Tarvik",)),
    Question(id="2", question="what did bexa make out of wood", answers=("compass",)),
    Question(id="3", question="where did cimo move", answers=("Welan", "the hills of Welan")),
]
BY_PATTERN = Question(id="4", question="in what year was dule born", answer_patterns=(r"19\d\d",))
NOWHERE = Question(id="5", question="who was born in the old hall", answers=("Napoleon",))


def config(**changed: Any) -> FinetuneConfig:
    settings: dict[str, Any] = {
        "steps": 4,
        "batch_size": 3,
        "num_passages": 3,
        "retriever_beam": 8,
        "span_hidden": 16,
        "autocast": "none",
        "dropout": 0.0,
        "held_out": 0.0,
        "threads": 1,
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
    }
    return FinetuneConfig(**{**settings, **changed})


@pytest.fixture(scope="session")
def tuned(
    store: PassageStore, start: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of four steps."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    finetune(
        QUESTIONS, store, run, run=start["embedder"], encoder=start["encoder"], config=config()
    )
    return run


@pytest.fixture(scope="session")
def snapshot(
    store: PassageStore, start: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Snapshot:
    tower = load_model(start["embedder"]).need_towers().passage
    return build_index(
        tower,
        store,
        tmp_path_factory.mktemp("index") / "out",
        version=EmbedderVersion(model_hash="m"),
        config=IndexConfig(autocast="none"),
    )


@pytest.fixture
def make_job(tuned: Path, store: PassageStore, snapshot: Snapshot) -> MakeJob:
    def make(
        questions: Sequence[Question] = QUESTIONS,
        lexical: Bm25Retriever | None = None,
        **changed: Any,
    ) -> FinetuneJob:
        model = load_model(tuned)
        parts = model.need_towers(), model.need_reader()
        sets = [QuestionSet(questions=questions)]
        return FinetuneJob(sets, store, snapshot, *parts, config(**changed), lexical=lexical)

    return make


def gradients(job: FinetuneJob) -> list[Tensor]:
    return [
        torch.zeros_like(p) if p.grad is None else p.grad
        for part in (job.towers.query, job.reader)
        for p in part.parameters()
    ]


def run_once(job: FinetuneJob) -> list[Tensor]:
    job.step(0)
    return gradients(job)


def test_the_question_tower_and_the_reader_learn_the_passages_stand_still(
    tuned: Path, start: dict[str, Path], store: PassageStore
) -> None:
    before, after = load_model(start["embedder"]).need_towers(), load_model(tuned).need_towers()
    assert not after.shared
    assert tower_hash(after.passage) == tower_hash(before.passage)
    assert tower_hash(after.query) != tower_hash(before.query)
    snapshot = Snapshot.open(tuned / "index" / "step-0", verify=True)
    assert snapshot.model_hash == tower_hash(after.passage)
    assert snapshot.passages_fingerprint == store.fingerprint
    assert [path.name for path in (tuned / "index").iterdir()] == ["step-0"]
    assert passages_of(tuned) == store.folder.resolve()


def test_the_reader_starts_from_the_encoder(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    still = config(steps=1, optimizer=OptimizerConfig(learning_rate=1e-12))
    finetune(
        QUESTIONS,
        store,
        tmp_path / "run",
        run=start["embedder"],
        encoder=start["encoder"],
        config=still,
    )
    found = load_model(tmp_path / "run").need_reader().bert.state_dict()
    for name, value in load_model(start["encoder"]).need_encoder().bert.state_dict().items():
        torch.testing.assert_close(found[name], value)


def test_the_index_is_not_written_again(tuned: Path, make_job: MakeJob) -> None:
    before = fingerprint(tuned / "index")
    run_once(make_job())
    assert fingerprint(tuned / "index") == before


def in_one_graph(objective: str, scores: Tensor, logits: list[Tensor], correct: Tensor) -> Tensor:
    """Return a question's loss by the equations."""
    prior = (scores if objective == "marginal" else scores.detach()).log_softmax(dim=0)
    flat = torch.cat([(part + one).reshape(-1) for part, one in zip(logits, prior, strict=True)])
    reader = -correct_log_likelihood(flat[None], correct[None])[0]
    if objective == "marginal":
        return reader
    parts = [part.reshape(-1) for part in logits]
    spans = pad_sequence(parts, batch_first=True, padding_value=float("-inf"))[None]
    marks = pad_sequence(list(correct.split([len(part) for part in parts])), batch_first=True)[None]
    if objective == "emdr2":
        return -emdr2_log_likelihood(scores[None], spans, marks)[0]
    return reader + pdist_loss(scores[None], passage_log_likelihood(spans, marks))[0]


@pytest.mark.parametrize(
    ("batch_tokens", "objective"),
    [(64, "marginal"), (4_096, "marginal"), (64, "emdr2"), (64, "pdist")],
)
def test_the_gradient_sent_back_in_two_parts_is_that_of_one_graph(
    make_job: MakeJob, store: PassageStore, batch_tokens: int, objective: str
) -> None:
    """Loss = reader + early retriever loss, the mean over the questions."""
    changed = {"batch_size": 5, "batch_tokens": batch_tokens, "objective": objective}
    job = make_job([*QUESTIONS, BY_PATTERN, NOWHERE], **changed)
    loss = job.step(0)["loss"]
    found = gradients(job)

    plain = make_job([*QUESTIONS, BY_PATTERN, NOWHERE], batch_size=5)
    questions = plain.mixture.questions
    vectors = plain.dense.embed([q.question for q in questions])
    _, rows = plain.dense.snapshot.search(vectors, 8)
    scores = torch.einsum("qd,qkd->qk", vectors, plain.dense.snapshot.exact[rows])
    losses: list[Tensor] = []
    for number, question in enumerate(questions):
        read = rows[number, :3]
        ids = store.tokenizer.encode(question.question).ids
        inputs = span_inputs(store, ids, read.tolist(), plain.config.joint_wordpieces)
        logits = span_logits(plain.reader, inputs, plain.reading.budget)
        correct = correct_spans(store, question, read.tolist(), logits)
        losses.append(in_one_graph(objective, scores[number, :3], logits, correct))
        holds = torch.from_numpy(holds_answer(store, rows[number].tolist(), question))
        losses.append(-correct_log_likelihood(scores[number][None], holds[None])[0])
    total = torch.stack(losses).sum() / len(questions)
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    expected = gradients(plain)
    assert sum(float(value.abs().sum()) for value in expected) > 0
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5)


def test_a_question_without_an_answer_in_the_corpus_contributes_nothing(
    make_job: MakeJob,
) -> None:
    """As released; it only counts in the mean. Alone it leaves no loss: 0 would be the best."""
    alone = make_job([NOWHERE], batch_size=1)
    measured = alone.step(0)
    assert not [name for name in measured if name.startswith("loss")]
    assert measured["readable"] == measured["recall_at_5"] == 0.0
    assert all(float(value.abs().sum()) == 0.0 for value in gradients(alone))
    with_it = run_once(make_job([QUESTIONS[0], NOWHERE], batch_size=2))
    without = run_once(make_job([QUESTIONS[0]], batch_size=1))
    for value, other in zip(with_it, without, strict=True):
        torch.testing.assert_close(2 * value, other, rtol=1e-3, atol=2e-5)


def test_a_step_that_teaches_nothing_bends_no_curve(
    store: PassageStore, start: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its line in the log has no loss, nor the console's, which says why."""
    finetune(
        [QUESTIONS[0], NOWHERE],
        store,
        tmp_path / "run",
        run=start["embedder"],
        encoder=start["encoder"],
        config=config(batch_size=1, retriever_beam=50, log_every_steps=1),
        on_metrics=TrainingDisplay("finetune"),
    )
    lines = read_metrics(tmp_path / "run")
    told = capsys.readouterr().err.splitlines()
    has_loss = ["loss" in line for line in lines]
    assert sorted(has_loss) == [False, False, True, True]
    assert [" loss " in line for line in told] == has_loss
    assert ["no answer in any passage found" in line for line in told] == [not x for x in has_loss]
    assert [step for step, _ in read_curves(tmp_path / "run").series["loss"]] == [
        line["step"] for line, has in zip(lines, has_loss, strict=True) if has
    ]


def test_held_out_losses_are_the_same_in_batches_of_any_size(make_job: MakeJob) -> None:
    """A batch that teaches nothing counts in the mean, as such a question does in its batch."""
    jobs = [make_job(batch_size=size, retriever_beam=50) for size in (1, 4)]
    for asked in ([NOWHERE, *QUESTIONS], [NOWHERE, NOWHERE]):
        for job in jobs:
            job.eval_questions = asked
        apart, together = (job.evaluate(0) for job in jobs)
        assert set(apart) == set(together)
        assert ("eval/loss" in apart) is (len(asked) > 2)
        for name, value in together.items():
            assert apart[name] == pytest.approx(value, rel=1e-5), name


def test_patterns_serve_as_answers(make_job: MakeJob, store: PassageStore) -> None:
    """CuratedTREC, which the release cannot train on."""
    job = make_job([BY_PATTERN], batch_size=1, num_passages=8)
    measured = job.step(0)
    assert measured["readable"] == 1.0
    assert measured["loss_reader"] > 0
    rows = torch.arange(len(store))
    logits = [torch.zeros(len(store.wordpieces(row)), 10) for row in rows.tolist()]
    correct = correct_spans(store, BY_PATTERN, rows.tolist(), logits)
    assert int(correct.sum()) == sum(store.text(row).count(" 19") for row in rows.tolist())


def test_every_mention_of_every_answer_is_correct(store: PassageStore) -> None:
    for question in QUESTIONS:
        for row in range(len(store)):
            pieces = store.wordpieces(row).tolist()
            marks = correct_spans(store, question, [row], [torch.zeros(len(pieces), 10)])
            found = {
                store.tokenizer.decode(pieces[int(first) : int(first + width) + 1])
                for first, width in marks.reshape(len(pieces), 10).nonzero()
            }
            wanted = {answer.lower() for answer in question.answers}
            assert found == {answer for answer in wanted if answer in store.text(row).lower()}


def test_answers_longer_than_the_reader_answers_are_left_out(store: PassageStore) -> None:
    row = next(row for row in range(len(store)) if "the hills of Welan" in store.text(row))
    size = len(store.wordpieces(row))
    marks = correct_spans(store, QUESTIONS[2], [row], [torch.zeros(size, 2)])
    assert int(marks.sum()) == store.text(row).count("Welan")


def test_the_loss_falls_and_the_answers_are_found(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    settings = config(
        steps=30, optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=3), retriever_beam=20
    )
    questions = [*QUESTIONS, BY_PATTERN]
    finetune(
        questions,
        store,
        tmp_path / "run",
        run=start["embedder"],
        encoder=start["encoder"],
        config=settings,
    )
    lines = read_metrics(tmp_path / "run")
    for name in ("loss", "loss_reader", "loss_early"):
        values = [line[name] for line in lines if name in line]
        assert sum(values[-5:]) < 0.7 * sum(values[:5]), name
    assert sum(line["recall_at_1"] for line in lines[-5:]) / 5 > 0.8


def test_held_out_questions_are_measured_and_never_trained_on(make_job: MakeJob) -> None:
    many = [
        Question(id=str(number), question=f"where was number {number}", answers=("Tarvik",))
        for number in range(40)
    ]
    job = make_job(many, held_out=0.25, batch_size=8)
    trained, held = ({q.id for q in part} for part in (job.mixture.questions, job.eval_questions))
    assert held
    assert not trained & held
    assert trained | held == {q.id for q in many}
    measured = job.evaluate(0)
    assert 0 <= measured["eval/recall_at_1"] <= measured["eval/recall_at_5"] <= 1
    assert all(value.abs().sum() == 0 for value in gradients(job))


def test_where_every_question_would_be_held_out_all_are_trained_on(make_job: MakeJob) -> None:
    job = make_job(held_out=1 - 1e-9)
    assert list(job.mixture.questions) == QUESTIONS
    assert job.eval_questions == []
    assert job.evaluate(0) == {}


def test_the_beam_is_at_most_the_corpus(make_job: MakeJob) -> None:
    assert make_job(retriever_beam=10_000, num_passages=5_000).step(0)["readable"] == 1.0


def test_no_questions_are_refused(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match="no training questions"):
        finetune([], store, tmp_path / "run", run=start["embedder"], config=config())


@pytest.mark.parametrize(
    ("run", "missing"), [("embedder", "has no encoder"), ("encoder", "has no embedder")]
)
def test_a_start_without_its_parts_is_refused_and_leaves_no_run(
    store: PassageStore, start: dict[str, Path], tmp_path: Path, run: str, missing: str
) -> None:
    with pytest.raises(ConfigError, match=missing):
        finetune(QUESTIONS, store, tmp_path / "run", run=start[run], config=config())
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_vocabulary_is_refused(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    tokens = [store.tokenizer.token(number) for number in range(store.tokenizer.vocab_size)]
    other = WordpieceTokenizer.from_vocabulary([*tokens, "zzz"])
    scratch = load_pretrained(EncoderConfig(init="scratch:1x32"), tokenizer=other)
    model = Model(tokenizer=other, encoder=scratch.build_encoder())
    save_checkpoint(tmp_path / "encoder", model, settings={}, inputs={})
    with pytest.raises(ConfigError, match="another tokenizer"):
        finetune(
            QUESTIONS,
            store,
            tmp_path / "run",
            run=start["embedder"],
            encoder=tmp_path / "encoder",
            config=config(),
        )


def test_with_everything_on_the_gradient_is_still_that_of_one_graph(
    make_job: MakeJob, store: PassageStore
) -> None:
    """Gold passages, hybrid retrieval, drawn passages, the null passage: both losses, one tower."""
    settings: dict[str, Any] = {
        "batch_size": 3,
        "draw_from": 6,
        "gold_passages": True,
        "null_passage": True,
        "retriever": "hybrid",
        "lexical_weight": 0.5,
    }
    gold = [replace(question, passage_id=f"a{n}") for n, question in enumerate(QUESTIONS)]
    lexical = Bm25Retriever.open(store)
    job = make_job(gold, lexical=lexical, **settings)
    loss = job.step(0)["loss"]
    found = gradients(job)

    plain = make_job(gold, lexical=lexical, **settings)
    hybrid = plain.hybrid
    assert hybrid is not None
    losses: list[Tensor] = []
    for number in plain.mixture.at(0, 3):
        question = plain.mixture.questions[number]
        vectors = plain.dense.embed([question.question])
        rows, words = hybrid.search([question.question], vectors, 8)
        scores = (vectors @ plain.dense.snapshot.exact[rows[0]].T)[0] + words[0]
        judged = judge(store, question, rows[0].tolist(), gold_passages=True)
        assert judged.gold
        right = torch.from_numpy(judged.is_right)
        losses.append(-correct_log_likelihood(scores[None], right[None])[0])
        draw = np.random.default_rng([plain.config.seed, 0, number])
        read = rows_to_read(judged, plain.config, draw)
        assert read[0] in judged.gold
        prior = vectors @ plain.dense.snapshot.exact[torch.tensor(read)].T
        prior = (prior[0] + hybrid.weigh(question.question, torch.tensor(read))).log_softmax(dim=0)
        ids = store.tokenizer.encode(question.question).ids
        inputs = span_inputs(store, ids, [*read, NULL_ROW], plain.config.joint_wordpieces)
        *parts, null = span_logits(plain.reader, inputs, plain.reading.budget)
        logits = [*(part + p for part, p in zip(parts, prior, strict=True)), null]
        correct = correct_spans(store, question, [*read, NULL_ROW], logits, gold=judged.gold)
        flat = torch.cat([part.reshape(-1) for part in logits])
        losses.append(-correct_log_likelihood(flat[None], correct[None])[0])
    total = torch.stack(losses).sum() / 3
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    for value, other in zip(found, gradients(plain), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5)


def test_a_retriever_that_does_not_learn_costs_no_early_loss(make_job: MakeJob) -> None:
    job = make_job(retriever_rate=0.0)
    measured = job.step(0)
    assert "loss_early" not in measured
    assert measured["loss"] == measured["loss_reader"] > 0.0
    assert list(job.trained()) == ["reader"]
    assert all(p.grad is None for p in job.towers.query.parameters())


def test_a_retriever_that_does_not_learn_finds_in_training_what_it_finds_in_answering(
    make_job: MakeJob,
) -> None:
    job = make_job(retriever_rate=0.0)
    expected = job.step(0)["loss"]
    set_dropout(job.towers.train(), 0.3)
    assert [job.step(0)["loss"] for _ in range(3)] == [expected] * 3
    assert job.towers.query.training


def test_the_reader_learns_that_nothing_was_found(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    settings = config(
        steps=30,
        num_passages=2,
        draw_from=8,
        null_passage=True,
        null_rate=0.3,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
    )
    run = tmp_path / "run"
    finetune(
        [*QUESTIONS, NOWHERE],
        store,
        run,
        run=start["embedder"],
        encoder=start["encoder"],
        config=settings,
    )
    reader = load_model(run).need_reader()
    assert reader.reads_null
    lines = read_metrics(run)
    assert sum(line["loss_reader"] for line in lines[-5:]) < 0.5 * sum(
        line["loss_reader"] for line in lines[:5]
    )


def test_several_sets_are_part_of_what_a_run_is(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def tune(*also: QuestionSet) -> None:
        finetune(
            QUESTIONS,
            store,
            run,
            run=start["embedder"],
            encoder=start["encoder"],
            also=also,
            config=config(steps=1),
        )

    tune(QuestionSet(questions=[BY_PATTERN], weight=2.0))
    tune(QuestionSet(questions=[BY_PATTERN], weight=2.0))
    with pytest.raises(ArtifactError, match="other"):
        tune(QuestionSet(questions=[BY_PATTERN], weight=3.0))


def test_a_run_answers_with_the_retriever_that_its_reader_was_trained_with(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finetune(
        QUESTIONS,
        store,
        run,
        run=start["embedder"],
        encoder=start["encoder"],
        config=config(steps=2, retriever="hybrid", lexical_weight=50.0),
    )
    answerer = Answerer.load(run)
    assert answerer.retriever.name == "hybrid"
    asked = QUESTIONS[1].question
    words, _ = answerer.retriever.lexical.retrieve([asked], 3)[0]  # type: ignore[attr-defined]
    assert list(answerer.answer([asked], num_passages=3)[0].read_rows) == words
    assert answerer.dense.retrieve([asked], 3)[0][0] != words


@pytest.mark.parametrize("name", ["question_wordpieces", "joint_wordpieces"])
def test_inputs_longer_than_a_part_reads_are_refused_and_leave_no_run(
    store: PassageStore, make_short: MakeShort, tmp_path: Path, name: str
) -> None:
    settings = config(**{"question_wordpieces": 60, "joint_wordpieces": 70, name: 65})
    short = make_short(store)
    with pytest.raises(ConfigError, match=f"{name}=65, expected at most 64 wordpieces"):
        finetune(
            QUESTIONS,
            store,
            tmp_path / "run",
            run=short["embedder"],
            encoder=short["encoder"],
            config=settings,
        )
    assert not (tmp_path / "run").exists()
