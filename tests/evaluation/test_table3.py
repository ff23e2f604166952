"""Table 3 over a file of sentences: its cells, its count, its errors."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from realm.errors import ArtifactError, CorpusError
from realm.evaluation.table3 import (
    ClozeSentence,
    best_passage,
    read_sentences,
    table3,
    write_markdown,
)
from realm.explaining import CandidateExplanation, Explanation
from realm.records import Passage

ROOT = Path(__file__).parents[2]


def candidate(title: str | None, p_passage: float, p_answer: float) -> CandidateExplanation:
    passage = Passage(
        row=0, id="a#0", article_id="a", title=title or "", text="", start=0, end=0, sentences=()
    )
    return CandidateExplanation(
        passage=None if title is None else passage,
        p_passage=p_passage,
        p_answer=p_answer,
        gradient=0.0,
        utility=0.0,
    )


class FakeExplainer:
    """Explains "3 is a [MASK] prime." well, and everything else badly."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], int]] = []

    def explain(
        self, text: str, *, answers: Sequence[str] = (), num_candidates: int = 8
    ) -> Explanation:
        self.asked.append((text, tuple(answers), num_candidates))
        good = "prime" in text
        return Explanation(
            text=text,
            answer=" ".join(answers),
            num_masks=3,
            p_without=1.1e-14 if good else 0.5,
            p_marginal=0.129 if good else 0.25,
            predicted_without="a",
            predicted="b",
            candidates=(
                candidate(None, 0.1, 0.6),
                candidate("Prime | number", 0.5, 0.01),
                candidate("257", 0.1, 1.0) if good else candidate("", 0.1, 0.0125),
            ),
        )


SENTENCES = (
    ClozeSentence(text="3 is a [MASK] prime.", answers=("Fermat",)),
    ClozeSentence(text="[MASK] | [MASK]", answers=("one", "two")),
)


def test_the_table_says_what_the_paper_says(tmp_path: Path) -> None:
    explainer, calls = FakeExplainer(), list[tuple[int, int]]()
    found = table3(
        explainer,
        SENTENCES,
        num_candidates=3,
        progress=lambda *done: calls.append(done),
    )
    assert explainer.asked == [(s.text, s.answers, 3) for s in SENTENCES]
    assert calls == [(1, 2), (2, 2)]
    assert found.num_helped == 1
    write_markdown(found, tmp_path / "new" / "table.md", head="# Table 3")
    assert (tmp_path / "new" / "table.md").read_text().splitlines() == [
        "# Table 3",
        "",
        "| sentence | y | without retrieval | best passage z | with z alone | with retrieval |",
        "|---|---|---|---|---|---|",
        "| 3 is a [MASK] prime. | Fermat | 1.1e-14 | 257 | 1.000 | 0.129 |",
        "| [MASK] \\| [MASK] | one two | 0.500 | a#0 | 0.013 | 0.250 |",
        "",
        "Retrieval makes the answer more probable in 1 of 2 sentences (3 candidates, the null "
        "passage included).",
    ]
    told = found.as_json()
    assert (told["num_helped"], told["num_sentences"], told["num_candidates"]) == (1, 2, 3)
    assert told["sentences"][0]["p_marginal"] == 0.129


def test_the_null_passage_is_never_the_best_one() -> None:
    explanation = FakeExplainer().explain("x", answers=["y"])
    assert best_passage(explanation).p_answer == 0.0125


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    """JSON may hold other line breaks as they are."""
    file = tmp_path / "sentences.jsonl"
    sentence = "a\u2028 [MASK] \x85"
    line = json.dumps({"sentence": sentence, "answer": "b"}, ensure_ascii=False)
    file.write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert [one.text for one in read_sentences(file)] == [sentence, sentence]


def test_sentences_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text(
        '{"sentence": "a [MASK]", "answer": "b", "article": "ignored"}\n\n'
        '{"sentence": "[MASK] c [MASK]", "answers": ["d", "e f"]}\n'
    )
    assert read_sentences(file) == [
        ClozeSentence(text="a [MASK]", answers=("b",)),
        ClozeSentence(text="[MASK] c [MASK]", answers=("d", "e f")),
    ]


def test_a_file_written_on_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"sentence": "a [MASK]", "answer": "b"}\r\n\r\n')
    assert read_sentences(file) == [ClozeSentence(text="a [MASK]", answers=("b",))]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "found no line"),
        ("{", ":1: found no JSON"),
        ("[1]", ":1: found a JSON list"),
        ('{"text": "a [MASK]"}', r":1: found keys \['text'\] and no sentence"),
        ('{"sentence": "a [MASK]"}', ":1: found None as answers"),
        ('{"sentence": "a [MASK]", "answers": []}', r":1: found \[\] as answers"),
        ('{"sentence": "a [MASK]", "answers": ["b", 3]}', r"found \['b', 3\] as answers"),
    ],
)
def test_what_is_no_sentence_is_told(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(CorpusError, match=told):
        read_sentences(file)


def test_files_that_cannot_be_read_or_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="found no file"):
        read_sentences(tmp_path / "gone.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match="UTF-8"):
        read_sentences(tmp_path / "bad.jsonl")
    found = table3(FakeExplainer(), SENTENCES)
    with pytest.raises(ArtifactError, match="cannot write the table"):
        write_markdown(found, tmp_path / "bad.jsonl" / "table.md")


def test_the_papers_sentence_and_ours_are_ready() -> None:
    first, *ours = read_sentences(ROOT / "reproductions" / "table3.jsonl")
    assert first.text.startswith("An equilateral triangle is easily constructed using")
    assert first.answers == ("Fermat",)
    assert len(ours) == 20
    assert all(sentence.text.count("[MASK]") == 1 for sentence in [first, *ours])
    assert all(sentence.answers[0] not in sentence.text for sentence in ours)


def test_whoever_reads_the_table_meanwhile_reads_the_whole_of_the_old_one(tmp_path: Path) -> None:
    """A new file takes its name when it is on the disk: a kill leaves the one or the other."""
    path = tmp_path / "table.md"
    path.write_text("the old one\n", "utf-8")
    with path.open(encoding="utf-8") as stream:
        write_markdown(table3(FakeExplainer(), SENTENCES), path)
        assert stream.read() == "the old one\n"
    assert "Fermat" in path.read_text("utf-8")
