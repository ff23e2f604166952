"""A question and the passages found for it -> what the reader reads."""

from collections.abc import Sequence

from realm.corpus.store import PassageStore
from realm.model.realm import SpanInput
from realm.retrieval.retriever import NULL_ROW


def span_inputs(
    store: PassageStore, question_ids: Sequence[int], rows: Sequence[int], max_length: int
) -> list[SpanInput]:
    """Return [CLS] question [SEP] body [SEP] of each passage, from cached wordpieces.

    NULL_ROW is the null passage: no body, and the last [SEP] as its one span.
    """
    inputs: list[SpanInput] = []
    for row in rows:
        if row == NULL_ROW:
            ids, segments = store.tokenizer.joint_input(question_ids, [], max_length)
            inputs.append(
                SpanInput(ids=ids, segments=segments, first=len(ids) - 1, last=len(ids) - 1)
            )
            continue
        ids, segments = store.tokenizer.joint_input(
            question_ids, store.wordpieces(row).tolist(), max_length
        )
        first = segments.index(1)
        inputs.append(SpanInput(ids=ids, segments=segments, first=first, last=len(ids) - 2))
    return inputs
