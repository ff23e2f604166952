"""Claims: what a file must say, and numbers that can be counted by hand."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from realm.config import EvaluateConfig
from realm.errors import AnsweringError, CorpusError
from realm.evaluation.claim_report import ClaimReport
from realm.evaluation.claims import evaluate_claims, read_claims
from realm.evaluation.report import write_report
from realm.records import Claim, ClassifiedClaim, LabelEvidence, Passage

PASSAGE = Passage(
    row=0, id="a#0", article_id="a", title="A", text="A.", start=0, end=2, sentences=((0, 2),)
)
CONFIG = EvaluateConfig(bootstrap_samples=100, batch_size=3)


class Parrot:
    """Says of each claim what its last word is, with probability 0.75."""

    model_name = "parrot"
    model_fingerprint = "f" * 64
    corpus_fingerprint = "c" * 64
    labels = ("no", "perhaps", "yes")

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.num_passages: int | None = None

    def classify(
        self, claims: Sequence[str], *, num_passages: int | None = None
    ) -> list[ClassifiedClaim]:
        self.sizes.append(len(claims))
        self.num_passages = num_passages
        if any("unreadable" in claim for claim in claims):
            raise AnsweringError("cannot be read")
        return [self._say(claim, claim.split()[-1]) for claim in claims]

    def _say(self, claim: str, label: str) -> ClassifiedClaim:
        ranked = [label, *(other for other in self.labels if other != label)]
        return ClassifiedClaim(
            claim=claim,
            labels=tuple(
                LabelEvidence(
                    label=name,
                    probability=0.75 if name == label else 0.125,
                    passage=PASSAGE,
                    passage_probability=1.0,
                    label_probability=0.5,
                )
                for name in ranked
            ),
        )


def claims(*pairs: tuple[str, str]) -> list[Claim]:
    """Make claims of (label, what the parrot says)."""
    return [
        Claim(id=str(number), claim=f"claim {number} {said}", label=label)
        for number, (label, said) in enumerate(pairs)
    ]


def measured(*pairs: tuple[str, str], config: EvaluateConfig = CONFIG) -> ClaimReport:
    return evaluate_claims(Parrot(), claims(*pairs), config=config, split_name="dev")


PAIRS = (
    *[("yes", "yes")] * 4,
    *[("yes", "no")] * 2,
    *[("no", "no")] * 3,
    ("no", "yes"),
)
"""6 yes of which 4 are told; 4 no of which 3 are told; nothing is perhaps."""


def test_numbers_by_hand() -> None:
    report = measured(*PAIRS)
    assert report.accuracy.mean == pytest.approx(0.7)
    assert 0.2 < report.accuracy.low < 0.7 < report.accuracy.high <= 1.0
    assert report.majority == pytest.approx(0.6)
    yes, no, perhaps = (report.labels[name] for name in ("yes", "no", "perhaps"))
    assert (yes.precision, yes.recall) == (pytest.approx(4 / 5), pytest.approx(4 / 6))
    assert (no.precision, no.recall) == (pytest.approx(3 / 5), pytest.approx(3 / 4))
    assert yes.f1 == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))
    assert (perhaps.precision, perhaps.recall, perhaps.f1) == (None, None, None)
    assert (yes.num_claims, no.num_claims, perhaps.num_claims) == (6, 4, 0)
    assert report.confusion == {
        "no": {"no": 3, "perhaps": 0, "yes": 1},
        "perhaps": {"no": 0, "perhaps": 0, "yes": 0},
        "yes": {"no": 2, "perhaps": 0, "yes": 4},
    }
    assert [one.p_label for one in report.records] == [0.75] * 4 + [0.125] * 2 + [0.75] * 3 + [
        0.125
    ]


def test_twenty_right_claims_of_twenty_do_not_make_it_sure() -> None:
    accuracy = measured(*[("yes", "yes")] * 20).accuracy
    assert (accuracy.mean, accuracy.high) == (1.0, pytest.approx(1.0))
    assert accuracy.low == pytest.approx(0.839, abs=1e-3)


def test_a_claim_that_fails_counts_as_wrong_and_spoils_no_other() -> None:
    asked = [*claims(("yes", "yes"), ("no", "no")), Claim(id="x", claim="unreadable", label="no")]
    parrot = Parrot()
    report = evaluate_claims(parrot, asked, config=CONFIG, split_name="dev")
    assert parrot.sizes == [3, 1, 1, 1]
    assert report.accuracy.mean == pytest.approx(2 / 3)
    assert report.failures == {"AnsweringError": 1}
    assert (report.labels["no"].precision, report.labels["no"].recall) == (1.0, 0.5)
    assert report.records[2].error == "AnsweringError: cannot be read"
    assert report.records[2].prediction == ""
    assert report.records[2].evidence is None
    assert report.records[0].evidence is not None
    assert report.records[0].evidence.excerpt == PASSAGE.text


def test_where_every_claim_fails_there_are_no_numbers() -> None:
    asked = [Claim(id=str(n), claim="unreadable", label="no") for n in range(4)]
    with pytest.raises(AnsweringError, match="none of 4 claims could be classified"):
        evaluate_claims(Parrot(), asked, config=CONFIG, split_name="dev")


def test_a_label_that_the_run_does_not_know_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"claim 0: found label 'maybe', expected .*'perhaps'"):
        measured(("maybe", "no"))
    with pytest.raises(CorpusError, match="found no claim"):
        measured()


def test_a_limit_draws_claims_and_the_settings_are_reported() -> None:
    config = EvaluateConfig(bootstrap_samples=100, limit=4, seed=1, num_passages=7)
    parrot = Parrot()
    report = evaluate_claims(parrot, claims(*PAIRS), config=config, split_name="dev")
    assert len(report.records) == 4
    assert report.num_split_claims == len(PAIRS)
    assert parrot.num_passages == 7
    assert report.settings == {"num_passages": 7, "seed": 1, "limit": 4}


def test_the_table_and_the_json_say_the_same(tmp_path: Path) -> None:
    report = measured(*PAIRS)
    table = report.table()
    assert "accuracy   70.0 (95 % interval" in table
    assert "always the most frequent label: 60.0" in table
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line}
    assert rows["yes"] == ["80.0", "66.7", "72.7", "6", "2", "0", "4"]
    assert rows["no"] == ["60.0", "75.0", "66.7", "4", "3", "0", "1"]
    assert rows["perhaps"] == ["-", "-", "-", "0", "0", "0", "0"]
    write_report(report, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert found["metrics"]["accuracy"]["mean"] == report.accuracy.mean
    assert found["confusion"]["yes"]["no"] == 2
    assert found["labels"]["perhaps"]["precision"] is None
    assert len(found["claims"]) == len(PAIRS)


def test_a_file_of_claims(tmp_path: Path) -> None:
    lines = [
        {"id": 75397, "claim": " Emma is a novel. ", "label": "SUPPORTS", "evidence": []},
        {"question": "is Emma a novel", "label": "yes"},
        {"id": None, "claim": "Emma is a ship.", "label": "no"},
    ]
    path = tmp_path / "claims.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert read_claims(path) == [
        Claim(id="75397", claim="Emma is a novel.", label="SUPPORTS"),
        Claim(id="line-2", claim="is Emma a novel", label="yes"),
        Claim(id="line-3", claim="Emma is a ship.", label="no"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "found no line, expected one claim a line"),
        ("no json\n", ":1: found no JSON"),
        ("[1]\n", "found a JSON list"),
        ('{"label": "yes"}\n', "found no claim among keys"),
        ('{"claim": " ", "label": "yes"}\n', "found ' ' as claim"),
        ('{"claim": "a"}\n', "found no label among keys"),
        ('{"claim": "a", "label": ""}\n', "found '' as label"),
        ('\n{"claim": "a", "label": true}\n', ":2: found True as label"),
        ('{"claim": "a", "label": "\\ud83d"}\n', "half a surrogate pair"),
    ],
)
def test_a_file_that_holds_no_claims(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "claims.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        read_claims(path)
    assert told in str(caught.value)
    with pytest.raises(CorpusError, match="found no file"):
        read_claims(tmp_path / "none.jsonl")
