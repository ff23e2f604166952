"""Answers are words of the article, with their place, their probability and their passage."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import realm.model.reader
from realm.answering import Answerer, AnsweringLengths, answered_as_json
from realm.checkpoint.calibration import Calibration, save_calibration
from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.sources import write_sources
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.errors import AnsweringError, ArtifactError, ConfigError, CorpusError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import snapshot_folder
from realm.model.confidence import Calibrator
from realm.model.reader import Reader
from realm.model.realm import Budget, SpanInput, span_logits
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.reading import span_inputs
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

Make = Callable[..., Any]

LENGTHS = AnsweringLengths(question=24, joint=96)
QUESTIONS = ["where was fermat born", "who changed graph theory", "what is a street named after"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model(tokenizer: WordpieceTokenizer, make_towers: Make, make_reader: Make) -> Model:
    """Two towers and a reader, untrained."""
    return Model(tokenizer=tokenizer, towers=make_towers(share=False), reader=make_reader(widths=5))


@pytest.fixture
def answerer(model: Model, store: PassageStore, make_snapshot: Make) -> Answerer:
    return Answerer(model, store, make_snapshot(model.towers), lengths=LENGTHS)


@pytest.fixture
def run(model: Model, store: PassageStore, tmp_path: Path) -> Path:
    """A fine-tuned run as `finetune` leaves it."""
    folder = tmp_path / "runs" / "qa"
    save_checkpoint(
        checkpoint_folder(folder, 3),
        model,
        settings={"question_wordpieces": 24, "joint_wordpieces": 96},
        inputs={},
    )
    write_sources(folder, store)
    tower = model.need_towers().passage
    build_index(
        tower,
        store,
        snapshot_folder(folder, 0),
        version=EmbedderVersion(model_hash=tower_hash(tower)),
        config=IndexConfig(),
    )
    return folder


def one_passage(make_store: Make, text: str, *, name: str = "x") -> PassageStore:
    return make_store([{"id": name, "title": "", "text": text}], max_wordpieces=100)


# what is answered


def test_an_answer_is_a_stretch_of_its_article(
    answerer: Answerer, articles: list[dict[str, str]]
) -> None:
    texts = {article["id"]: article["text"] for article in articles}
    for answered in answerer.answer(QUESTIONS, num_passages=6, num_answers=20):
        assert len(answered.answers) == 20
        for answer in answered.answers:
            passage = answer.passage
            assert answer.text
            assert texts[passage.article_id][answer.start : answer.end] == answer.text
            assert (
                passage.text[answer.start - passage.start : answer.end - passage.start]
                == answer.text
            )
            assert passage.row in answered.read_rows


TRICKY = (
    "a\u00c0\u00e9 \u00df\u0301\u0130\u0131\ufb01\u65e5\u672c"  # accents, ligature, CJK
    "\U0001d518\U0001f469\u200d\n\t.\u200b\u00ad"  # beyond 16 bits, joiners, spaces
)
counter = itertools.count()


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    texts=st.lists(
        st.text(
            st.one_of(
                st.characters(exclude_categories=["Cs"]),
                st.sampled_from(TRICKY),
            ),
            min_size=1,
            max_size=60,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_the_script_an_answer_is_a_stretch_of_its_article(
    make_store: Make, model: Model, make_snapshot: Make, texts: list[str]
) -> None:
    texts = [*texts, texts[0]]
    articles = [
        {"id": str(number), "title": text[:5], "text": text} for number, text in enumerate(texts)
    ]
    try:
        store = make_store(articles)
    except CorpusError:  # nothing in it but spaces
        return
    snapshot = make_snapshot(model.towers, store, name=f"index{next(counter)}")
    answerer = Answerer(model, store, snapshot, lengths=LENGTHS)
    (answered,) = answerer.answer(["where was fermat born"], num_answers=50)
    assert answered.answers
    for answer in answered.answers:
        assert answer.text.strip()
        for one in (answer, *answer.same_text):
            assert texts[int(one.passage.article_id)][one.start : one.end] == answer.text
    assert sum(answer.probability for answer in answered.answers) <= 1 + 1e-5


def test_probabilities_are_the_softmax_over_all_spans_read(
    answerer: Answerer, model: Model, store: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reader logit + the passage's score, over every span of every passage together."""
    monkeypatch.setattr("realm.reading.NUM_SPANS", 10_000)
    (answered,) = answerer.answer(QUESTIONS[:1], num_passages=3, num_answers=10_000)
    (rows, scores), *_ = answerer.retriever.retrieve(QUESTIONS[:1], 3)
    ids = store.tokenizer.encode(QUESTIONS[0]).ids
    inputs = span_inputs(store, ids, rows, LENGTHS.joint)
    expected: dict[str, float] = {}
    with torch.no_grad():
        logits = span_logits(model.need_reader(), inputs, Budget(pad_id=0, batch_tokens=512))
        flat = torch.cat([part.flatten() + s for part, s in zip(logits, scores, strict=True)])
        probabilities = iter(flat.softmax(dim=0).tolist())
    for row, part in zip(rows, logits, strict=True):
        offsets = store.tokenizer.encode(store.text(row)).offsets
        for start, width in itertools.product(range(part.shape[0]), range(part.shape[1])):
            p = next(probabilities)
            if start + width < part.shape[0]:
                text = store.text(row)[offsets[start][0] : offsets[start + width][1]]
                expected[text.casefold()] = expected.get(text.casefold(), 0.0) + p
            else:
                assert p == 0.0
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-5)
    found = {answer.text.casefold(): answer.probability for answer in answered.answers}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)
    weights = dict(zip(rows, torch.tensor(scores).softmax(dim=0).tolist(), strict=True))
    for answer in answered.answers:
        assert answer.passage_probability == pytest.approx(weights[answer.passage.row], rel=1e-4)


