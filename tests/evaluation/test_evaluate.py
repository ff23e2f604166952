"""A fake answerer whose every number can be counted by hand."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from realm.config import EvaluateConfig
from realm.errors import AnsweringError, ArtifactError, ConfigError, CorpusError, RealmError
from realm.evaluation.evaluate import evaluate
from realm.evaluation.report import EXCERPT_CHARACTERS, Report, ShownEvidence
from realm.evaluation.train_overlap import TrainOverlap
from realm.records import Answer, AnsweredQuestion, Passage, Question

TEXTS = ("nothing here", "Jane Austen wrote it", "in 1815", "by Jane Austen again", "Sept 1st")


Table = Mapping[str, tuple[list[str], list[int]] | Exception]


class FakePassages:
    """Texts in a list."""

    fingerprint = "corpus"

    def __init__(self, texts: Sequence[str] = TEXTS) -> None:
        self.all = texts

    def __len__(self) -> int:
        return len(self.all)

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the text of each row."""
        return [self.all[row] for row in rows]


class FakeAnswerer:
    """Answers from a table: question -> (answer texts, rows) or an error."""

    model_name = "fake"
    model_fingerprint = "model"
    corpus_fingerprint = "corpus"

    def __init__(self, table: Table, *, seconds: float = 0) -> None:
        self.table = table
        self.seconds = seconds
        self.calls: list[tuple[list[str], int, int]] = []

    def answer(
        self, questions: Sequence[str], *, num_passages: int, num_retrieved: int
    ) -> list[AnsweredQuestion]:
        """Return what the table says, or raise it."""
        self.calls.append((list(questions), num_passages, num_retrieved))
        time.sleep(self.seconds * len(questions))
        return [self._one(question, num_passages) for question in questions]

    def _one(self, question: str, num_passages: int) -> AnsweredQuestion:
        reply = self.table[question]
        if isinstance(reply, Exception):
            raise reply
        texts, rows = reply
        answers = tuple(answer(text, 0.5 / (i + 1)) for i, text in enumerate(texts))
        return AnsweredQuestion(
            question=question,
            answers=answers,
            passage_rows=tuple(rows),
            read_rows=tuple(rows[:num_passages]),
        )


def answer(text: str, probability: float) -> Answer:
    passage = Passage(
        row=0, id="a#0", article_id="a", title="", text=text, start=0, end=len(text), sentences=()
    )
    return Answer(
        text=text,
        probability=probability,
        start=0,
        end=len(text),
        passage=passage,
        passage_probability=1.0,
    )


def asking(name: str, *answers: str, patterns: tuple[str, ...] = ()) -> Question:
    return Question(id=name, question=name, answers=answers, answer_patterns=patterns)


