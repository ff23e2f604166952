"""The span reader: all spans of at most so many wordpieces, inside the passage only (ORQA)."""

from collections.abc import Callable

import pytest
import torch

from realm.corpus.store import PassageStore
from realm.model.bert import hidden_states
from realm.model.inputs import pad
from realm.model.reader import Reader, build_reader
from realm.model.realm import Budget, SpanInput, span_logits
from realm.retrieval.reading import span_inputs
from realm.tokenizer import WordpieceTokenizer

ROWS = [0, 2, 14, 23]


@pytest.fixture
def inputs(store: PassageStore, tokenizer: WordpieceTokenizer) -> list[SpanInput]:
    question = tokenizer.encode("where was Fermat born?").ids
    return span_inputs(store, question, ROWS, max_length=64)


@pytest.mark.parametrize("widths", [1, 4, 40])
def test_every_span_has_the_score_of_a_plain_loop(
    widths: int, inputs: list[SpanInput], make_reader: Callable[..., Reader]
) -> None:
    """Score of i to j: h = LayerNorm(ReLU(W_start h_i + W_end h_j)), then w . h + b."""
    reader = make_reader(widths=widths)
    item = inputs[0]
    padded = pad([(i.ids, i.segments) for i in inputs], 0)
    places = torch.arange(padded.ids.shape[1])
    in_passage = (places >= item.first) & (places <= item.last)
    with torch.no_grad():
        found = reader(padded, in_passage.expand(len(inputs), -1))[0]
        hidden = hidden_states(reader.bert, pad([(item.ids, item.segments)], 0))[0]
        starts, ends = reader.projection(hidden).split(reader.span_hidden, dim=-1)
        for start in range(len(item.ids)):
            for width in range(widths):
                end = start + width
                if item.first <= start and end <= item.last:
                    expected = reader.score(reader.norm(torch.relu(starts[start] + ends[end])))
                    torch.testing.assert_close(
                        found[start, width], expected[0], rtol=1e-4, atol=1e-5
                    )
                else:
                    assert found[start, width] == float("-inf")
    assert found.shape == (padded.ids.shape[1], widths)


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_span_logits_are_of_the_passage_alone_whatever_is_read_together(
    batch_tokens: int,
    inputs: list[SpanInput],
    store: PassageStore,
    make_reader: Callable[..., Reader],
) -> None:
    reader = make_reader()
    with torch.no_grad():
        found = span_logits(reader, inputs, Budget(pad_id=0, batch_tokens=batch_tokens))
        alone = [span_logits(reader, [i], Budget(pad_id=0, batch_tokens=64))[0] for i in inputs]
    for row, logits, expected in zip(ROWS, found, alone, strict=True):
        length = len(store.wordpieces(row))
        assert logits.shape == (length, 4)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        for start in range(length):
            is_inside = torch.tensor([start + width < length for width in range(4)])
            assert torch.equal(logits[start].isfinite(), is_inside)


def test_an_empty_passage_has_no_spans(make_reader: Callable[..., Reader]) -> None:
    item = SpanInput(ids=[2, 7, 3, 3], segments=[0, 0, 0, 1], first=3, last=2)
    with torch.no_grad():
        (logits,) = span_logits(make_reader(), [item], Budget(pad_id=0, batch_tokens=64))
    assert logits.shape == (0, 4)


def test_settings_build_an_equal_reader(
    inputs: list[SpanInput], make_reader: Callable[..., Reader]
) -> None:
    reader = make_reader()
    again = build_reader(reader.settings).eval()
    again.load_state_dict(reader.state_dict())
    budget = Budget(pad_id=0, batch_tokens=512)
    with torch.no_grad():
        for one, other in zip(
            span_logits(reader, inputs, budget), span_logits(again, inputs, budget), strict=True
        ):
            assert torch.equal(one, other)