def test_probabilities_fall_and_sum_to_at_most_one(answerer: Answerer) -> None:
    for answered in answerer.answer(QUESTIONS, num_passages=8, num_answers=500):
        found = [answer.probability for answer in answered.answers]
        assert found == sorted(found, reverse=True)
        assert 0.1 < sum(found) <= 1 + 1e-5
        assert len({answer.text.casefold() for answer in answered.answers}) == len(found)


def test_the_same_string_is_summed_whatever_its_case(
    make_store: Make, model: Model, make_snapshot: Make
) -> None:
    store = one_passage(make_store, "Euler EULER euler")
    answerer = Answerer(model, store, make_snapshot(model.towers, store), lengths=LENGTHS)
    (answered,) = answerer.answer(QUESTIONS[:1], num_answers=10)
    found = {answer.text.casefold(): answer.probability for answer in answered.answers}
    assert set(found) == {"euler", "euler euler", "euler euler euler"}
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)


def test_as_many_answers_as_asked_for(answerer: Answerer) -> None:
    for number in (1, 3):
        (answered,) = answerer.answer(QUESTIONS[:1], num_answers=number)
        assert len(answered.answers) == number


# what is retrieved and read


def test_the_best_passages_are_read_and_more_are_retrieved_for_recall(answerer: Answerer) -> None:
    (answered,) = answerer.answer(QUESTIONS[:1], num_passages=2, num_retrieved=7)
    assert len(answered.passage_rows) == 7
    assert answered.read_rows == answered.passage_rows[:2]
    (fewer,) = answerer.answer(QUESTIONS[:1], num_passages=4, num_retrieved=1)
    assert len(fewer.passage_rows) == len(fewer.read_rows) == 4


def test_no_more_passages_are_read_than_there_are(answerer: Answerer, store: PassageStore) -> None:
    (answered,) = answerer.answer(QUESTIONS[:1], num_passages=10_000)
    assert sorted(answered.read_rows) == list(range(len(store)))


def test_a_batch_is_answered_as_one_by_one(answerer: Answerer) -> None:
    together = answerer.answer(QUESTIONS)
    for question, answered in zip(QUESTIONS, together, strict=True):
        (alone,) = answerer.answer([question])
        assert answered.question == question
        assert answered.read_rows == alone.read_rows
        for one, other in zip(answered.answers, alone.answers, strict=True):
            assert (one.text, one.start, one.passage) == (other.text, other.start, other.passage)
            assert one.probability == pytest.approx(other.probability, rel=1e-4)


