"""What the reader reads: question and passage, with the passage's place."""

from realm.corpus.store import PassageStore
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.reading import span_inputs
from realm.tokenizer import WordpieceTokenizer


def test_the_passage_stands_from_first_to_last(
    store: PassageStore, tokenizer: WordpieceTokenizer
) -> None:
    question = tokenizer.encode("where was Fermat born?").ids
    for row, item in zip(range(24), span_inputs(store, question, range(24), 64), strict=True):
        body = store.wordpieces(row).tolist()
        assert item.ids[item.first : item.last + 1] == body
        assert item.ids == [tokenizer.cls_id, *question, tokenizer.sep_id, *body, tokenizer.sep_id]
        assert item.segments == [0] * item.first + [1] * (len(body) + 1)


def test_a_long_passage_is_cut_at_its_end(
    store: PassageStore, tokenizer: WordpieceTokenizer
) -> None:
    question = tokenizer.encode("where was Fermat born?").ids
    (item,) = span_inputs(store, question, [0], 16)
    assert len(item.ids) == 16
    assert item.ids[item.first : item.last + 1] == store.wordpieces(0).tolist()[:8]
    assert item.ids[-1] == tokenizer.sep_id


def test_a_question_that_leaves_no_room_has_an_empty_passage(
    store: PassageStore, tokenizer: WordpieceTokenizer
) -> None:
    question = tokenizer.encode("where was Fermat born? " * 4).ids
    (item,) = span_inputs(store, question, [0], 16)
    assert item.last < item.first
    assert len(item.ids) == 16


def test_the_null_passage_is_empty_and_its_span_is_the_last_separator(
    store: PassageStore, tokenizer: WordpieceTokenizer
) -> None:
    question = tokenizer.encode("where was Fermat born?").ids
    _, item = span_inputs(store, question, [0, NULL_ROW], 64)
    assert item.ids == [tokenizer.cls_id, *question, tokenizer.sep_id, tokenizer.sep_id]
    assert item.first == item.last == len(item.ids) - 1
