"""What an encoder says by heart: the most probable words, counted one question at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import write_sources
from realm.config import EvaluateConfig
from realm.corpus.store import PassageStore
from realm.errors import AnsweringError, ConfigError
from realm.evaluation.closed_book import MOST_MASKS, ClosedBook, RecitedAnswers
from realm.evaluation.evaluate import evaluate
from realm.model.encoder import build_encoder
from realm.model.inputs import pad
from realm.records import Question
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

Make = Callable[..., Any]
QUESTIONS = ["who was born in basel", "where did gauss live as a surveyor?", "noether"]


@pytest.fixture
def model(tokenizer: WordpieceTokenizer, make_encoder: Make) -> Model:
    """An untrained encoder."""
    return Model(tokenizer=tokenizer, encoder=make_encoder())


@pytest.fixture
def reciting(model: Model, store: PassageStore) -> ClosedBook:
    return ClosedBook(model, store, question_wordpieces=40)


def by_hand(model: Model, question: str) -> list[tuple[float, str, float]]:
    """Return (mean log-probability, text, probability) for each number of blanks."""
    tokenizer, encoder = model.tokenizer, model.need_encoder().eval()
    ids = tokenizer.encode(question).ids
    found: list[tuple[float, str, float]] = []
    for count in range(1, MOST_MASKS + 1):
        blanks = [tokenizer.mask_id] * count
        whole = [tokenizer.cls_id, *ids, *blanks, tokenizer.sep_id, tokenizer.sep_id]
        segments = [0] * (len(whole) - 1) + [1]
        places = torch.arange(len(ids) + 1, len(ids) + 1 + count)
        with torch.inference_mode():
            inputs = pad([(whole, segments)], tokenizer.pad_id)
            logits = encoder(inputs, torch.zeros_like(places), places)
        chosen: list[int] = []
        total = 0.0
        for number, row in enumerate(logits.log_softmax(dim=-1)):
            for piece in row.argsort(descending=True).tolist():
                token = tokenizer.token(piece)
                is_word = token not in SPECIAL_TOKENS and token.removeprefix("##").isalnum()
                if is_word and not (number == 0 and token.startswith("##")):
                    chosen.append(piece)
                    total += float(row[piece])
                    break
        found.append((total / count, tokenizer.decode(chosen), float(torch.tensor(total).exp())))
    return sorted(found, reverse=True)


def test_the_answers_are_the_most_probable_words_by_mean_log_probability(
    model: Model, reciting: ClosedBook
) -> None:
    for question, said in zip(QUESTIONS, reciting.answer(QUESTIONS), strict=True):
        expected = by_hand(model, question)
        assert [answer.text for answer in said.answers] == [text for _, text, _ in expected]
        assert [answer.probability for answer in said.answers] == pytest.approx(
            [probability for _, _, probability in expected], rel=1e-3
        )
        assert (said.passage_rows, said.read_rows) == ((), ())


def test_a_full_stop_is_no_answer(model: Model, store: PassageStore) -> None:
    """What follows a question and ends a sentence: an encoder would say nothing else."""
    encoder, tokenizer = model.need_encoder(), model.tokenizer
    (stop,) = tokenizer.encode(".").ids
    (euler,) = tokenizer.encode("euler").ids
    with torch.no_grad():
        encoder.head.bias[[stop, tokenizer.sep_id]] += 60.0
        encoder.head.bias[euler] += 30.0
    (said,) = ClosedBook(model, store).answer(QUESTIONS[:1])
    assert {answer.text.replace(" ", "") for answer in said.answers} == {
        "euler" * count for count in range(1, MOST_MASKS + 1)
    }
    assert said.answers[0].probability < 1e-6  # of all words, not only of those allowed


def test_a_continuation_begins_no_answer(model: Model, store: PassageStore) -> None:
    tokenizer = model.tokenizer
    piece = tokenizer.vocabulary().index("##a")
    with torch.no_grad():
        model.need_encoder().head.bias[piece] += 60.0
    (said,) = ClosedBook(model, store).answer(QUESTIONS[:1])
    first, *others = sorted((answer.text for answer in said.answers), key=len)
    assert not first.startswith("##")
    assert [text[-count:] for count, text in enumerate(others, 1)] == ["a", "aa", "aaa", "aaaa"]
    assert not any(" " in text or "#" in text for text in others)


def test_room_in_the_vocabulary_is_no_word(
    store: PassageStore, bert_shape: dict[str, Any], tokenizer: WordpieceTokenizer
) -> None:
    """BERT's [unused1], and rows of the embedding beyond the tokenizer's last wordpiece."""
    pieces = [*tokenizer.vocabulary(), "[unused1]"]
    wider = WordpieceTokenizer.from_vocabulary(pieces)
    torch.manual_seed(0)
    encoder = build_encoder({"bert": {**bert_shape, "vocab_size": len(pieces) + 3}}).eval()
    with torch.no_grad():
        encoder.head.bias[len(pieces) - 1 :] += 60.0
    (said,) = ClosedBook(Model(tokenizer=wider, encoder=encoder), store).answer(QUESTIONS[:1])
    assert not any("unused" in answer.text or "UNK" in answer.text for answer in said.answers)


@pytest.mark.parametrize(
    ("question", "told"), [("\u2603", "no word that the model knows"), ("a " * 33, "at most 32")]
)
def test_a_question_that_cannot_be_read_is_told(
    reciting: ClosedBook, question: str, told: str
) -> None:
    with pytest.raises(AnsweringError, match=told):
        reciting.answer([question])
    assert isinstance(reciting.answer(["a " * 32])[0], RecitedAnswers)


def test_it_is_measured_by_its_answers_alone(model: Model, reciting: ClosedBook) -> None:
    best = by_hand(model, QUESTIONS[0])[0][1]
    asked = [
        Question(id="0", question=QUESTIONS[0], answers=(best,)),
        Question(id="1", question=QUESTIONS[1], answers=("nothing of the kind",)),
        Question(id="2", question="\u2603", answers=("snow",)),
    ]
    report = evaluate(
        reciting,
        reciting.store,
        asked,
        config=EvaluateConfig(bootstrap_samples=100),
        split_name="dev",
        retriever_name="closed-book",
        retrieves=False,
    )
    assert [record.right for record in report.records] == [True, False, False]
    assert report.failures == {"AnsweringError": 1}
    assert set(report.metrics) == {"exact_match", "f1"}


def write_run(folder: Path, model: Model, store: PassageStore | None, **settings: int) -> Path:
    save_checkpoint(checkpoint_folder(folder, 1), model, settings=settings, inputs={})
    if store is not None:
        write_sources(folder, store)
    return folder


def test_a_pre_trained_run_answers_itself_or_lends_its_encoder(
    model: Model, store: PassageStore, make_towers: Make, tmp_path: Path
) -> None:
    pretrained = write_run(tmp_path / "pretrain", model, store, query_wordpieces=24)
    without = Model(tokenizer=model.tokenizer, towers=make_towers())
    tuned = write_run(tmp_path / "qa", without, store)
    alone = ClosedBook.load(pretrained)
    assert (alone.model_name, alone.question_wordpieces) == ("pretrain", 24)
    assert alone.corpus_fingerprint == store.fingerprint
    lent = ClosedBook.load(tuned, encoder=pretrained)
    assert lent.model_fingerprint == alone.model_fingerprint != ""
    assert lent.answer(QUESTIONS) == alone.answer(QUESTIONS)
    with pytest.raises(ConfigError, match=r"qa has no encoder \(found: embedder\).*--encoder"):
        ClosedBook.load(tuned)


def test_a_warm_start_without_passages_reads_those_it_is_given(
    model: Model, store: PassageStore, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "mlm", model, None)
    assert ClosedBook.load(run, passages=store.folder).corpus_fingerprint == store.fingerprint