def test_copies_take_no_place_and_change_no_answer(
    model: Model, answerer: Answerer, make_store: Make, make_snapshot: Make, articles: Any
) -> None:
    """Of a few articles or of all, once or more often than passages are read."""
    for name, copied in (("once", [*articles]), ("often", articles[:3] * 6)):
        copies = [{**one, "id": f"{number}/{one['id']}"} for number, one in enumerate(copied)]
        store = make_store([*articles, *copies])
        snapshot = make_snapshot(model.towers, store, name=name)
        other = Answerer(model, store, snapshot, lengths=LENGTHS)
        for expected, found in zip(
            answerer.answer(QUESTIONS, num_passages=4),
            other.answer(QUESTIONS, num_passages=4),
            strict=True,
        ):
            assert store.texts(found.read_rows) == answerer.store.texts(expected.read_rows)
            assert found.read_probabilities == pytest.approx(expected.read_probabilities, rel=1e-3)
            for one, wanted in zip(found.answers, expected.answers, strict=True):
                assert one.text == wanted.text
                assert one.probability == pytest.approx(wanted.probability, rel=1e-3)
            assert found.evidence
            assert expected.evidence
            assert found.evidence.agreement == expected.evidence.agreement
            assert found.evidence.score_gap == pytest.approx(expected.evidence.score_gap, rel=1e-3)


def test_no_question_no_answer(answerer: Answerer) -> None:
    assert answerer.answer([]) == []


def test_a_retriever_of_another_scale_adds_nothing_to_the_reader(
    answerer: Answerer, store: PassageStore
) -> None:
    """BM25's scores are no log probabilities: its passages are read side by side."""

    class Fixed:
        name = "fixed"
        score_weight = 0.0

        def retrieve(self, questions: list[str], k: int) -> list[tuple[list[int], list[float]]]:
            return [(list(range(k)), [100.0 * row for row in range(k)]) for _ in questions]

    answerer.retriever = Fixed()
    (answered,) = answerer.answer(QUESTIONS[:1], num_passages=4, num_answers=50)
    assert {answer.passage_probability for answer in answered.answers} == {0.25}
    assert len({answer.passage.row for answer in answered.answers}) > 1
    assert answered.passage_rows == (0, 1, 2, 3)
    assert len(store) > 4


# what is refused


@pytest.mark.parametrize("question", ["", "   \n", "😀 ☃"])
def test_a_question_without_a_word_is_refused(answerer: Answerer, question: str) -> None:
    with pytest.raises(AnsweringError, match="expected some words"):
        answerer.answer([*QUESTIONS, question])


def test_a_question_that_is_too_long_is_refused(answerer: Answerer) -> None:
    fits = " ".join(["fermat"] * 22)
    assert answerer.answer([fits])
    with pytest.raises(AnsweringError, match=r"has 23 wordpieces .* at most 22; shorten"):
        answerer.answer([f"{fits} born"])


def test_a_snapshot_of_other_passages_is_refused(
    model: Model, make_store: Make, make_snapshot: Make
) -> None:
    other = one_passage(make_store, "Fermat was born in Toulouse.")
    with pytest.raises(ArtifactError, match="was built from passages"):
        Answerer(model, other, make_snapshot(model.towers))


def test_passages_of_another_vocabulary_are_refused(
    model: Model, store: PassageStore, make_snapshot: Make
) -> None:
    snapshot = make_snapshot(model.towers)
    other = WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, "fermat"])
    changed = Model(tokenizer=other, towers=model.towers, reader=model.reader)
    with pytest.raises(ConfigError, match="another tokenizer"):
        Answerer(changed, store, snapshot)


def test_a_model_without_a_reader_is_refused(
    model: Model, store: PassageStore, make_snapshot: Make
) -> None:
    with pytest.raises(ConfigError, match="has no reader"):
        without = Model(tokenizer=model.tokenizer, towers=model.towers)
        Answerer(without, store, make_snapshot(model.towers))


# a run on disk


