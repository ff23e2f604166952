"""Masked examples on disk and back."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realm.errors import ArtifactError
from realm.masking import store
from realm.masking.pieces import Masked, Pieces
from realm.masking.store import ExampleStore, ExampleWriter, examples_schema, to_batch
from realm.records import MaskedExample
from realm.storage import Request, publish
from realm.tokenizer import WordpieceTokenizer

ORIGINS = (3, 3, 3, 5, 9, 9, 9, 9, 12)


def example(row: int, origin: int) -> MaskedExample:
    return MaskedExample(
        row=row,
        origin=origin,
        origin_sha256=f"{origin:064x}",
        article_id=f"article {origin // 4}é",
        sentence=f"Satz {row}: Łódź 世界.",
        span_start=row,
        span_end=-1 if row == 2 else row + 4,
        label="NAME" if row % 2 else "DATE",
        original_ids=tuple(range(5, 10 + row)),
        query_ids=(4, *range(6, 10 + row)),
        positions=(0,),
        target_ids=(5,),
    )


EXAMPLES = [example(row, origin) for row, origin in enumerate(ORIGINS)]


def write(folder: Path, examples: Sequence[MaskedExample], tokenizer: WordpieceTokenizer) -> None:
    request = Request(kind="examples", settings={"scheme": "salient"}, inputs={"passages": "abc"})
    with publish(folder, request) as partial, ExampleWriter(partial, tokenizer) as writer:
        for start in range(0, len(examples), 3):
            writer.add(to_batch(examples[start : start + 3], tokenizer.vocab_size))


@pytest.fixture
def folder(tmp_path: Path, tokenizer: WordpieceTokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "ROWS_PER_BATCH", 4)
    write(tmp_path / "examples", EXAMPLES, tokenizer)
    return tmp_path / "examples"


def test_every_field_comes_back_from_every_batch(folder: Path) -> None:
    opened = ExampleStore.open(folder)
    assert len(opened) == len(EXAMPLES)
    assert [opened[row] for row in range(len(opened))] == EXAMPLES
    assert list(opened) == EXAMPLES
    assert opened[8] == EXAMPLES[8]


def test_what_it_was_made_from_is_known(folder: Path, tokenizer: WordpieceTokenizer) -> None:
    opened = ExampleStore.open(folder)
    assert opened.scheme == "salient"
    assert opened.passages_fingerprint == "abc"
    assert len(opened.fingerprint) == 64
    assert opened.tokenizer.fingerprint == tokenizer.fingerprint


def test_rows_of_a_passage_are_one_group(folder: Path) -> None:
    opened = ExampleStore.open(folder)
    assert opened.num_groups == 4
    assert [opened.group(i) for i in range(4)] == [
        range(3),
        range(3, 4),
        range(4, 8),
        range(8, 9),
    ]
    assert [opened.group_article(i) for i in range(4)] == [
        "article 0é",
        "article 1é",
        "article 2é",
        "article 3é",
    ]
    np.testing.assert_array_equal(opened.origin, ORIGINS)


def test_numpy_rows_are_rows_and_workers_open_the_folder_again(folder: Path) -> None:
    opened = ExampleStore.open(folder)
    assert opened[np.int64(5)] == EXAMPLES[5]
    assert opened.group(np.int64(1)) == range(3, 4)
    again, arguments = opened.__reduce__()
    assert again(*arguments)[5] == EXAMPLES[5]


@pytest.mark.parametrize("row", [-1, 9])
def test_a_row_that_is_not_there_is_an_index_error(folder: Path, row: int) -> None:
    opened = ExampleStore.open(folder)
    with pytest.raises(IndexError):
        opened[row]
    with pytest.raises(IndexError):
        opened.group(row)


def test_wordpieces_take_two_bytes_unless_the_vocabulary_is_larger() -> None:
    assert str(examples_schema(30_522).field("query_ids").type) == "list<item: uint16>"
    assert str(examples_schema(65_536).field("query_ids").type) == "list<item: uint16>"
    assert str(examples_schema(65_537).field("target_ids").type) == "list<item: uint32>"


def test_a_large_vocabulary_comes_back(tmp_path: Path) -> None:
    large = WordpieceTokenizer.from_vocabulary(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(70_000))]
    )
    item = replace(EXAMPLES[0], query_ids=(69_999, 4), original_ids=(69_999, 70_001))
    write(tmp_path / "examples", [item], large)
    assert ExampleStore.open(tmp_path / "examples")[0] == item


def test_a_damaged_file_is_named(folder: Path) -> None:
    (folder / "examples.arrow").write_bytes(b"ARROW1 but no more")
    with pytest.raises(ArtifactError, match=r"examples\.arrow is damaged"):
        ExampleStore.open(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "examples.arrow").unlink()
    with pytest.raises(ArtifactError, match=r"examples\.arrow is missing; make it again"):
        ExampleStore.open(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with publish(tmp_path / "passages", Request(kind="passages")):
        pass
    with pytest.raises(ArtifactError, match="expected 'examples'"):
        ExampleStore.open(tmp_path / "passages")


def test_a_writer_that_fails_publishes_nothing(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    broken = replace(EXAMPLES[1], origin_sha256="no hash")
    with pytest.raises(ValueError, match="hex"):
        write(tmp_path / "examples", [EXAMPLES[0], broken], tokenizer)
    assert not (tmp_path / "examples").exists()


def test_an_error_while_writing_is_passed_on(tmp_path: Path, tokenizer: WordpieceTokenizer) -> None:
    def write_and_fail() -> None:
        with ExampleWriter(tmp_path, tokenizer) as writer:
            writer.add(to_batch(EXAMPLES[:1], tokenizer.vocab_size))
            raise RuntimeError("the tagger fell over")

    with pytest.raises(RuntimeError, match="the tagger fell over"):
        write_and_fail()


def test_examples_may_lie_below_a_name_that_is_no_text(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    above = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        above.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    write(above / "examples", EXAMPLES, tokenizer)
    assert list(ExampleStore.open(above / "examples")) == EXAMPLES
    pieces = Pieces(above, vocab_size=tokenizer.vocab_size)
    batch = to_batch(EXAMPLES, tokenizer.vocab_size)
    pieces.write(range(9), [Masked(num_passages=9, num_masked=9, batches=[batch])])
    assert pieces.has(range(9))
    assert pieces.read(range(9)).batches == [batch]
