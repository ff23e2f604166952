"""Paired differences of two made-up reports, and McNemar's test against its definition."""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realm.errors import ArtifactError
from realm.evaluation.comparing import Comparison, Discordant, ReportFile, compare, mcnemar

METRIC = {"mean": 0.5, "low": 0.0, "high": 1.0, "num_questions": 4}


def question(number: int, **found: object) -> dict[str, object]:
    return {
        "id": f"q{number}",
        "question": f"who is {number}?",
        "answers": ["x"],
        "answer_patterns": [],
        "exact_match": False,
        "f1": 0.0,
        "regex_match": None,
        "rank": None,
        "answer_was_read": False,
        **found,
    }


def content(records: Sequence[Mapping[str, object]], **instead: Any) -> dict[str, Any]:
    names = ("exact_match", "f1", "recall@1", "recall@5", "reader_oracle@5", "mean_reciprocal_rank")
    return {
        "kind": "report",
        "model": {"name": "qa", "fingerprint": "0123456789abcdef"},
        "retriever": "dense",
        "corpus": {"fingerprint": "fedcba9876543210", "num_passages": 1_200},
        "split": {
            "name": "dev.jsonl",
            "fingerprint": "5" * 64,
            "num_questions": 5_537,
            "num_asked": len(records),
        },
        "normalizer": "squad-orqa-v1",
        "settings": {"regex_mode": "match", "num_retrieved": 100},
        "metrics": dict.fromkeys(names, METRIC),
        "questions": list(records),
        **instead,
    }


def report(records: Sequence[Mapping[str, object]], name: str = "a.json", **instead: Any) -> Any:
    return ReportFile(path=Path(name), content=content(records, **instead))


FIRST = [
    question(0, exact_match=True, f1=1.0, rank=1, answer_was_read=True),
    question(1, exact_match=True, f1=1.0, rank=2, answer_was_read=True),
    question(2, exact_match=False, f1=0.5, rank=4, answer_was_read=True),
    question(3, exact_match=False, f1=0.0, rank=None),
]
SECOND = [
    question(0, exact_match=True, f1=1.0, rank=2, answer_was_read=True),
    question(1, exact_match=False, f1=0.5, rank=8),
    question(2, exact_match=False, f1=0.0, rank=1, answer_was_read=True),
    question(3, exact_match=True, f1=1.0, rank=None),
]


def measured(comparison: Comparison) -> dict[str, tuple[float, float, float]]:
    return {
        name: (one.first, one.second, one.difference)
        for name, one in comparison.differences.items()
    }


def test_every_difference_is_what_can_be_counted_by_hand() -> None:
    comparison = compare(report(FIRST), report(SECOND, "b.json"))
    assert measured(comparison) == {
        "exact_match": (0.5, 0.5, 0.0),
        "f1": (0.625, 0.625, 0.0),
        "recall@1": (0.25, 0.25, 0.0),
        "recall@5": (0.75, 0.5, 0.25),
        "reader_oracle@5": (0.75, 0.5, 0.25),
        "mean_reciprocal_rank": (
            pytest.approx((1 + 1 / 2 + 1 / 4) / 4),
            pytest.approx((1 / 2 + 1 / 8 + 1) / 4),
            pytest.approx((1 / 2 + 3 / 8 - 3 / 4) / 4),
        ),
    }
    found = {name: one.discordant for name, one in comparison.differences.items()}
    one_each = Discordant(only_first=1, only_second=1, p_value=1.0)
    assert found == {
        "exact_match": one_each,
        "f1": None,
        "recall@1": one_each,
        "recall@5": Discordant(only_first=1, only_second=0, p_value=1.0),
        "reader_oracle@5": Discordant(only_first=1, only_second=0, p_value=1.0),
        "mean_reciprocal_rank": None,
    }
    assert {one.num_questions for one in comparison.differences.values()} == {4}


def test_the_interval_is_paired() -> None:
    """Two runs that differ on one question of 400 alike: as unpaired, ten times as wide."""
    first = [question(n, exact_match=n % 2 == 0, f1=1.0) for n in range(400)]
    second = [{**one, "exact_match": False} if n < 20 else one for n, one in enumerate(first)]
    same = compare(report(first), report(first)).differences["exact_match"]
    assert (same.low, same.difference, same.high) == (0.0, 0.0, 0.0)
    one = compare(report(first), report(second)).differences["exact_match"]
    half = 1.96 * (0.025 * 0.975 / 400) ** 0.5
    assert one.difference == pytest.approx(0.025)
    assert one.low == pytest.approx(0.025 - half, abs=0.004)
    assert one.high == pytest.approx(0.025 + half, abs=0.004)
    assert one.discordant == Discordant(only_first=10, only_second=0, p_value=2 / 2**10)


def test_the_other_way_round_everything_changes_sides() -> None:
    there, back = compare(report(FIRST), report(SECOND)), compare(report(SECOND), report(FIRST))
    for name, one in there.differences.items():
        other = back.differences[name]
        assert (one.first, one.second) == (other.second, other.first)
        assert one.difference == pytest.approx(-other.difference)
        assert one.low == pytest.approx(-other.high, abs=0.1)