def configure(**settings: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate(settings)


def run(
    table: Table,
    questions: Sequence[Question],
    **settings: object,
) -> Report:
    config = configure(**{"num_passages": 2, "recall_at": (1, 3), **settings})
    return evaluate(FakeAnswerer(table), FakePassages(), questions, config=config, split_name="dev")


def means(report: Report) -> dict[str, float]:
    return {name: metric.mean for name, metric in report.metrics.items()}


def test_every_number_is_what_can_be_counted_by_hand() -> None:
    report = run(
        {
            "who": (["the jane austen!", "x"], [0, 3, 1, 2]),
            "when": (["in 1815"], [0, 1, 2]),
            "month": (["Sept 1"], [0, 1, 2, 4]),
            "none": ([], []),
        },
        [
            asking("who", "Jane Austen"),
            asking("when", "1815"),
            asking("month", patterns=("Sept?(ember)?",)),
            asking("none", "x"),
        ],
    )
    assert means(report) == pytest.approx(
        {
            "exact_match": 1 / 3,
            "f1": (1 + 2 / 3 + 0) / 3,
            "regex_match": 1.0,
            "recall@1": 0.0,
            "recall@3": 2 / 4,  # ranks 2, 3 and, beyond the largest k, 4
            "reader_oracle@2": 1 / 4,
            "mean_reciprocal_rank": (1 / 2 + 1 / 3 + 0 + 0) / 4,
        }
    )
    assert {name: metric.num_questions for name, metric in report.metrics.items()} == {
        "exact_match": 3,
        "f1": 3,
        "regex_match": 1,
        "recall@1": 4,
        "recall@3": 4,
        "reader_oracle@2": 4,
        "mean_reciprocal_rank": 4,
    }
    who, when, month, none = report.records
    assert (who.prediction, who.probability, who.right, who.rank) == (
        "the jane austen!",
        0.5,
        True,
        2,
    )
    assert (who.answer_was_read, when.answer_was_read) == (True, False)
    assert (when.right, when.f1, when.rank) == (False, pytest.approx(2 / 3), 3)
    assert (month.right, month.exact_match, month.f1, month.regex_match) == (True, None, None, True)
    assert (none.prediction, none.probability, none.right, none.rank) == ("", 0.0, False, None)


def test_a_record_shows_where_its_prediction_stands() -> None:
    text = f"{'before ' * 60}Jane Austen wrote it{' after' * 60}"
    said = replace(
        answer("Jane Austen", 0.9),
        passage=replace(answer(text, 0.9).passage, start=100, end=100 + len(text)),
        start=100 + text.index("Jane"),
        end=100 + text.index(" wrote"),
    )
    told = ShownEvidence.of(said)
    assert told.excerpt[told.start : told.end] == "Jane Austen"
    assert told.article_start == said.start
    assert set(told.excerpt.split()) == {"before", "Jane", "Austen", "wrote", "it", "after"}
    assert len(told.excerpt) <= 2 * EXCERPT_CHARACTERS + len("Jane Austen")
    report = run(
        {"q": (["Jane Austen"], [0]), "r": ([], [0])}, [asking("q", "Jane"), asking("r", "x")]
    )
    assert [one.evidence is not None for one in report.records] == [True, False]


def test_the_oracle_and_the_reciprocal_rank_look_at_their_own_depths() -> None:
    """Four are read, one counts for recall: the answer stands in the fourth, and is found."""
    questions = [asking("q", "Jane")]
    report = run({"q": (["x"], [0, 2, 4, 1])}, questions, num_passages=4, recall_at=(1,))
    assert {name: value for name, value in means(report).items() if "@" in name} == {
        "recall@1": 0.0,
        "reader_oracle@4": 1.0,
    }
    assert means(report)["mean_reciprocal_rank"] == 1 / 4
    report = run({"q": (["x"], [0, 2, 4, 1])}, questions, num_passages=3, recall_at=(1, 4))
    assert means(report)["reader_oracle@3"] == 0.0
    assert means(report)["recall@4"] == 1.0


def test_the_oracle_counts_what_was_read_wherever_it_stood() -> None:
    """A reader may read other passages than the first: what it read decides."""

    class Picky(FakeAnswerer):
        def _one(self, question: str, num_passages: int) -> AnsweredQuestion:
            answered = super()._one(question, num_passages)
            return dataclasses.replace(answered, read_rows=(1,))

    report = evaluate(
        Picky({"q": (["x"], [0, 2])}),
        FakePassages(),
        [asking("q", "Jane")],
        config=configure(num_passages=2, recall_at=(2,)),
        split_name="dev",
    )
    assert (means(report)["reader_oracle@2"], means(report)["recall@2"]) == (1.0, 0.0)


def test_an_answerer_without_passages_is_measured_by_its_answers_alone() -> None:
    answerer = FakeAnswerer({"who": (["Jane Austen"], []), "when": (["1815"], [])})
    report = evaluate(
        answerer,
        FakePassages(),
        [asking("who", "Jane Austen"), asking("when", "1816")],
        config=configure(),
        split_name="dev",
        retrieves=False,
        overlap=lambda question: len(question.question) / 10,
    )
    assert means(report) == {"exact_match": 0.5, "f1": 0.5}
    assert set(report.breakdowns) == {"question_word"}
    assert report.settings["num_retrieved"] == 0
    assert answerer.calls == [(["who", "when"], 0, 0)]
    assert report.as_json()["questions"][0]["rank"] is None


def test_questions_are_broken_down_by_word_rank_and_training_set() -> None:
    table: Table = {
        "who wrote it": (["Jane Austen"], [1]),
        "who read it": (["x"], [0, 2, 1]),
        "when was it": (["1815"], [0]),
    }
    questions = [
        asking("who wrote it", "Jane Austen"),
        asking("who read it", "Jane Austen"),
        asking("when was it", "1816"),
    ]
    seen = [asking("Who wrote it?", "x"), asking("Who is that?", "Jane Austen")]
    report = evaluate(
        FakeAnswerer(table),
        FakePassages(),
        questions,
        config=configure(num_passages=1, recall_at=(3,)),
        split_name="dev",
        train_overlap=TrainOverlap({"train.jsonl": seen}),
    )
    shares = {
        name: {group: metric.mean for group, metric in one.groups.items()}
        for name, one in report.breakdowns.items()
    }
    assert shares == {
        "question_word": {"who": 0.5, "when": 0.0},
        "train_overlap": {"question": 1.0, "answer only": 0.0, "none": 0.0},
        "gold_rank": {"1": 1.0, "2-5": 0.0, "not found": 0.0},
    }
    assert [record.train_overlap for record in report.records] == [
        "question",
        "answer only",
        "none",
    ]
    assert report.training_sets[0]["name"] == "train.jsonl"
    assert run(table, questions).records[0].train_overlap is None


def test_long_answers_are_dropped_and_counted() -> None:
    table: Table = {name: (["two words"], [0]) for name in ("a", "b", "c", "d")}
    questions = [
        asking("a", "two words", "these are three"),
        asking("b", "these are three"),
        asking("c", "one", patterns=("two",)),
        asking("d", "of three words", patterns=("two",)),
    ]
    report = run(table, questions, max_answer_tokens=2)
    assert [(r.id, r.answers) for r in report.records] == [
        ("a", ("two words",)),
        ("c", ("one",)),
        ("d", ()),
    ]
    assert report.dropped == {"long answers": 3, "questions without a short answer": 1}
    assert report.num_split_questions == 4
    assert report.split_fingerprint == run(table, questions).split_fingerprint
    assert "dropped: long answers" in report.table()
    assert len(run(table, questions, max_answer_tokens=2, limit=2).records) == 2
    assert run(table, questions).dropped == {}
    with pytest.raises(CorpusError, match=r"no answer of at most 1 word in 1 question,"):
        run(table, questions[:1], max_answer_tokens=1)


@pytest.mark.parametrize(
    ("rules", "name", "right"), [("orqa", "squad-orqa-v1", True), ("squad", "squad-v1", False)]
)
def test_the_normaliser_is_a_choice_that_the_report_names(
    rules: str, name: str, *, right: bool
) -> None:
    report = run({"q": (["Zu\u0308rich"], [0])}, [asking("q", "Z\u00fcrich")], normalizer=rules)
    assert (report.normalizer, report.records[0].right) == (name, right)
    assert report.records[0].f1 == float(right)


def test_only_metrics_that_questions_allow_are_reported() -> None:
    strings = run({"q": (["a"], [0])}, [asking("q", "a")])
    assert "regex_match" not in strings.metrics
    patterns = run({"q": (["a"], [0])}, [asking("q", patterns=("a",))])
    assert {"exact_match", "f1"}.isdisjoint(patterns.metrics)


def test_the_mean_lies_in_its_interval() -> None:
    table = {str(i): (["x" if i % 4 else "y"], [0]) for i in range(40)}
    report = run(table, [asking(str(i), "x") for i in range(40)])
    metric = report.metrics["exact_match"]
    assert metric.mean == 0.75
    assert 0.5 < metric.low < 0.75 < metric.high < 1


def test_none_right_of_few_is_not_certain() -> None:
    """A bootstrap of equal values has no width; a share of 20 questions has, in every metric."""
    table = {str(i): (["x"], [0]) for i in range(20)}
    report = run(table, [asking(str(i), "Jane Austen") for i in range(20)])
    found = {name: (metric.low, metric.high) for name, metric in report.metrics.items()}
    for name in ("exact_match", "recall@1", "recall@3", "reader_oracle@2"):
        assert found[name] == (0.0, pytest.approx(0.161, abs=0.001))
    assert report.breakdowns["question_word"].groups["other"].high == found["exact_match"][1]


@pytest.mark.parametrize(("mode", "right"), [("match", False), ("search", True)])
def test_patterns_are_anchored_unless_searching_is_set(mode: str, *, right: bool) -> None:
    questions = [asking("q", patterns=("1815",))]
    report = run({"q": (["in 1815"], [0])}, questions, regex_mode=mode)
    assert report.records[0].right is right


def test_k_is_at_most_the_corpus() -> None:
    answerer = FakeAnswerer({"q": (["a"], [0, 1, 2, 3, 4])})
    config = configure(num_passages=50, recall_at=(1, 20, 100))
    report = evaluate(
        answerer, FakePassages(), [asking("q", "Sept")], config=config, split_name="dev"
    )
    assert answerer.calls == [(["q"], 5, 5)]
    assert [name for name in report.metrics if "@" in name] == [
        "recall@1",
        "recall@5",
        "reader_oracle@5",
    ]
    assert report.metrics["recall@5"].mean == 1.0
    assert report.settings["num_retrieved"] == 5


def test_as_many_rows_are_asked_for_as_the_reader_or_the_largest_k_needs() -> None:
    for num_passages, recall_at, expected in [(2, (1, 3), 3), (4, (1, 3), 4)]:
        answerer = FakeAnswerer({"q": (["a"], [0])})
        config = configure(num_passages=num_passages, recall_at=recall_at)
        evaluate(answerer, FakePassages(), [asking("q", "a")], config=config, split_name="dev")
        assert answerer.calls == [(["q"], num_passages, expected)]


def test_rows_beyond_those_asked_for_do_not_count() -> None:
    report = run({"q": (["a"], [0, 0, 0, 1])}, [asking("q", "Jane")])
    assert report.records[0].rank is None


def test_a_bad_question_is_wrong_and_counted_and_costs_no_other() -> None:
    table: Table = {
        "good": (["a"], [1]),
        "bad": AnsweringError("too long"),
        "worse": RealmError("broken"),
        "also good": (["a"], [1]),
        "bad too": AnsweringError("too long as well"),
    }
    report = run(table, [asking(name, "a") for name in table], batch_size=4)
    assert [record.right for record in report.records] == [True, False, False, True, False]
    assert report.records[1].error == "AnsweringError: too long"
    assert report.records[0].error is None
    assert report.failures == {"AnsweringError": 2, "RealmError": 1}
    assert report.metrics["exact_match"].mean == 2 / 5
    assert report.metrics["exact_match"].num_questions == 5


def test_when_nothing_can_be_answered_there_is_no_report() -> None:
    table: Table = {"q": RealmError("no index")}
    with pytest.raises(
        AnsweringError, match=r"none of 1 question could .*'q', RealmError: no index"
    ):
        run(table, [asking("q", "a")])


def test_our_own_mistakes_are_not_hidden() -> None:
    with pytest.raises(KeyError):
        run({}, [asking("q", "a")])


def test_a_limit_draws_a_sample_that_only_the_seed_decides() -> None:
    names = [str(i) for i in range(50)]
    table = {name: (["a"], [0]) for name in names}
    questions = [asking(name, "a") for name in names]

    def drawn(seed: int) -> list[str]:
        return [r.id for r in run(table, questions, limit=10, seed=seed).records]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 10
    assert drawn(1) == sorted(drawn(1), key=int)
    assert drawn(1) != names[:10]


def test_a_limit_above_the_split_asks_everything() -> None:
    report = run({"q": (["a"], [0])}, [asking("q", "a")], limit=5)
    assert len(report.records) == report.num_split_questions == 1


def test_the_split_is_named_by_its_content_not_by_the_sample() -> None:
    questions = [asking("p", "a"), asking("q", "a")]
    table = {"p": (["a"], [0]), "q": (["a"], [0])}
    whole, sample = run(table, questions), run(table, questions, limit=1)
    assert whole.split_fingerprint == sample.split_fingerprint
    assert whole.split_fingerprint != run(table, questions[:1]).split_fingerprint
    assert (sample.num_split_questions, len(sample.records)) == (2, 1)


def test_repeated_questions_each_count() -> None:
    report = run({"q": (["a"], [0])}, [asking("q", "a"), asking("q", "b")])
    assert report.metrics["exact_match"].mean == 0.5


def test_questions_go_in_batches_and_progress_is_told() -> None:
    answerer = FakeAnswerer({str(i): (["a"], [0]) for i in range(5)})
    told: list[tuple[int, int]] = []
    evaluate(
        answerer,
        FakePassages(),
        [asking(str(i), "a") for i in range(5)],
        config=configure(batch_size=2),
        split_name="dev",
        progress=lambda done, total: told.append((done, total)),
    )
    assert [questions for questions, _, _ in answerer.calls] == [["0", "1"], ["2", "3"], ["4"]]
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_seconds_are_of_one_question() -> None:
    report = evaluate(
        FakeAnswerer({str(i): (["a"], [0]) for i in range(4)}, seconds=0.01),
        FakePassages(),
        [asking(str(i), "a") for i in range(4)],
        config=configure(batch_size=4),
        split_name="dev",
    )
    assert 0.01 <= report.median_seconds_per_question < 0.03


def test_the_report_says_what_was_measured() -> None:
    report = evaluate(
        FakeAnswerer({"q": (["a"], [0])}),
        FakePassages(),
        [asking("q", "a")],
        config=configure(),
        split_name="nq.dev",
        retriever_name="bm25",
    )
    assert (report.model, report.model_fingerprint, report.retriever, report.split) == (
        "fake",
        "model",
        "bm25",
        "nq.dev",
    )
    assert (report.corpus_fingerprint, report.num_corpus_passages) == ("corpus", 5)
    assert report.settings["bootstrap_samples"] == 1_000


@pytest.mark.parametrize("recall_at", [(), (0, 5)])
def test_impossible_depths_are_told(recall_at: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="recall_at: found"):
        run({"q": (["a"], [0])}, [asking("q", "a")], recall_at=recall_at)


def test_no_question_is_told() -> None:
    with pytest.raises(CorpusError, match="no question"):
        run({}, [])


def test_no_passage_is_told() -> None:
    with pytest.raises(CorpusError, match="no passage"):
        evaluate(
            FakeAnswerer({}),
            FakePassages(()),
            [asking("q", "a")],
            config=configure(),
            split_name="dev",
        )


def test_an_answerer_of_other_passages_is_refused() -> None:
    passages = FakePassages()
    passages.fingerprint = "other"
    with pytest.raises(ArtifactError, match="searches passages corpus, found passages other"):
        evaluate(
            FakeAnswerer({}),
            passages,
            [asking("q", "a")],
            config=configure(),
            split_name="dev",
        )


def test_thirds_by_overlap_are_measured_apart() -> None:
    """Nine questions; the three that share the fewest words with their passage find nothing."""
    names = [str(i) for i in range(9)]
    table = {name: (["a"], [1, 0] if int(name) >= 3 else [0, 2]) for name in names}
    questions = [asking(name, "Jane Austen") for name in reversed(names)]
    report = evaluate(
        FakeAnswerer(table),
        FakePassages(),
        questions,
        config=configure(num_passages=1, recall_at=(1,)),
        split_name="dev",
        overlap=lambda question: int(question.question) / 10,
    )
    assert report.records[0].overlap == 0.8
    assert list(report.thirds) == ["least", "middle", "most"]
    assert [(t.low, t.high) for t in report.thirds.values()] == [(0.0, 0.2), (0.3, 0.5), (0.6, 0.8)]
    assert [t.metrics["recall@1"].mean for t in report.thirds.values()] == [0.0, 1.0, 1.0]
    assert set(report.thirds["least"].metrics) == {"exact_match", "recall@1"}
    assert report.thirds["least"].metrics["recall@1"].num_questions == 3
    assert "recall@1" in report.table().splitlines()[-1]


def test_without_gold_passages_there_are_no_thirds() -> None:
    report = run({"q": (["a"], [0])}, [asking("q", "a")] * 9)
    assert report.thirds == {}
    assert report.records[0].overlap is None


def test_thirds_compare_what_all_of_them_have() -> None:
    """Only the first has answer strings, so that there is no exact match to compare."""
    table = {str(n): (["a"], [0]) for n in range(3)}
    report = evaluate(
        FakeAnswerer(table),
        FakePassages(),
        [asking("0", "a"), asking("1", patterns=("a",)), asking("2", patterns=("a",))],
        config=configure(recall_at=(1,)),
        split_name="dev",
        overlap=lambda question: int(question.question) / 10,
    )
    assert [set(third.metrics) for third in report.thirds.values()] == [{"recall@1"}] * 3
    assert report.table()


class Refusing(FakeAnswerer):
    """A calibrated run that says nothing less probable than 0.4; the best answers have 0.5."""

    def answer(
        self, questions: Sequence[str], *, num_passages: int, num_retrieved: int
    ) -> list[AnsweredQuestion]:
        told = super().answer(questions, num_passages=num_passages, num_retrieved=num_retrieved)
        return [
            replace(one, is_calibrated=True, min_probability=0.6 if "shy" in one.question else 0.4)
            for one in told
        ]


def test_a_guess_that_was_kept_back_is_judged_and_counted_as_refused() -> None:
    table: Table = {
        "who": (["Jane Austen"], [1]),
        "shy": (["in 1815"], [2]),
        "none": ([], []),
    }
    asked = [asking("shy", "in 1815"), asking("who", "Jane Austen"), asking("none", "x")]
    config = configure(num_passages=2, recall_at=(1,))
    report = evaluate(Refusing(table), FakePassages(), asked, config=config, split_name="dev")
    assert [record.refused for record in report.records] == [True, False, True]
    assert report.metrics["exact_match"].mean == pytest.approx(2 / 3)
    assert report.abstention is not None
    assert report.abstention.is_calibrated
    assert report.abstention.min_probability == 0.4  # of the last one answered


def test_without_a_calibration_only_what_found_nothing_is_refused() -> None:
    report = run(
        {"who": (["Jane Austen"], [1]), "none": ([], [])},
        [asking("who", "Jane Austen"), asking("none", "x")],
    )
    assert report.abstention is not None
    assert not report.abstention.is_calibrated
    assert report.abstention.share_refused == 0.5
    assert report.abstention.share_of_right_refused == 0
