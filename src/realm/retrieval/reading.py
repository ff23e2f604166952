"""A question and the passages found for it -> what the reader reads."""

from collections.abc import Sequence

from realm.corpus.store import Passages
from realm.errors import AnsweringError, QuestionTooLongError
from realm.model.inputs import TokenSequence
from realm.model.realm import SpanInput
from realm.retrieval.batch import body_of
from realm.retrieval.candidates import NULL_ROW
from realm.tokenizer import WordpieceTokenizer


def question_ids(
    tokenizer: WordpieceTokenizer, text: str, max_length: int, *, kind: str = "question"
) -> list[int]:
    """Return the wordpieces of a text that somebody asks.

    Args:
        tokenizer: the model's.
        text: the question, or claim.
        max_length: longest in wordpieces, [CLS] and [SEP] included.
        kind: what to call it in a message.

    Raises:
        AnsweringError: it is empty, or longer than the model reads (QuestionTooLongError).
    """
    ids = tokenizer.encode(text).ids
    if not set(ids) - {tokenizer.unk_id}:
        raise AnsweringError(
            f"found no word that the model knows in the {kind} {text[:80]!r}; expected some words"
        )
    limit = max_length - 2
    if len(ids) > limit:
        raise QuestionTooLongError(
            f"the {kind} has {len(ids)} wordpieces ({len(text):,} characters), expected "
            f"at most {limit}; shorten it"
        )
    return ids


def joint_inputs(
    store: Passages, question_ids: Sequence[int], rows: Sequence[int], max_length: int
) -> list[TokenSequence]:
    """Return [CLS] question [SEP] body [SEP] of each passage, from cached wordpieces.

    NULL_ROW is the null passage, without a body.
    """
    return [
        store.tokenizer.joint_input(question_ids, body_of(store, row), max_length) for row in rows
    ]


def span_inputs(
    store: Passages, question_ids: Sequence[int], rows: Sequence[int], max_length: int
) -> list[SpanInput]:
    """Return the joint inputs with the place of the body in each.

    NULL_ROW is the null passage: no body, and the last [SEP] as its one span.
    """
    inputs: list[SpanInput] = []
    for row, joint in zip(rows, joint_inputs(store, question_ids, rows, max_length), strict=True):
        ids, segments = joint
        last = len(ids) - 1
        first = last if row == NULL_ROW else segments.index(1)
        inputs.append(
            SpanInput(
                ids=ids, segments=segments, first=first, last=last if row == NULL_ROW else last - 1
            )
        )
    return inputs