def test_patterns_are_compared_by_regex_match() -> None:
    ours = [{"answers": [], "answer_patterns": ["x"], "exact_match": None, "f1": None}] * 3
    first = [question(n, **one, regex_match=True) for n, one in enumerate(ours)]
    second = [question(n, **one, regex_match=n == 0) for n, one in enumerate(ours)]
    metrics = {"metrics": {"regex_match": METRIC}}
    found = compare(report(first, **metrics), report(second, **metrics))
    assert measured(found) == {"regex_match": (1.0, pytest.approx(1 / 3), pytest.approx(2 / 3))}
    settings = {"settings": {"regex_mode": "search", "num_retrieved": 100}}
    with pytest.raises(ArtifactError, match="found regex_mode match and search"):
        compare(report(first, **metrics), report(second, **metrics, **settings))


def test_only_what_both_measured_alike_is_compared() -> None:
    """Another depth: other values of k, and ranks that end elsewhere."""
    second = {
        "metrics": dict.fromkeys(("exact_match", "recall@1", "mean_reciprocal_rank"), METRIC),
        "settings": {"regex_mode": "search", "num_retrieved": 20},  # no patterns: of no matter
    }
    found = compare(report(FIRST), report(SECOND, **second))
    assert set(found.differences) == {"exact_match", "recall@1"}


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ({"corpus": {"fingerprint": "0" * 64}}, "found corpus fedcba987654 and 000000000000"),
        (
            {"split": {"name": "test.jsonl", "fingerprint": "6" * 64}},
            r"found split dev.jsonl \(555555555555\) and test.jsonl \(666666666666\)",
        ),
        ({"normalizer": "squad-v1"}, "found normaliser squad-orqa-v1 and squad-v1"),
        ({"questions": FIRST[:3]}, r"found asked questions 4 \(\w+\) and 3 \(\w+\).*limit, seed"),
        ({"questions": FIRST[::-1]}, r"found asked questions 4 \(\w+\) and 4 \(\w+\)"),
        (
            {"questions": [{**FIRST[0], "answers": ["y"]}, *FIRST[1:]]},
            "found asked questions .*max_answer_tokens",
        ),
    ],
)
def test_reports_that_are_no_pairs_are_refused(instead: dict[str, Any], told: str) -> None:
    with pytest.raises(ArtifactError, match=rf"a.json and b.json do not compare: {told}"):
        compare(report(FIRST), report(FIRST, "b.json", **instead))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (None, "found no file"),
        ("{", "is damaged"),
        ('{"kind": "run"}', "found kind 'run', expected a report"),
        ('{"kind": "report"}', "found no model, retriever, .* questions, expected a whole report"),
        (json.dumps({**content([]), "questions": [{"id": "q"}]}), "found no question, answers"),
        (json.dumps({**content([]), "questions": 3}), "found no questions"),
    ],
)
def test_a_file_that_is_no_report_is_told(tmp_path: Path, written: str | None, told: str) -> None:
    path = tmp_path / "report.json"
    if written is not None:
        path.write_text(written, encoding="utf-8")
    with pytest.raises(ArtifactError, match=told):
        ReportFile.read(path)


def test_the_table_and_the_json_say_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content(FIRST)), encoding="utf-8")
    comparison = compare(ReportFile.read(path), report(SECOND, "b.json", retriever="bm25"))
    lines = comparison.table().splitlines()
    assert lines[0].endswith("a.json: qa (0123456789ab), dense")
    assert lines[1].endswith("b.json: qa (0123456789ab), bm25")
    assert lines[2].split() == ["corpus", "1,200", "passages", "(fedcba987654)"]
    assert lines[3].split()[1:] == ["dev.jsonl,", "4", "of", "5,537", "questions"]
    assert len({len(line) for line in lines[5:]}) == 1
    recall = next(line.split() for line in lines if line.startswith("recall@5"))
    assert recall[:4] == ["recall@5", "75.0", "50.0", "+25.0"]
    assert recall[-4:] == ["4", "1", "0", "1"]
    assert next(line for line in lines if line.startswith("f1")).split()[-3:] == ["-"] * 3
    told = json.loads(json.dumps(comparison.as_json()))
    assert (told["kind"], told["first"]["retriever"], told["second"]["retriever"]) == (
        "comparison",
        "dense",
        "bm25",
    )
    assert told["metrics"]["recall@5"]["discordant"] == {
        "only_first": 1,
        "only_second": 0,
        "p_value": 1.0,
    }


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 32),
        (6, 0, 2 / 64),
        (1, 9, 22 / 1024),  # 2 (1 + 10) / 2^10
        (2, 8, 112 / 1024),  # 2 (1 + 10 + 45) / 2^10
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p_value: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p_value, rel=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sum_of_what_is_as_improbable(only_first: int, only_second: int) -> None:
    """The other definition of a two-sided binomial test: all outcomes no likelier than this."""
    tosses = only_first + only_second
    chances = [Fraction(comb(tosses, heads), 2**tosses) for heads in range(tosses + 1)]
    expected = sum(chance for chance in chances if chance <= chances[only_first])
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)
    assert mcnemar(only_first, only_second) == pytest.approx(float(expected), rel=1e-12)


def test_mcnemar_of_thousands_of_questions() -> None:
    """Beyond what floats hold on the way; close to the normal approximation."""
    assert mcnemar(5_000, 5_000) == 1.0
    assert mcnemar(4_900, 5_100) == pytest.approx(0.0466, abs=0.0005)
    assert mcnemar(0, 5_000) == 0.0
