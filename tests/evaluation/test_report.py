"""The report as JSON, as a table, and on disk."""

import dataclasses
import json
from pathlib import Path

import pytest

from realm.errors import ArtifactError
from realm.evaluation.abstention import measure_abstention
from realm.evaluation.report import (
    Breakdown,
    Metric,
    OverlapThird,
    QuestionRecord,
    Report,
    write_report,
)
from realm.storage import read_json

RECORD = QuestionRecord(
    id="q1",
    question="wer schrieb „Emma“?",
    answers=("Jane Austen",),
    answer_patterns=(),
    prediction="Jane Austen",
    probability=0.75,
    right=True,
    exact_match=True,
    f1=1.0,
    regex_match=None,
    rank=3,
    answer_was_read=True,
    error=None,
)
REPORT = Report(
    model="toy",
    model_fingerprint="0123456789abcdef",
    retriever="realm",
    corpus_fingerprint="fedcba9876543210",
    num_corpus_passages=20_958,
    split="squad.dev",
    split_fingerprint="5555",
    num_split_questions=5_537,
    normalizer="squad-orqa-v1",
    settings={"seed": 0},
    metrics={
        "exact_match": Metric(mean=0.25, low=0.2, high=0.3, num_questions=500),
        "recall@100": Metric(mean=1.0, low=1.0, high=1.0, num_questions=1_500),
    },
    median_seconds_per_question=0.01234,
    records=(RECORD,),
    failures={"AnsweringError": 2},
)


def test_the_json_names_model_corpus_split_settings_and_every_question() -> None:
    value = REPORT.as_json()
    question = value.pop("questions")
    assert question == [
        {
            "id": "q1",
            "question": "wer schrieb „Emma“?",
            "answers": ("Jane Austen",),
            "answer_patterns": (),
            "prediction": "Jane Austen",
            "probability": 0.75,
            "right": True,
            "exact_match": True,
            "f1": 1.0,
            "regex_match": None,
            "rank": 3,
            "answer_was_read": True,
            "error": None,
            "overlap": None,
            "refused": False,
            "train_overlap": None,
            "evidence": None,
        }
    ]
    assert value == {
        "format_version": 1,
        "kind": "report",
        "model": {"name": "toy", "fingerprint": "0123456789abcdef"},
        "retriever": "realm",
        "corpus": {"fingerprint": "fedcba9876543210", "num_passages": 20_958},
        "split": {
            "name": "squad.dev",
            "fingerprint": "5555",
            "num_questions": 5_537,
            "num_asked": 1,
        },
        "normalizer": "squad-orqa-v1",
        "settings": {"seed": 0},
        "metrics": {
            "exact_match": {"mean": 0.25, "low": 0.2, "high": 0.3, "num_questions": 500},
            "recall@100": {"mean": 1.0, "low": 1.0, "high": 1.0, "num_questions": 1_500},
        },
        "median_seconds_per_question": 0.01234,
        "failures": {"AnsweringError": 2},
        "overlap_thirds": {},
        "abstention": None,
        "breakdowns": {},
        "dropped": {},
        "training_sets": [],
    }


def test_the_table_is_plain_text_in_percent() -> None:
    assert REPORT.table().splitlines() == [
        "model                   toy (0123456789ab)",
        "retriever               realm",
        "corpus                  20,958 passages (fedcba987654)",
        "split                   squad.dev, 1 of 5,537 questions",
        "seconds per question    0.0123 (median)",
        "failed: AnsweringError  2",
        "",
        "metric                   mean  95 % interval  questions",
        "exact_match              25.0   20.0 to 30.0        500",
        "recall@100              100.0  100.0 to 100.0      1,500",
    ]


def test_a_written_report_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_report(REPORT, path)
    assert read_json(path) == json.loads(json.dumps(REPORT.as_json()))
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write the report"):
        write_report(REPORT, tmp_path / "file" / "report.json")
    with pytest.raises(ArtifactError, match="cannot write the report"):
        write_report(REPORT, tmp_path)


def test_thirds_by_overlap_stand_side_by_side() -> None:
    metric = Metric(mean=0.5, low=0.25, high=0.755, num_questions=500)
    thirds = {
        name: OverlapThird(low=low, high=low + 0.25, metrics={"recall@5": metric})
        for name, low in (("least", 0.0), ("middle", 0.25), ("most", 0.75))
    }
    report = dataclasses.replace(REPORT, thirds=thirds)
    told = report.table().splitlines()
    assert [" ".join(line.split()) for line in told[-3:]] == [
        "words of the question that its passage holds least middle most",
        "share 0 to 25 25 to 50 75 to 100",
        "recall@5" + " 50.0 (25.0 to 75.5)" * 3,
    ]
    assert len({len(line) for line in told[-3:]}) == 1
    assert told[:-4] == REPORT.table().splitlines()
    third = report.as_json()["overlap_thirds"]["middle"]
    assert (third["low"], third["high"]) == (0.25, 0.5)
    assert third["metrics"]["recall@5"]["num_questions"] == 500


def test_what_the_probabilities_are_worth_stands_below_the_metrics() -> None:
    told = measure_abstention([0.9, 0.2], [True, False], min_probability=0.5, is_calibrated=True)
    report = dataclasses.replace(REPORT, abstention=told)
    lines = report.table().splitlines()
    assert lines[10:12] == ["", "probabilities           calibrated"]
    assert "no answer               50.0 (below 0.5)" in lines
    assert report.as_json()["abstention"]["share_refused"] == 0.5


def test_breakdowns_stand_below_one_another() -> None:
    metric = Metric(mean=0.5, low=0.25, high=0.755, num_questions=1_500)
    report = dataclasses.replace(
        REPORT,
        breakdowns={
            "question_word": Breakdown(metric="exact_match", groups={"who": metric}),
            "train_overlap": Breakdown(metric="exact_match", groups={"none": metric}),
            "gold_rank": Breakdown(metric="right", groups={"1": metric, "not found": metric}),
        },
        training_sets=({"name": "train.jsonl", "fingerprint": "7", "num_questions": 87_599},),
        dropped={"long answers": 3_000},
    )
    told = [" ".join(line.split()) for line in report.table().splitlines()]
    assert "training set train.jsonl, 87,599 questions" in told
    assert "dropped: long answers 3,000" in told
    columns = "mean 95 % interval questions"
    assert told[-9:] == [
        f"exact_match by question word {columns}",
        "who 50.0 25.0 to 75.5 1,500",
        "",
        f"exact_match by training overlap {columns}",
        "none 50.0 25.0 to 75.5 1,500",
        "",
        f"right by rank of the answer {columns}",
        "1 50.0 25.0 to 75.5 1,500",
        "not found 50.0 25.0 to 75.5 1,500",
    ]
    tables = [line for line in report.table().splitlines() if line.endswith(("500", "questions"))]
    assert len({len(line) for line in tables[-7:]}) == 1
    value = report.as_json()
    assert value["breakdowns"]["gold_rank"]["metric"] == "right"
    assert value["breakdowns"]["gold_rank"]["groups"]["1"]["num_questions"] == 1_500
    assert value["training_sets"] == [
        {"name": "train.jsonl", "fingerprint": "7", "num_questions": 87_599}
    ]
    assert value["dropped"] == {"long answers": 3_000}
