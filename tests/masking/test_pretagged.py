"""Spans from a JSON-lines file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realm.errors import ConfigError, MaskingError
from realm.masking.pretagged import PretaggedTagger
from realm.records import Passage, Skipped

MakePassage = Callable[..., Passage]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_lines(*lines: object) -> Path:
        path = tmp_path / "spans.jsonl"
        text = [x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in lines]
        path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        return path

    return write_lines


def test_spans_are_looked_up_by_passage_id_in_any_order(
    write: Callable[..., Path], make_passage: MakePassage
) -> None:
    path = write(
        {"id": "2#0", "spans": [[0, 4, "LOC"]]},
        "",
        {"id": "ü", "spans": []},
        {"id": "0#0", "spans": [[8, 12, "PER"], [0, 4, "LOC"]]},
    )
    skipped = Skipped()
    passages = [make_passage("Bonn is Anna.", row=row) for row in range(3)]
    tagged = list(PretaggedTagger(path).tag(passages, skipped))
    assert [[(s.start, s.end, s.label) for s in spans] for spans in tagged] == [
        [(0, 4, "LOC"), (8, 12, "PER")],
        [],
        [(0, 4, "LOC")],
    ]
    assert skipped.counts == {"passage without a line in the jsonl file": 1}
    assert skipped.examples["passage without a line in the jsonl file"] == ["1#0"]


def test_of_overlapping_spans_the_longest_is_kept_and_the_others_counted(
    write: Callable[..., Path], make_passage: MakePassage
) -> None:
    path = write({"id": "0#0", "spans": [[0, 4, "A"], [0, 7, "B"]]})
    skipped = Skipped()
    (spans,) = PretaggedTagger(path).tag([make_passage("Bonn is Anna.")], skipped)
    assert [span.label for span in spans] == ["B"]
    assert skipped.counts == {"span overlaps a longer one in the jsonl file": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "found no JSON"),
        ("[1]", "found \\[1\\]"),
        ({"id": 3, "spans": []}, 'found {"id": 3'),
        ({"id": "0#0"}, "expected"),
        ({"id": "0#0", "spans": [[3, 3, "X"]]}, "found span \\[3, 3"),
        ({"id": "0#0", "spans": [[-1, 3, "X"]]}, "found span"),
        ({"id": "0#0", "spans": [[0, 3, ""]]}, "found span"),
        ({"id": "0#0", "spans": [[0, 3]]}, "found span"),
        ('{"id": "0#0", "spans": [[0, 3, "\\ud800"]]}', "a label of Unicode characters"),
        ({"id": "0#0", "spans": [["0", 3, "X" * 200]]}, "\\.\\.\\.; expected"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(
    line: object, message: str, write: Callable[..., Path]
) -> None:
    path = write({"id": "9#0", "spans": []}, line)
    with pytest.raises(MaskingError, match=rf"spans\.jsonl:2: .*{message}"):
        PretaggedTagger(path)


def test_a_line_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(MaskingError, match=r"spans\.jsonl:1: found no JSON"):
        PretaggedTagger(path)


def test_a_passage_that_stands_twice_is_named(write: Callable[..., Path]) -> None:
    path = write({"id": "a", "spans": []}, {"id": "b", "spans": []}, {"id": "a", "spans": []})
    with pytest.raises(MaskingError, match=r"spans\.jsonl:3: found the passage of line 1 again"):
        PretaggedTagger(path)


def test_a_span_beyond_its_passage_is_named(
    write: Callable[..., Path], make_passage: MakePassage
) -> None:
    tagger = PretaggedTagger(write({"id": "0#0", "spans": [[0, 99, "X"]]}))
    with pytest.raises(MaskingError, match=r"spans\.jsonl:1: .*13 characters"):
        list(tagger.tag([make_passage("Bonn is Anna.")], Skipped()))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no file"):
        PretaggedTagger(tmp_path / "none.jsonl")


def test_the_fingerprint_is_that_of_the_content(write: Callable[..., Path]) -> None:
    tagger = PretaggedTagger(write({"id": "a", "spans": []}))
    first = tagger.fingerprint
    assert tagger.name == "jsonl:spans.jsonl"
    write({"id": "b", "spans": []})
    assert tagger.fingerprint != first
