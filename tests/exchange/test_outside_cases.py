"""Texts, joint inputs and answer places as the old tokenizer and retriever had them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realm.answering import Answerer
from realm.exchange.importing import import_weights
from realm.records import Question
from realm.retrieval.matching import answer_spans, wordpiece_spans
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

OUTSIDE = Path(__file__).parents[3] / "shared" / "parity"
pytestmark = pytest.mark.skipif(
    not OUTSIDE.is_dir(),
    reason="the outside parity set is not beside the repository (shared/parity)",
)


def read(name: str) -> Any:
    return json.loads((OUTSIDE / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("vocabulary", ["vocab.txt", "vocab_crlf.txt"])
def test_texts_have_the_same_wordpieces(vocabulary: str) -> None:
    tokenizer = WordpieceTokenizer.load(OUTSIDE / "tokenizer" / vocabulary)
    num_compared = 0
    for case in read("tokenizer/cases.json")["single"]:
        ids, _ = tokenizer.query_input(tokenizer.encode(case["text"]).ids, 512)
        if any(token in case["text"] for token in SPECIAL_TOKENS):
            assert ids != case["fast_ids"]  # "[MASK]" in a text is text here, a mask there
            continue
        assert ids == case["fast_ids"], case["text"]
        num_compared += 1
    assert num_compared >= 35


def test_pairs_have_the_same_inputs() -> None:
    """The passage is cut as there; a question longer than the room is not (ours keeps it)."""
    tokenizer = WordpieceTokenizer.load(OUTSIDE / "tokenizer")
    kept = []
    for case in read("tokenizer/cases.json")["pair"]:
        query, body = (tokenizer.encode(case[name]).ids for name in ("text", "pair"))
        limit = case["max_length"] or 512
        ids, segments = tokenizer.joint_input(query, body, limit)
        kept.append((ids, segments) == (case["input_ids"], case["token_type_ids"]))
        assert kept[-1] == (len(query) < len(body) or len(query) + len(body) + 3 <= limit)
    assert kept.count(True) >= 2


@pytest.mark.parametrize(
    ("name", "vocabulary"),
    [("cases", "tokenizer"), ("cases_hf_unittest_vocab", "tokenizer_hf_unittest")],
)
def test_answers_stand_in_the_same_places(name: str, vocabulary: str) -> None:
    """As there, but that unknown words equal only themselves: ours compares the text."""
    tokenizer = WordpieceTokenizer.load(OUTSIDE / vocabulary)
    cases = read("retriever_cases.json")
    for case in cases[name]:
        question = Question(id="q", question="?", answers=tuple(case["answers"] or ()))
        for place, number in enumerate(case["block_ids"]):
            text = cases["block_records"][number]
            pieces = tokenizer.encode(text)
            query = tokenizer.encode(case["question"]).ids
            ids, segments = tokenizer.joint_input(query, pieces.ids, case["max_length"])
            real = np.array(case["attention_mask"][place], dtype=bool)
            assert ids == np.array(case["input_ids"][place])[real].tolist()
            first = segments.index(1)
            found = wordpiece_spans(answer_spans(text, question), pieces.offsets)
            ours = {(first + a, first + b) for a, b in found if first + b < len(ids) - 1}
            starts, ends = ((case[key] or [[]] * 9)[place] for key in ("start_pos", "end_pos"))
            theirs = {(a, b) for a, b in zip(starts, ends, strict=True) if a >= 0}
            if tokenizer.unk_id in pieces.ids:  # "longer longer" in its own unit test: three hits
                assert ours < theirs
            else:
                assert ours == theirs


def test_passages_have_the_same_vectors(tmp_path: Path) -> None:
    """`[CLS] block [SEP]` through the imported tower gives the checkpoint's own block_emb."""
    import_weights(OUTSIDE / "openqa", tmp_path / "run")
    answerer = Answerer.load(tmp_path / "run")
    with np.load(OUTSIDE / "openqa" / "io.npz") as old:
        expected = torch.from_numpy(old["index/block_emb"])
        lengths = old["index/attention_mask"].sum(axis=1)
    retriever = answerer.retriever
    texts = [answerer.store.text(row) for row in range(len(answerer.store))]
    retriever.question_wordpieces = int(lengths.max())
    with torch.inference_mode():
        found = retriever.embed(texts)
    assert float((found - expected).abs().max()) <= 2e-5
    stored = retriever.snapshot.exact[torch.arange(len(texts))]
    assert torch.equal(stored, expected)
