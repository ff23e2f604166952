"""An imported open-QA checkpoint retrieves, answers and trains as the old code did.

Where ours differs on purpose, a test here says how: answers are cut from the text, questions keep
their unknown words, the question is never cut for the passage's sake, and batches are allowed.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from realm.answering import Answerer
from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.parts import Model
from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot, snapshot_folder
from realm.model.inputs import Inputs
from realm.model.realm import Budget, span_logits
from realm.records import Question
from realm.retrieval.matching import holds_answer
from realm.retrieval.reading import span_inputs
from realm.training.finetune_job import FinetuneJob
from realm.training.mixing import QuestionSet

FLOAT32, FLOAT64 = 2e-5, 1e-10
Recorded = Any


class OldQuestion:
    """One question of questions.json with the arrays that the old code recorded for it."""

    def __init__(self, old: Recorded, number: int, asked: dict[str, Any]) -> None:
        self.old, self.prefix, self.asked = old, f"q{number}", asked
        self.text: str = asked["question"]

    def array(self, mode: str, *names: str) -> Tensor:
        """Return an array of mode eval or train, under whichever name the set has it."""
        modes = {"eval": ("eval", "eval_answer"), "train": ("train", "train_answer")}[mode]
        return self.old.any_of(*(f"{self.prefix}/{m}/{name}" for m in modes for name in names))

    @property
    def vector(self) -> Tensor:
        return self.old.any_of(
            f"{self.prefix}/question_projection", f"{self.prefix}/eval_noanswer/question_projection"
        )

    @property
    def predicted_ids(self) -> list[int]:
        return self.array("eval", "predicted_answer_ids").tolist()

    @property
    def prediction(self) -> list[int]:
        """Passage, first and last wordpiece."""
        if self.old.has(f"{self.prefix}/eval/prediction"):
            block, _, start, end = self.array("eval", "prediction").tolist()
            return [block, start, end]
        return [int(self.array("eval", name)) for name in ("block_idx", "start_pos", "end_pos")]

    @property
    def lost_words(self) -> bool:
        """Whether the old code read another question: unknown words vanish there."""
        read = self.asked.get("question_as_read") or self.asked["retriever_decoded_question"]
        return "".join(read.split()) != "".join(self.text.lower().split())

    @property
    def losses(self) -> list[float]:
        """Sum, retriever's and reader's in training mode."""
        if self.old.has(f"{self.prefix}/train/losses"):
            return self.array("train", "losses").tolist()
        names = ("loss", "retriever_loss", "reader_loss")
        return [float(self.array("train", name)) for name in names]


@pytest.fixture(scope="module")
def run(run_of: Callable[[str], Path]) -> Path:
    return run_of("openqa")


@pytest.fixture
def model(run: Path) -> Model:
    return load_model(run)


@pytest.fixture(scope="module")
def questions(root: Path, recorded: Callable[[Path], Recorded]) -> list[OldQuestion]:
    old = recorded(root / "openqa")
    asked = json.loads((root / "openqa" / "questions.json").read_text(encoding="utf-8"))
    return [OldQuestion(old, number, one) for number, one in enumerate(asked)]


@pytest.fixture(scope="module")
def store(run: Path) -> PassageStore:
    return PassageStore.open(run / "passages")


@pytest.fixture(scope="module")
def snapshot(run: Path) -> Snapshot:
    return Snapshot.open(snapshot_folder(run, 0), verify=True)


def close(found: Tensor, expected: Tensor, tolerance: float = FLOAT32) -> bool:
    scale = max(1.0, float(expected.abs().max()))
    return float((found.detach() - expected).abs().max()) <= tolerance * scale


def test_same_passages_by_the_same_scores(
    model: Model, store: PassageStore, snapshot: Snapshot, questions: list[OldQuestion]
) -> None:
    tokenizer = store.tokenizer
    for question in questions:
        ids, segments = tokenizer.query_input(tokenizer.encode(question.text).ids, 512)
        inputs = Inputs(
            torch.tensor([ids]), torch.tensor([segments]), torch.ones(1, len(ids), dtype=torch.bool)
        )
        vector = model.need_towers().query(inputs)
        assert close(vector, question.vector)
        for mode in ("eval", "train"):
            rows = question.array(mode, "retrieved_ids", "retrieved_block_ids")
            scores, found = snapshot.search(vector, len(rows))
            assert found[0].tolist() == rows.tolist()
            assert close(scores[0], question.array(mode, "retrieved_logits"))


def test_the_beams_are_those_of_the_checkpoint(run: Path, questions: list[OldQuestion]) -> None:
    answerer = Answerer.load(run)
    answered = answerer.answer([question.text for question in questions if not too_long(question)])
    for question, one in zip((q for q in questions if not too_long(q)), answered, strict=True):
        rows = question.array("eval", "retrieved_ids", "retrieved_block_ids").tolist()
        assert list(one.read_rows) == rows


def too_long(question: OldQuestion) -> bool:
    """Longer than half of what the reader reads (q5 of our set): the old code cuts both texts."""
    return len(question.text.split()) > 16


def test_same_answers_cut_from_the_text(run: Path, questions: list[OldQuestion]) -> None:
    """The old code returns the wordpieces of the best span; ours the characters of the best string.

    A string that stands in several places sums their probabilities here, so that it may come
    before the best single span ("the" in our set).
    """
    answerer = Answerer.load(run)
    num_compared = 0
    for question in questions:
        if question.lost_words or too_long(question):
            continue
        answered = answerer.answer([question.text], num_answers=1_000)[0]
        answers = answered.answers
        for one in answers:
            place = slice(one.start - one.passage.start, one.end - one.passage.start)
            assert one.passage.text[place] == one.text
        pieces = [answerer.store.tokenizer.encode(one.text).ids for one in answers]
        rank = pieces.index(question.predicted_ids)
        read = "\n".join(answerer.store.texts(answered.read_rows)).lower()
        assert all(read.count(better.text.lower()) > 1 for better in answers[:rank])
        num_compared += 1
    assert num_compared >= 4


def test_the_best_span_is_the_old_prediction(
    model: Model,
    store: PassageStore,
    snapshot: Snapshot,
    run: Path,
    questions: list[OldQuestion],
) -> None:
    """Before strings are summed: same passage, same first and last wordpiece, same ids."""
    lengths = Answerer.load(run).lengths
    budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=4_096)
    for question in questions:
        if question.lost_words or too_long(question):
            continue
        scores, rows = snapshot.search(question.vector, lengths.num_passages)
        pieces = store.tokenizer.encode(question.text).ids
        inputs = span_inputs(store, pieces, rows[0].tolist(), lengths.joint)
        with torch.inference_mode():
            logits = span_logits(model.need_reader(), inputs, budget)
        raised = [part + score for part, score in zip(logits, scores[0], strict=True)]
        block = max(range(len(raised)), key=lambda place: float(raised[place].max()))
        first, width = divmod(int(raised[block].argmax()), raised[block].shape[1])
        start = inputs[block].first + first
        assert inputs[block].ids[start : start + width + 1] == question.predicted_ids
        assert [block, start, start + width] == question.prediction


def test_a_batch_answers_as_one_by_one(run: Path, questions: list[OldQuestion]) -> None:
    """The old code takes one question at a time."""
    answerer = Answerer.load(run)
    asked = [question.text for question in questions if not too_long(question)]
    together = answerer.answer(asked)
    for text, one in zip(asked, together, strict=True):
        alone = answerer.answer([text])[0]
        assert [a.text for a in alone.answers] == [a.text for a in one.answers]
        assert [a.start for a in alone.answers] == [a.start for a in one.answers]


def test_unknown_words_stay_in_the_question(
    store: PassageStore, questions: list[OldQuestion]
) -> None:
    """The old reader gets a question without them; ours reads [UNK] where a word stood."""
    lost = [question for question in questions if question.lost_words]
    assert lost
    for question in lost:
        ids = store.tokenizer.encode(question.text).ids
        read = question.array("eval", "concat_input_ids", "input_ids")[0].tolist()
        assert store.tokenizer.unk_id in ids
        assert read[1 : read.index(store.tokenizer.sep_id)] != ids
        assert [i for i in ids if i != store.tokenizer.unk_id] == read[
            1 : read.index(store.tokenizer.sep_id)
        ]


def test_reader_reads_the_same(
    store: PassageStore, run: Path, questions: list[OldQuestion]
) -> None:
    """Same joint inputs, same places to answer from, and every [SEP] left out of them."""
    limit = Answerer.load(run).lengths.joint
    for question in questions:
        if question.lost_words or too_long(question):
            continue
        rows = question.array("train", "retrieved_ids", "retrieved_block_ids").tolist()
        ids = question.array("train", "concat_input_ids", "input_ids")
        mask = question.array("train", "concat_attention_mask", "attention_mask").bool()
        block = question.array("train", "block_mask").bool()
        pieces = store.tokenizer.encode(question.text).ids
        for place, item in enumerate(span_inputs(store, pieces, rows, limit)):
            assert item.ids == ids[place][mask[place]].tolist()
            assert block[place].nonzero()[:, 0].tolist() == list(range(item.first, item.last + 1))


def job_of(
    question: OldQuestion, model: Model, store: PassageStore, snapshot: Snapshot, run: Path
) -> FinetuneJob:
    answerer = Answerer.load(run)
    asked = Question(id="q", question=question.text, answers=tuple(question.asked["answers"]))
    config = FinetuneConfig(
        batch_size=1,
        dropout=0.0,
        autocast="none",
        num_passages=answerer.lengths.num_passages,
        retriever_beam=len(question.array("train", "retrieved_ids", "retrieved_block_ids")),
        question_wordpieces=answerer.lengths.question,
        joint_wordpieces=answerer.lengths.joint,
    )
    towers = model.need_towers().untied()
    sets = [QuestionSet(questions=[asked])]
    return FinetuneJob(sets, store, snapshot, towers, model.need_reader(), config)


def comparable(questions: list[OldQuestion], store: PassageStore) -> Iterator[OldQuestion]:
    """Yield questions whose answers both codes find in the same places.

    The old code looks for wordpieces in what is left of a cut block, ours for whole words in the
    text: an answer with an unknown word, or one beyond the cut, is found by one of them only.
    """
    for question in questions:
        if question.lost_words or too_long(question):
            continue
        rows = question.array("train", "retrieved_ids", "retrieved_block_ids").tolist()
        asked = Question(id="q", question=question.text, answers=tuple(question.asked["answers"]))
        theirs = question.array("train", "has_answers").bool().tolist()
        if holds_answer(store, rows, asked).tolist() == theirs:
            yield question


def test_a_training_step_has_the_same_losses(
    run: Path, store: PassageStore, snapshot: Snapshot, questions: list[OldQuestion]
) -> None:
    """The whole step, from text to loss, through `realm finetune`'s own job."""
    compared = 0
    for question in comparable(questions, store):
        job = job_of(question, load_model(run), store, snapshot, run)
        measured = job.step(0)
        found = [measured.get(name, 0.0) for name in ("loss", "loss_early", "loss_reader")]
        assert found == pytest.approx(question.losses, abs=2e-5, rel=2e-5), question.text
        compared += 1
    assert compared >= 3


def test_one_passage_may_be_read(run: Path, questions: list[OldQuestion]) -> None:
    """The old code crashes with a reader beam of one."""
    answered = Answerer.load(run).answer([questions[0].text], num_passages=1)[0]
    assert len(answered.read_rows) == 1
    assert answered.answers