def test_a_run_answers_from_the_passages_it_was_trained_with(
    run: Path, store: PassageStore
) -> None:
    answerer = Answerer.load(run)
    assert answerer.corpus_fingerprint == store.fingerprint
    assert answerer.lengths == LENGTHS
    assert answerer.model_name == "qa"
    manifest = json.loads((checkpoint_folder(run, 3) / "manifest.json").read_text())
    assert answerer.model_fingerprint == manifest["fingerprint"]
    assert not (run / "other-passages").exists()
    assert answerer.answer(QUESTIONS[:1])[0].answers


def test_a_checkpoint_of_a_run_answers_too(run: Path) -> None:
    before = sorted(path.name for path in checkpoint_folder(run, 3).iterdir())
    (found,) = Answerer.load(checkpoint_folder(run, 3)).answer(QUESTIONS[:1])
    (expected,) = Answerer.load(str(run)).answer(QUESTIONS[:1])
    assert found == expected
    assert sorted(path.name for path in checkpoint_folder(run, 3).iterdir()) == before


def test_other_passages_are_embedded_once_and_kept(run: Path, make_store: Make) -> None:
    other = one_passage(make_store, "Fermat was born in Toulouse. Euler was born in Basel.")
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    first = Answerer.load(run, passages=other.folder, progress=progress)
    assert calls == [(len(other), len(other))]
    assert first.corpus_fingerprint == other.fingerprint
    again = Answerer.load(run, passages=other.folder, progress=progress)
    assert len(calls) == 1
    assert again.answer(QUESTIONS[:1]) == first.answer(QUESTIONS[:1])
    assert len(list((run / "other-passages").iterdir())) == 1


def test_other_passages_are_embedded_anew_when_the_run_has_learnt_more(
    run: Path, model: Model, make_store: Make
) -> None:
    other = one_passage(make_store, "Fermat was born in Toulouse. Euler was born in Basel.")
    Answerer.load(run, passages=other.folder)
    towers = model.need_towers()
    with torch.no_grad():
        towers.passage.projection.bias.add_(0.5)
    settings = {"question_wordpieces": 24, "joint_wordpieces": 96}
    save_checkpoint(checkpoint_folder(run, 4), model, settings=settings, inputs={})
    calls: list[int] = []
    Answerer.load(run, passages=other.folder, progress=lambda done, _: calls.append(done))
    assert calls == [len(other)]


def test_a_run_whose_passages_are_unknown_asks_for_them(run: Path) -> None:
    (run / "sources.json").unlink()
    with pytest.raises(ArtifactError, match="--passages"):
        Answerer.load(run)


def test_answers_as_json_say_where_they_stand(
    answerer: Answerer, articles: list[dict[str, str]]
) -> None:
    texts = {article["id"]: article["text"] for article in articles}
    (answered,) = answerer.answer(QUESTIONS[:1])
    found = json.loads(json.dumps(answered_as_json(answered)))
    assert found["question"] == QUESTIONS[0]
    assert found["answer"] == answered.answers[0].text
    assert (found["calibrated"], found["min_probability"]) == (False, 0)
    assert found["evidence"]["probability"] == answered.answers[0].probability
    for item, answer in zip(found["answers"], answered.answers, strict=True):
        passage = item["passage"]
        text = texts[passage["article_id"]]
        assert text[item["start"] : item["end"]] == item["text"] == answer.text
        assert text[passage["start"] : passage["end"]] == passage["text"]
        assert item["probability"] == item["raw_probability"] == answer.probability
        assert passage["id"] == answer.passage.id
        assert passage["probability"] == answer.passage_probability


