"""Wordpieces: text stays text, offsets slice, and joined inputs are cut where they may be."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer

from realm.errors import ConfigError
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

LETTERS = [*string.ascii_lowercase, *string.digits]
VOCABULARY = [
    *SPECIAL_TOKENS,
    *["the", "house", "mask", "sep", "cls"],
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *string.punctuation,
]
TOKENIZER = WordpieceTokenizer.from_vocabulary(VOCABULARY)
PIECES = st.lists(st.integers(5, 40), max_size=30)


def tokens(text: str) -> list[str]:
    return [TOKENIZER.token(number) for number in TOKENIZER.encode(text).ids]


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_special_tokens_written_in_a_text_are_text(special: str) -> None:
    """Otherwise an article could mask, end or pad itself."""
    ids = {TOKENIZER.pad_id, TOKENIZER.cls_id, TOKENIZER.sep_id, TOKENIZER.mask_id}
    text = f"the {special} house{special}"
    pieces = TOKENIZER.encode(text)
    assert not ids & set(pieces.ids)
    assert tokens("[MASK]") == ["[", "mask", "]"]
    assert TOKENIZER.encode_ids([text])[0] == pieces.ids
    assert TOKENIZER.encode_batch([text])[0] == pieces


@given(st.text(max_size=60))
def test_offsets_slice_the_text_in_order(text: str) -> None:
    ids, offsets = TOKENIZER.encode(text)
    assert len(ids) == len(offsets)
    position = 0
    for number, (start, end) in zip(ids, offsets, strict=True):
        assert position <= start < end <= len(text)
        position = start
        token = TOKENIZER.token(number)
        if text.isascii() and number != TOKENIZER.unk_id:
            assert text[start:end].lower() == token.removeprefix("##")


def test_case_and_accents_are_folded_and_offsets_still_slice() -> None:
    text = "Thé HOUSES"
    ids, offsets = TOKENIZER.encode(text)
    assert [TOKENIZER.token(n) for n in ids] == ["the", "house", "##s"]
    assert [text[s:e] for s, e in offsets] == ["Thé", "HOUSE", "S"]


@pytest.mark.parametrize("text", ["the \ud800 house", "\udcff", "house\ud83d"])
def test_half_a_surrogate_pair_is_dropped_and_offsets_stay_true(text: str) -> None:
    """An undecodable byte on a command line arrives so."""
    ids, offsets = TOKENIZER.encode(text)
    expected = [word for word in ("the", "house") if word in text]
    assert [TOKENIZER.token(n) for n in ids] == expected
    assert [text[s:e] for s, e in offsets] == expected
    assert TOKENIZER.encode_ids([text]) == [ids]
    assert TOKENIZER.encode_batch([text])[0].offsets == offsets


@given(st.lists(st.text(max_size=30), max_size=5))
def test_many_texts_are_encoded_as_one_by_one(texts: list[str]) -> None:
    alone = [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode_batch(texts) == alone
    assert TOKENIZER.encode_ids(texts) == [pieces.ids for pieces in alone]


def test_a_long_text_takes_time_in_proportion() -> None:
    """No window, no truncation: a text of a megabyte is encoded to its end."""
    ids, offsets = TOKENIZER.encode("the houses, " * 20_000)
    assert len(ids) == 80_000
    assert offsets[-1] == (239_998, 239_999)
    assert TOKENIZER.encode("x" * 200_000).ids == [TOKENIZER.unk_id]  # no word of a hundred letters


def test_nothing_has_no_wordpieces() -> None:
    for text in ("", " \n\t", "\u200b\x00"):
        assert TOKENIZER.encode(text).ids == []


def test_decoding_joins_continuations() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("The houses!").ids) == "the houses !"
    assert TOKENIZER.token(10_000) == "[UNK]"


@given(PIECES, PIECES, st.integers(8, 40))
def test_the_title_keeps_priority_in_a_passages_input(
    title: list[int], body: list[int], max_length: int
) -> None:
    """Section 3.2 and the released code: the title is cut at max_length - 3, the body after it."""
    ids, segments = TOKENIZER.passage_input(title, body, max_length)
    kept_title = title[: max_length - 3]
    kept_body = body[: max_length - 3 - len(kept_title)]
    cls, sep = TOKENIZER.cls_id, TOKENIZER.sep_id
    assert ids == [cls, *kept_title, sep, *kept_body, sep]
    assert segments == [0] * (len(kept_title) + 2) + [1] * (len(kept_body) + 1)
    assert len(ids) == len(segments) == min(max_length, len(title) + len(body) + 3)


@given(PIECES, PIECES, st.integers(8, 40))
def test_the_query_keeps_priority_in_a_joint_input(
    query: list[int], body: list[int], max_length: int
) -> None:
    ids, segments = TOKENIZER.joint_input(query, body, max_length)
    kept_query = query[: max_length - 3]
    kept_body = body[: max_length - 3 - len(kept_query)]
    cls, sep = TOKENIZER.cls_id, TOKENIZER.sep_id
    assert ids == [cls, *kept_query, sep, *kept_body, sep]
    assert segments == [0] * (len(kept_query) + 2) + [1] * (len(kept_body) + 1)


@given(PIECES, st.integers(8, 40))
def test_a_query_stands_between_cls_and_sep(query: list[int], max_length: int) -> None:
    ids, segments = TOKENIZER.query_input(query, max_length)
    assert ids == [TOKENIZER.cls_id, *query[: max_length - 2], TOKENIZER.sep_id]
    assert segments == [0] * len(ids)


def test_the_null_passage_is_an_empty_title_and_body() -> None:
    cls, sep = TOKENIZER.cls_id, TOKENIZER.sep_id
    assert TOKENIZER.passage_input([], [], 288) == ([cls, sep, sep], [0, 0, 1])
    assert TOKENIZER.joint_input([9], [], 384) == ([cls, 9, sep, sep], [0, 0, 0, 1])


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = WordpieceTokenizer.load(path)
        assert again.fingerprint == TOKENIZER.fingerprint
        assert again.encode("[MASK] Thé houses") == TOKENIZER.encode("[MASK] Thé houses")
        assert again.splits_at_spaces


def test_another_vocabulary_has_another_fingerprint() -> None:
    other = WordpieceTokenizer.from_vocabulary([*VOCABULARY, "more"])
    assert other.fingerprint != TOKENIZER.fingerprint
    assert other.vocab_size == TOKENIZER.vocab_size + 1 == len(VOCABULARY) + 1


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_vocab_txt_is_read_line_by_line(newline: str, tmp_path: Path) -> None:
    """A Unicode line separator is a wordpiece, not a line break: ids must not shift."""
    lines = [*VOCABULARY, "\u2028", "\x85", "last"]
    (tmp_path / "vocab.txt").write_bytes((newline.join(lines) + newline).encode())
    tokenizer = WordpieceTokenizer.load(tmp_path)
    assert tokenizer.vocab_size == len(lines)
    assert tokenizer.encode("last").ids == [len(lines) - 1]
    assert tokenizer.fingerprint == WordpieceTokenizer.from_vocabulary(lines).fingerprint


def test_a_cased_vocab_txt_is_cut_as_its_tokenizer_config_says(tmp_path: Path) -> None:
    """An encoder that reads upper case must not be given lower case alone."""
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "House", "house"]) + "\n")
    assert WordpieceTokenizer.load(tmp_path).encode("House").ids == [6]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    for path in (tmp_path, tmp_path / "vocab.txt"):
        assert WordpieceTokenizer.load(path).encode("House house").ids == [5, 6]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "no"}')
    with pytest.raises(ConfigError, match="found do_lower_case = 'no', expected true or false"):
        WordpieceTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("vocab.txt", b"the\nhouse\n", r"lacks \['\[PAD\]'"),
        ("vocab.txt", "\n".join([*VOCABULARY, "the"]).encode(), "'the' twice"),
        ("vocab.txt", b"\xff\xfe", "is not a vocab.txt"),
        ("tokenizer.json", b"{}", "is not a tokenizer.json"),
        ("tokenizer.json", b"\xff", "is not a tokenizer.json"),
        ("else.json", b"{}", "has no tokenizer.json or vocab.txt"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_refused_with_a_reason(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        WordpieceTokenizer.load(tmp_path)


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no tokenizer at"):
        WordpieceTokenizer.load(tmp_path / "absent")


def with_gap(gap: int, size: int = 1) -> str:
    """Return the tokenizer's file where the ids from `gap` on are `size` higher."""
    told = json.loads(TOKENIZER.as_json())
    words = told["model"]["vocab"]
    told["model"]["vocab"] = {word: n + size * (n >= gap) for word, n in words.items()}
    for token in told["added_tokens"]:
        token["id"] += size * (token["id"] >= gap)
    return json.dumps(told)


