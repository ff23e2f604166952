"""Every format of question files, and what is said about broken ones."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from realm.errors import CorpusError
from realm.evaluation.questions import questions_fingerprint, read_questions
from realm.records import Question

LINE = {"id": "q7", "question": "who wrote Emma?", "answers": ["Jane Austen"]}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "q.jsonl": bytes,
    "q.jsonl.gz": gzip.compress,
    "q.jsonl.bz2": bz2.compress,
    "q.jsonl.zst": zstandard.compress,
}


def write(folder: Path, *lines: object, name: str = "q.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PACKERS)
def test_plain_and_packed_files_read_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(PACKERS[name](json.dumps(LINE).encode() + b"\n"))
    assert read_questions(path) == [
        Question(id="q7", question="who wrote Emma?", answers=("Jane Austen",))
    ]


@pytest.mark.parametrize("name", PACKERS)
def test_files_packed_in_several_parts_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    line, pack = json.dumps(LINE).encode(), PACKERS[name]
    path.write_bytes(pack(line + b"\n") + pack(line))
    assert len(read_questions(path)) == 2


@pytest.mark.parametrize(
    ("keys", "answers", "patterns"),
    [
        ({"answers": ["a", "b"]}, ("a", "b"), ()),
        ({"answers": "a"}, ("a",), ()),
        ({"answer": "a"}, ("a",), ()),
        ({"answer": ["a", "b"]}, ("a", "b"), ()),
        ({"answers": ["a"], "answer": "b"}, ("a",), ()),
        ({"answers": [], "answer": "b"}, ("b",), ()),
        ({"answers": ["a", "b", "a"]}, ("a", "b"), ()),
        ({"answer_patterns": [r"Sept?(ember)?|Feb"]}, (), (r"Sept?(ember)?|Feb",)),
        ({"answers": None, "answer_patterns": r"\d+"}, (), (r"\d+",)),
    ],
)
def test_answers_come_under_any_of_the_known_keys(
    tmp_path: Path, keys: dict[str, object], answers: tuple[str, ...], patterns: tuple[str, ...]
) -> None:
    [question] = read_questions(write(tmp_path, {"question": "q?", **keys}))
    assert (question.answers, question.answer_patterns) == (answers, patterns)


def test_an_id_may_be_missing_or_null_or_a_number(tmp_path: Path) -> None:
    ids: list[dict[str, object]] = [{}, {"id": 5}, {"id": None}, {"id": 0}]
    lines = [{"question": "q?", "answer": "a", **one} for one in ids]
    found = [question.id for question in read_questions(write(tmp_path, *lines))]
    assert found == ["line-1", "5", "line-3", "0"]


def test_a_gold_passage_is_kept(tmp_path: Path) -> None:
    lines = [{**LINE, "passage_id": "squad-1", "answer_starts": {"x": [1]}}, LINE]
    assert [q.passage_id for q in read_questions(write(tmp_path, *lines))] == ["squad-1", None]


def test_repeated_questions_stay(tmp_path: Path) -> None:
    assert len(read_questions(write(tmp_path, LINE, LINE))) == 2


def test_byte_order_mark_blank_lines_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    line = json.dumps({**LINE, "question": "wer schrieb „Emma“?\u2028"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}".encode())
    assert [q.question for q in read_questions(path)] == ["wer schrieb „Emma“?"] * 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"answers": ["a"]}, r"keys \['answers'\] and no question"),
        ({"question": "", "answers": ["a"]}, "found '' as question"),
        ({"question": " \t", "answers": ["a"]}, "question, expected a text that is not empty"),
        ({"question": 5, "answers": ["a"]}, "found 5 as question"),
        ({"question": "q?"}, "no answers among keys"),
        ({"question": "q?", "answers": []}, "no answers among keys"),
        ({"question": "q?", "answers": ["a", ""]}, "found '' in answers"),
        ({"question": "q?", "answers": [5]}, "found 5 in answers"),
        ({"question": "q?", "answer": {"text": "a"}}, "in answer, expected strings"),
        ({"question": "q?", "answer_patterns": ["("]}, r"pattern '\(', expected a regex"),
        ({"question": "q\ud800?", "answers": ["a"]}, "half a surrogate pair"),
        ({"question": "q?", "answers": ["\udc00"]}, "half a surrogate pair"),
        ({"question": "q?", "answers": ["a"], "id": "\udc00"}, "half a surrogate pair"),
        ({"question": "q?", "answers": ["a"], "passage_id": "\udc00"}, "half a surrogate"),
        (["question"], "found a JSON list, expected an object"),
    ],
)
def test_a_line_that_is_no_question_is_told_with_its_number(
    tmp_path: Path, line: object, told: str
) -> None:
    path = write(tmp_path, LINE, line)
    with pytest.raises(CorpusError, match=told) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:2: found")


@pytest.mark.parametrize("text", ["{", "question,answers", "[" * 100_000, "1" * 5_000])
def test_a_line_that_is_no_json_is_told_with_its_number(tmp_path: Path, text: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"q\.jsonl:2: found"):
        read_questions(path)


def test_bad_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b'\n{"question": "caf\xe9"}\n')
    with pytest.raises(CorpusError, match=r"q\.jsonl:2: found a byte that is not UTF-8 \(0xe9"):
        read_questions(path)


@pytest.mark.parametrize("name", ["q.jsonl.gz", "q.jsonl.bz2", "q.jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_packed_file_is_told(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    packed = PACKERS[name](json.dumps(LINE).encode() * 50)
    path.write_bytes(packed[:-5] if damage == "cut" else b"no packed file at all")
    with pytest.raises(CorpusError, match="truncated or damaged"):
        read_questions(path)


def test_a_file_whose_packed_bytes_are_broken_inside_is_told(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl.gz"
    packed = bytearray(gzip.compress(json.dumps(LINE).encode() * 50))
    packed[12] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(CorpusError, match="truncated or damaged"):
        read_questions(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"found no file .*no\.jsonl"):
        read_questions(tmp_path / "no.jsonl")


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="found no file"):
        read_questions(tmp_path)


def test_a_line_without_end_is_told_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + '"' + "x" * (1 << 20) + "\n")
    with pytest.raises(CorpusError, match=r"q\.jsonl:2: found a line of more than 1,048,576"):
        read_questions(path)


def test_a_file_without_questions_is_told(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("\n\n")
    with pytest.raises(CorpusError, match="found no line"):
        read_questions(path)


def test_the_fingerprint_follows_questions_answers_and_order_but_not_ids() -> None:
    one = Question(id="1", question="a?", answers=("x",))
    two = Question(id="2", question="b?", answer_patterns=("x",))
    same = [Question(id="9", question="a?", answers=("x",), passage_id="p"), two]
    other = [Question(id="1", question="a?", answer_patterns=("x",)), two]
    fingerprint = questions_fingerprint([one, two])
    assert fingerprint == questions_fingerprint(same)
    assert fingerprint not in {
        questions_fingerprint([two, one]),
        questions_fingerprint([one]),
        questions_fingerprint(other),
    }
