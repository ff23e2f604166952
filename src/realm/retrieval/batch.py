"""Examples and their candidates -> the tensors that embedder and encoder read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from realm.corpus.store import Passages
from realm.errors import ConfigError
from realm.model.inputs import TokenSequence
from realm.model.realm import CandidateBatch
from realm.records import MaskedExample
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW
from realm.tokenizer import WordpieceTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Longest inputs in wordpieces, special tokens included."""

    query: int
    passage: int
    joint: int


def body_of(store: Passages, row: int) -> list[int]:
    """Return the wordpieces of a passage's text; none for the null passage."""
    return store.wordpieces(row).tolist() if row >= 0 else []


def passage_sequence(
    store: Passages, tokenizer: WordpieceTokenizer, row: int, max_length: int
) -> TokenSequence:
    """Return Embed_doc's input for one row; the null passage is the empty title and body."""
    title = store.title_wordpieces(row).tolist() if row >= 0 else []
    return tokenizer.passage_input(title, body_of(store, row), max_length)


def candidate_batch(
    store: Passages,
    examples: Sequence[MaskedExample],
    rows: Sequence[Sequence[int]],
    lengths: Lengths,
) -> CandidateBatch:
    """Return the batch of these examples with these candidates (row 0 of each: null).

    Raises:
        ConfigError: a [MASK] stands where `lengths` cuts the query off.
    """
    tokenizer = store.tokenizer
    _check_masks(examples, lengths)
    distinct = [NULL_ROW, *sorted({row for chosen in rows for row in chosen if row >= 0})]
    number = {row: place for place, row in enumerate(distinct)} | {MISSING_ROW: 0}
    longest = max(len(example.positions) for example in examples)
    targets = torch.zeros((len(examples), longest), dtype=torch.long)
    positions = torch.zeros((len(examples), longest), dtype=torch.long)
    is_real = torch.zeros((len(examples), longest), dtype=torch.bool)
    for place, example in enumerate(examples):
        count = len(example.positions)
        targets[place, :count] = torch.tensor(example.target_ids)
        positions[place, :count] = torch.tensor(example.positions) + 1
        is_real[place, :count] = True
    return CandidateBatch(
        queries=[tokenizer.query_input(e.query_ids, lengths.query) for e in examples],
        passages=[passage_sequence(store, tokenizer, row, lengths.passage) for row in distinct],
        passage_of=torch.tensor([[number[row] for row in chosen] for chosen in rows]),
        is_real=torch.tensor([[row != MISSING_ROW for row in chosen] for chosen in rows]),
        joint=[
            tokenizer.joint_input(
                example.query_ids[: lengths.query - 2], body_of(store, row), lengths.joint
            )
            for example, chosen in zip(examples, rows, strict=True)
            for row in chosen
        ],
        targets=targets,
        mask_positions=positions,
        mask_is_real=is_real,
    )


def _check_masks(examples: Sequence[MaskedExample], lengths: Lengths) -> None:
    room = min(lengths.query - 2, lengths.joint - 3)
    last = max((max(example.positions, default=-1) for example in examples), default=-1)
    if last >= room:
        raise ConfigError(
            f"an example has a [MASK] at wordpiece {last + 1} of its query, but queries are cut to "
            f"{room} (query_wordpieces={lengths.query}, joint_wordpieces={lengths.joint}); raise "
            "both to what the examples were masked with"
        )