@pytest.mark.parametrize("gap", [0, 3])
def test_a_vocabulary_with_a_gap_has_no_vocab_txt(tmp_path: Path, gap: int) -> None:
    (tmp_path / "tokenizer.json").write_text(with_gap(gap))
    with pytest.raises(ConfigError, match=f"has no wordpiece {gap}; expected one for each id"):
        WordpieceTokenizer.load(tmp_path).vocabulary()


@pytest.mark.parametrize("gap", [0, 3, 50])
def test_a_vocabulary_with_a_gap_is_as_large_as_its_highest_id(tmp_path: Path, gap: int) -> None:
    """Embeddings, masks and columns of ids are made to this size, and looked up in by id."""
    (tmp_path / "tokenizer.json").write_text(with_gap(gap, 7))
    tokenizer = WordpieceTokenizer.load(tmp_path)
    assert tokenizer.vocab_size == len(VOCABULARY) + 7
    text = string.punctuation + "thehouses"
    moved = [number + 7 * (number >= gap) for number in TOKENIZER.encode(text).ids]
    assert tokenizer.encode(text).ids == moved
    assert max(moved) < tokenizer.vocab_size


def test_an_added_token_counts_among_the_wordpieces() -> None:
    told = json.loads(TOKENIZER.as_json())
    told["added_tokens"].append(
        told["added_tokens"][0] | {"content": "<more>", "id": len(VOCABULARY)}
    )
    tokenizer = WordpieceTokenizer(FastTokenizer.from_str(json.dumps(told)))
    assert tokenizer.vocab_size == len(VOCABULARY) + 1
    assert tokenizer.vocabulary()[-1] == "<more>"


def test_an_id_that_would_take_the_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(with_gap(3, 1 << 31))
    with pytest.raises(ConfigError, match=r"found the wordpiece id 2,147,\d{3},\d{3}, expected"):
        WordpieceTokenizer.load(tmp_path)
