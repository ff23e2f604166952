"""The knowledge-augmented encoder reads each pair of query and passage by itself (section 3.2)."""

from collections.abc import Callable

import pytest
import torch

from realm.corpus.store import PassageStore
from realm.model.bert import hidden_states
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.inputs import pad
from realm.model.realm import (
    Budget,
    CandidateBatch,
    gold_log_probs,
    mask_logits,
    predict_masks,
    read_candidates,
    score_candidates,
)
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW
from realm.tokenizer import WordpieceTokenizer

ROWS = [[NULL_ROW, 3, 7, 2], [NULL_ROW, 8, 2, MISSING_ROW], [NULL_ROW, 9, 11, 3]]


@pytest.fixture
def batch(
    store: PassageStore, make_example: Callable[..., MaskedExample], lengths: Lengths
) -> CandidateBatch:
    examples = [
        make_example(store, 0, "1607", "Toulouse"),
        make_example(store, 5, "graph"),
        make_example(store, 10, "Noether", "Erlangen", "teacher"),
    ]
    return candidate_batch(store, examples, ROWS, lengths)


def test_logits_at_the_masked_positions_are_those_of_the_whole_sequence(
    batch: CandidateBatch,
    tokenizer: WordpieceTokenizer,
    make_encoder: Callable[..., Encoder],
    budget: Budget,
) -> None:
    """p(y_j|z,x) needs the vocabulary's logits at [MASK] only; they equal the full ones there."""
    encoder = make_encoder()
    inputs = pad(batch.joint, tokenizer.pad_id)
    with torch.no_grad():
        embeddings = encoder.bert.embeddings.word_embeddings.weight
        full = encoder.head(hidden_states(encoder.bert, inputs).flatten(0, 1), embeddings)
        logits, owners, places = mask_logits(encoder, batch, budget)
    full = full.view(*inputs.ids.shape, -1)
    positions = batch.mask_positions[owners // 4, places]
    assert (inputs.ids[owners, positions] == tokenizer.mask_id).all()
    torch.testing.assert_close(logits, full[owners, positions], rtol=1e-4, atol=1e-4)
    assert len(logits) == 4 * int(batch.mask_is_real.sum())


@pytest.mark.parametrize("batch_tokens", [64, 200, 100_000])
def test_neither_padding_nor_grouping_changes_a_result(
    batch_tokens: int,
    batch: CandidateBatch,
    tokenizer: WordpieceTokenizer,
    make_towers: Callable[..., Towers],
    make_encoder: Callable[..., Encoder],
) -> None:
    """A budget of 64 wordpieces reads one or two at a time, a huge one all at once."""
    towers, encoder = make_towers(share=False), make_encoder()
    alone = Budget(pad_id=tokenizer.pad_id, batch_tokens=1)
    together = Budget(pad_id=tokenizer.pad_id, batch_tokens=batch_tokens)
    with torch.no_grad():
        torch.testing.assert_close(
            score_candidates(towers, batch, together),
            score_candidates(towers, batch, alone),
            rtol=1e-5,
            atol=1e-5,
        )
        torch.testing.assert_close(
            read_candidates(encoder, batch, together),
            read_candidates(encoder, batch, alone),
            rtol=1e-5,
            atol=1e-5,
        )


def test_what_stands_in_the_padding_is_never_read(
    batch: CandidateBatch, make_encoder: Callable[..., Encoder], make_towers: Callable[..., Towers]
) -> None:
    """Another pad id changes the padded wordpieces, and nothing else."""
    towers, encoder = make_towers(), make_encoder()
    with torch.no_grad():
        for pad_id in (0, 9):
            budget = Budget(pad_id=pad_id, batch_tokens=100_000)
            results = (
                score_candidates(towers, batch, budget),
                read_candidates(encoder, batch, budget),
            )
            if pad_id == 0:
                expected = results
    for found, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_log_probabilities_are_of_the_gold_wordpieces(
    batch: CandidateBatch, make_encoder: Callable[..., Encoder], budget: Budget
) -> None:
    with torch.no_grad():
        read = mask_logits(make_encoder(), batch, budget)
        found = gold_log_probs(batch, read)
    logits, owners, places = read
    assert found.shape == (3, 4, 3)
    for row, (owner, place) in enumerate(zip(owners.tolist(), places.tolist(), strict=True)):
        gold = int(batch.targets[owner // 4, place])
        expected = logits[row].log_softmax(dim=-1)[gold]
        torch.testing.assert_close(found[owner // 4, owner % 4, place], expected)
    assert (found.masked_select(~batch.mask_is_real[:, None].expand_as(found)) == 0).all()


def test_the_prediction_is_the_wordpiece_of_most_probability_over_all_passages(
    batch: CandidateBatch,
    make_encoder: Callable[..., Encoder],
    make_towers: Callable[..., Towers],
    budget: Budget,
) -> None:
    """argmax_y sum_z p(z|x) p(y|z,x) at each mask; with all weight on null it reads nothing."""
    with torch.no_grad():
        read = mask_logits(make_encoder(), batch, budget)
        weights = score_candidates(make_towers(), batch, budget).softmax(dim=-1)
    null_only = torch.zeros_like(weights)
    null_only[:, 0] = 1.0
    logits, owners, places = read
    for chosen in (weights, null_only):
        predicted = predict_masks(batch, chosen, read)
        for row in range(3):
            for mask in range(int(batch.mask_is_real[row].sum())):
                total = sum(
                    chosen[row, owner % 4] * logits[n].softmax(dim=-1)
                    for n, (owner, place) in enumerate(
                        zip(owners.tolist(), places.tolist(), strict=True)
                    )
                    if owner // 4 == row and place == mask
                )
                assert predicted[row, mask] == total.argmax()


def test_embed_input_and_embed_doc_read_one_text_each(
    store: PassageStore, tokenizer: WordpieceTokenizer, make_towers: Callable[..., Towers]
) -> None:
    """f(x,z) = Embed_input(x) . Embed_doc(z): neither sees the other (section 3.2)."""
    towers = make_towers(share=False)
    sequences = [tokenizer.passage_input([], store.wordpieces(row).tolist(), 64) for row in (0, 3)]
    with torch.no_grad():
        both = embed_in_groups(towers.passage, sequences, pad_id=0, batch_tokens=512)
        one = embed_in_groups(towers.passage, sequences[:1], pad_id=0, batch_tokens=512)
    torch.testing.assert_close(both[:1], one, rtol=1e-5, atol=1e-5)
