"""Plain one-pair-at-a-time arithmetic that the real modules are held against."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear
from transformers import BertModel

from realm.corpus.store import PassageStore
from realm.model.embedder import Embedder, Towers
from realm.model.encoder import Encoder
from realm.model.realm import Budget
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW
from realm.tokenizer import WordpieceTokenizer


def plain_hidden(bert: BertModel, ids: list[int], segments: list[int]) -> Tensor:
    """Return the last hidden states of one sequence, nothing padded."""
    return bert(
        input_ids=torch.tensor([ids]),
        token_type_ids=torch.tensor([segments]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
    ).last_hidden_state[0]


def plain_embedding(tower: Embedder, ids: list[int], segments: list[int]) -> Tensor:
    """Return LayerNorm(W pooled + b) of one text."""
    hidden = plain_hidden(tower.bert, ids, segments)
    dense = tower.bert.pooler.dense
    pooled = (
        torch.tanh(linear(hidden[0], dense.weight, dense.bias))
        if tower.pooling == "pooler"
        else hidden.mean(dim=0)
    )
    projected = linear(pooled, tower.projection.weight, tower.projection.bias)
    return layer_norm(projected, (tower.dim,), tower.norm.weight, tower.norm.bias, eps=1e-3)


def plain_mask_log_probs(
    encoder: Encoder, ids: list[int], segments: list[int], mask_id: int, targets: tuple[int, ...]
) -> list[Tensor]:
    """Return log p(y_j | z, x): full logits everywhere, then those at each [MASK]."""
    hidden = plain_hidden(encoder.bert, ids, segments)
    head = encoder.head
    transformed = gelu(linear(hidden, head.dense.weight, head.dense.bias))
    transformed = layer_norm(
        transformed, (hidden.shape[-1],), head.norm.weight, head.norm.bias, eps=1e-12
    )
    logits = linear(transformed, encoder.bert.embeddings.word_embeddings.weight, head.bias)
    places = [place for place, piece in enumerate(ids) if piece == mask_id][: len(targets)]
    return [
        logits[place].log_softmax(dim=-1)[gold] for place, gold in zip(places, targets, strict=True)
    ]


Plain = Callable[..., tuple[Tensor, list[list[Tensor]]]]


@pytest.fixture
def plain() -> Plain:
    """Return f(x, z) and log p(y_j | z, x) of one example, a pair at a time."""

    def compute(
        store: PassageStore,
        towers: Towers,
        encoder: Encoder,
        example: MaskedExample,
        rows: list[int],
    ) -> tuple[Tensor, list[list[Tensor]]]:
        tokenizer = store.tokenizer
        query = [tokenizer.cls_id, *example.query_ids, tokenizer.sep_id]
        embedded_query = plain_embedding(towers.query, query, [0] * len(query))
        scores: list[Tensor] = []
        log_probs: list[list[Tensor]] = []
        for row in rows:
            if row == MISSING_ROW:
                scores.append(torch.tensor(float("-inf")))
                log_probs.append([torch.tensor(0.0)] * len(example.target_ids))
                continue
            title = [] if row == NULL_ROW else store.title_wordpieces(row).tolist()
            body = [] if row == NULL_ROW else store.wordpieces(row).tolist()
            passage = [tokenizer.cls_id, *title, tokenizer.sep_id, *body, tokenizer.sep_id]
            kinds = [0] * (len(title) + 2) + [1] * (len(body) + 1)
            scores.append(embedded_query @ plain_embedding(towers.passage, passage, kinds))
            joint = [*query, *body, tokenizer.sep_id]
            kinds = [0] * len(query) + [1] * (len(body) + 1)
            log_probs.append(
                plain_mask_log_probs(encoder, joint, kinds, tokenizer.mask_id, example.target_ids)
            )
        return torch.stack(scores), log_probs

    return compute


@pytest.fixture(scope="session")
def lengths() -> Lengths:
    return Lengths(query=40, passage=64, joint=96)


@pytest.fixture(scope="session")
def budget(tokenizer: WordpieceTokenizer) -> Budget:
    return Budget(pad_id=tokenizer.pad_id, batch_tokens=512)