def test_an_answer_names_the_other_passages_with_its_text(
    model: Model,
    make_store: Make,
    make_snapshot: Make,
    articles: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each with all that a citation takes; in JSON without the text, which the answer has."""
    monkeypatch.setattr("realm.reading.NUM_SPANS", 10_000)
    copied = [{**article, "id": f"old/{article['id']}"} for article in articles[:-1]]
    store = make_store([*articles, *copied])
    answerer = Answerer(model, store, make_snapshot(model.towers, store), lengths=LENGTHS)
    (answered,) = answerer.answer(QUESTIONS[:1], num_passages=99, num_answers=9_999)
    told = json.loads(json.dumps(answered_as_json(answered)))
    texts = {article["id"]: article["text"] for article in [*articles, *copied]}
    seen: set[int] = set()
    for answer, entry in zip(answered.answers, told["answers"], strict=True):
        name = answer.passage.article_id.removeprefix("old/")
        seen.add(len(answer.same_text))
        assert len(answer.same_text) == (name != articles[-1]["id"])
        for mention, other in zip(answer.same_text, entry["same_text"], strict=True):
            passage = mention.passage
            assert {answer.passage.article_id, passage.article_id} == {name, f"old/{name}"}
            assert texts[passage.article_id][mention.start : mention.end] == answer.text
            rows = answered.passage_rows
            assert rows.index(answer.passage.row) < rows.index(passage.row)
            assert passage.row not in answered.read_rows
            assert other == {
                "start": mention.start,
                "end": mention.end,
                "passage": {
                    "id": passage.id,
                    "article_id": passage.article_id,
                    "title": passage.title,
                    "start": passage.start,
                    "end": passage.end,
                },
            }
    assert seen == {0, 1}


# how sure it is


def calibrated(answerer: Answerer, probability: float, threshold: float = 0.0) -> Answerer:
    """Say the same probability of every best answer."""
    odds = math.log(probability / (1 - probability))
    calibrator = Calibrator(names=(), means=(), scales=(), weights=(), bias=odds)
    answerer.calibration = Calibration(
        model_fingerprint="",
        retriever="dense",
        num_passages=3,
        calibrator=calibrator,
        min_probability=threshold,
    )
    return answerer


def test_evidence_is_what_the_answers_were_ranked_by(
    answerer: Answerer, model: Model, store: PassageStore
) -> None:
    (answered,) = answerer.answer(QUESTIONS[:1], num_passages=3)
    evidence = answered.evidence
    assert evidence
    (rows, scores), *_ = answerer.retriever.retrieve(QUESTIONS[:1], 3)
    best, second = answered.answers[:2]
    assert evidence.probability == best.probability
    assert evidence.margin == pytest.approx(best.probability - second.probability)
    assert evidence.score == scores[0]
    assert evidence.score_gap == pytest.approx(scores[0] - (scores[1] + scores[2]) / 2)
    ids = store.tokenizer.encode(QUESTIONS[0]).ids
    with torch.no_grad():
        logits = span_logits(
            model.need_reader(),
            span_inputs(store, ids, rows, LENGTHS.joint),
            Budget(pad_id=0, batch_tokens=512),
        )
    expected = max(float(part.max()) for part in logits)
    assert evidence.best_logit == pytest.approx(expected, rel=1e-5)
    first = store.tokenizer.encode(f"{store[rows[0]].title} {store[rows[0]].text}").ids
    assert evidence.overlap == pytest.approx(len(set(ids) & set(first)) / len(set(ids)))
    assert evidence.agreement in {0, 1 / 3, 2 / 3, 1}


def test_a_calibrated_run_says_how_often_it_is_right(answerer: Answerer) -> None:
    (raw,) = answerer.answer(QUESTIONS[:1])
    assert not raw.is_calibrated
    (told,) = calibrated(answerer, 0.8).answer(QUESTIONS[:1])
    assert told.is_calibrated
    assert told.answers[0].probability == pytest.approx(0.8)
    assert [one.text for one in told.answers] == [one.text for one in raw.answers]
    assert [one.raw_probability for one in told.answers] == [o.probability for o in raw.answers]
    chances = [one.probability for one in told.answers]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1 + 1e-6
    assert chances[1] / chances[2] == pytest.approx(
        raw.answers[1].probability / raw.answers[2].probability
    )


def test_below_the_threshold_there_is_no_answer_but_a_best_guess(answerer: Answerer) -> None:
    calibrated(answerer, 0.3, threshold=0.4)
    (told,) = answerer.answer(QUESTIONS[:1])
    assert told.is_refused
    assert told.best is None
    assert told.answers
    assert answered_as_json(told)["answer"] is None
    assert len(answered_as_json(told)["answers"]) == 5
    for threshold, is_refused in ((0.0, False), (0.2, False), (0.31, True)):
        (told,) = answerer.answer(QUESTIONS[:1], min_probability=threshold)
        assert told.is_refused == is_refused
        assert told.min_probability == threshold


def test_a_calibration_of_another_model_or_retriever_does_not_speak(answerer: Answerer) -> None:
    assert answerer.why_uncalibrated == "it has not been calibrated"
    calibrated(answerer, 0.3, threshold=0.4)
    assert answerer.why_uncalibrated is None
    answerer.model_fingerprint = "feed"
    assert "another model" in (answerer.why_uncalibrated or "")
    (told,) = answerer.answer(QUESTIONS[:1])
    assert not told.is_refused
    assert told.answers[0].probability == told.answers[0].raw_probability


def test_a_calibration_speaks_of_as_many_passages_as_it_was_fitted_with(answerer: Answerer) -> None:
    assert answerer.why_inexact(1) is None  # not calibrated at all
    calibrated(answerer, 0.3)
    assert answerer.why_inexact(3) is None
    assert answerer.why_inexact(1) == "it was calibrated reading 3 passages, not 1"
    default = answerer.lengths.num_passages
    assert answerer.why_inexact() == f"it was calibrated reading 3 passages, not {default}"
    (told,) = answerer.answer(QUESTIONS[:1], num_passages=1)
    assert told.is_calibrated
    assert told.why_inexact == answered_as_json(told)["why_inexact"] == answerer.why_inexact(1)
    answerer.model_fingerprint = "feed"
    assert answerer.why_inexact(1) is None


def test_a_run_brings_its_calibration_along(run: Path) -> None:
    assert Answerer.load(run).calibration is None
    fingerprint = Answerer.load(run).model_fingerprint
    made = Calibration(
        model_fingerprint=fingerprint,
        retriever="dense",
        num_passages=5,
        calibrator=Calibrator(names=(), means=(), scales=(), weights=(), bias=-20.0),
        min_probability=0.5,
    )
    save_calibration(run, made)
    for folder in (run, checkpoint_folder(run, 3)):
        answerer = Answerer.load(folder)
        assert answerer.calibration == made
        assert answerer.answer(QUESTIONS[:1])[0].is_refused
    (run / "calibration.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"calibration\.json"):
        Answerer.load(run)


def test_the_null_passage_takes_part_in_the_softmax_of_all_spans(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = answerer.answer(QUESTIONS[:1])
    answerer.passage_reader.reader.reads_null = True
    null = 40.0  # far above any span

    def with_null(reader: Reader, inputs: Sequence[SpanInput], budget: Budget) -> list[Any]:
        *found, last = span_logits(reader, inputs, budget)
        assert last.shape == (1, 5)
        assert torch.isfinite(last).sum() == 1  # of the null passage's one span
        return [*found, torch.full_like(last, null)]

    monkeypatch.setattr("realm.reading.span_logits", with_null)
    (after,) = answerer.answer(QUESTIONS[:1])
    assert after.evidence
    assert after.evidence.p_null == pytest.approx(1.0, abs=1e-3)
    assert after.answers[0].probability < 1e-3 * before.answers[0].probability
    assert after.answers[0].text == before.answers[0].text
    assert after.read_rows == before.read_rows
    null = 500.0
    (nothing,) = answerer.answer(QUESTIONS[:1])
    assert nothing.is_refused
    assert nothing.evidence is None


def test_the_null_passage_is_weighed_as_in_training_against_log_p_of_each_passage(
    answerer: Answerer,
) -> None:
    """Scores may be large, as inner products are: only their softmax counts beside the null."""
    answerer.passage_reader.reader.reads_null = True
    (rows, scores), *_ = answerer.retriever.retrieve(QUESTIONS[:1], 3)

    class Raised:
        name = "raised"
        score_weight = 1.0

        def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
            return [(rows[:k], [score + 30.0 for score in scores[:k]]) for _ in questions]

    (plain,) = answerer.answer(QUESTIONS[:1], num_passages=3)
    (raised,) = answerer.with_retriever(Raised()).answer(QUESTIONS[:1], num_passages=3)
    assert plain.evidence
    assert raised.evidence
    assert raised.evidence.p_null == pytest.approx(plain.evidence.p_null, rel=1e-4)
    ids = answerer.store.tokenizer.encode(QUESTIONS[0]).ids
    inputs = span_inputs(answerer.store, ids, [*rows, NULL_ROW], answerer.lengths.joint)
    budget = Budget(pad_id=answerer.store.tokenizer.pad_id, batch_tokens=4_096)
    with torch.no_grad():
        *parts, null = span_logits(answerer.passage_reader.reader, inputs, budget)
    prior = torch.tensor(scores).log_softmax(dim=0)
    spans = torch.cat([(part + p).flatten() for part, p in zip(parts, prior, strict=True)])
    expected = torch.cat([spans, null[0, :1]]).softmax(dim=0)[-1]
    assert plain.evidence.p_null == pytest.approx(float(expected), rel=1e-4)


def test_another_retriever_under_the_same_reader_leaves_the_answerer_as_it_is(
    answerer: Answerer,
) -> None:
    class First:
        name = "first"
        score_weight = 0.0

        def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
            return [(list(range(k)), [0.0] * k) for _ in questions]

    other = answerer.with_retriever(First())
    assert other.answer(QUESTIONS[:1], num_passages=2)[0].read_rows == (0, 1)
    assert answerer.retriever.name == "dense"


# in 16 bits


def test_reading_in_16_bits_moves_answers_little(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    hidden = realm.model.reader.hidden_states

    def look(*told: Any) -> torch.Tensor:
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return hidden(*told)

    monkeypatch.setattr("realm.device.has_quick_bfloat16", lambda _: True)
    monkeypatch.setattr(realm.model.reader, "hidden_states", look)
    exact = answerer.answer(QUESTIONS, num_answers=200)
    answerer.passage_reader.autocast = "bfloat16"
    rounded = answerer.answer(QUESTIONS, num_answers=200)
    assert set(seen) == {None, torch.bfloat16}
    for one, other in zip(exact, rounded, strict=True):
        assert one.read_rows == other.read_rows
        expected = {answer.text.casefold(): answer.probability for answer in one.answers}
        best = other.answers[0]
        assert abs(best.probability - expected[best.text.casefold()]) < 0.1


@pytest.mark.parametrize("is_quick", [True, False])
def test_16_bits_are_chosen_where_they_are_quicker(
    run: Path, monkeypatch: pytest.MonkeyPatch, *, is_quick: bool
) -> None:
    monkeypatch.setattr("realm.fine_tuned.has_quick_bfloat16", lambda _: is_quick)
    assert Answerer.load(run).passage_reader.autocast == "none"
    expected = "bfloat16" if is_quick else "none"
    assert Answerer.load(run, autocast="auto").passage_reader.autocast == expected


def test_an_answer_does_not_depend_on_what_is_read_beside_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer.load(run)
    assert answerer.passage_reader.reader.can_pack
    reads: list[list[int]] = []
    read_packed = realm.model.reader.Reader.read_packed

    def look(reader: Any, pack: Any, owners: Any) -> Any:
        reads.append(list(pack.lengths))
        return read_packed(reader, pack, owners)

    monkeypatch.setattr(realm.model.reader.Reader, "read_packed", look)
    alone = [answerer.answer([question])[0] for question in QUESTIONS]
    num_alone, packed = len(reads), [one for pack in reads for one in pack]
    together = answerer.answer(QUESTIONS)
    assert len(reads) == num_alone + 1  # all in one forward pass
    assert [n for n in reads[-1] if n in packed][: len(packed)]
    for one, other in zip(together, alone, strict=True):
        assert [a.text for a in one.answers] == [a.text for a in other.answers]
        expected = [answer.probability for answer in other.answers]
        assert [answer.probability for answer in one.answers] == pytest.approx(expected, rel=1e-4)


def test_reading_without_padding_finds_the_same_spans(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer.load(run)
    packed = answerer.answer(QUESTIONS, num_answers=50)
    monkeypatch.setattr(realm.model.reader.Reader, "can_pack", False)
    padded = answerer.answer(QUESTIONS, num_answers=50)
    for one, other in zip(packed, padded, strict=True):
        found = {answer.text.casefold(): answer.probability for answer in one.answers}
        expected = {answer.text.casefold(): answer.probability for answer in other.answers}
        assert found == pytest.approx(expected, rel=1e-3)
