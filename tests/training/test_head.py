"""The ridge head names the wordpieces it sees before a single step of training."""

import torch
from torch import Tensor

from realm.config import MlmConfig
from realm.corpus.store import PassageStore
from realm.model.bert import build_bert
from realm.model.encoder import Encoder
from realm.model.inputs import pad
from realm.training.head import init_head

CONFIG = MlmConfig(autocast="none", threads=1)


def trained_looking_encoder(store: PassageStore) -> Encoder:
    """Two layers whose residual stream still tells the wordpiece, as in a trained BERT."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": store.tokenizer.vocab_size,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.05,
    }
    return Encoder(build_bert(settings)).eval()


def shares_named(encoder: Encoder, store: PassageStore) -> tuple[float, float, Tensor]:
    """Return how often the wordpiece is named, seen and masked; and what is named at masks."""
    tokenizer = store.tokenizer
    draw = torch.Generator().manual_seed(1)
    hits: dict[bool, list[Tensor]] = {True: [], False: []}
    named: list[Tensor] = []
    for row in range(len(store)):
        inputs = pad([tokenizer.joint_input(store.wordpieces(row).tolist(), [], 128)], 0)
        places = torch.arange(1, inputs.ids.shape[1] - 2)
        targets = inputs.ids[0, places].clone()
        masked = torch.rand(len(places), generator=draw) < 0.15
        inputs.ids[0, places[masked]] = tokenizer.mask_id
        with torch.no_grad():
            _, best = encoder.log_probs(inputs, torch.zeros_like(places), places, targets)
        for kind in (True, False):
            hits[kind].append((best == targets)[masked == kind])
        named.append(best[masked])
    seen, hidden = (torch.cat(hits[kind]).float().mean() for kind in (False, True))
    return float(seen), float(hidden), torch.cat(named)


def test_most_unmasked_wordpieces_are_named(store: PassageStore) -> None:
    encoder = trained_looking_encoder(store)
    before, _, _ = shares_named(encoder, store)
    init_head(encoder, store, list(range(len(store))), CONFIG)
    after, _, named = shares_named(encoder, store)
    assert before < 0.1
    assert after > 0.8
    assert store.tokenizer.mask_id not in named  # [MASK] is ruled out


def test_only_the_head_changes(store: PassageStore) -> None:
    encoder = trained_looking_encoder(store)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    init_head(encoder, store, list(range(len(store))), CONFIG)
    changed = {n for n, value in encoder.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
    assert all(value.isfinite().all() for value in encoder.state_dict().values())


def test_the_same_passages_and_seed_give_the_same_head(store: PassageStore) -> None:
    heads: list[Tensor] = []
    for _ in range(2):
        encoder = trained_looking_encoder(store)
        init_head(encoder, store, list(range(len(store))), CONFIG)
        heads.append(encoder.head.dense.weight.detach())
    assert torch.equal(*heads)


def test_a_single_short_passage_is_enough(store: PassageStore) -> None:
    """Where by chance nothing was masked, the gain is chosen at the unmasked positions alone."""
    for seed in range(4):
        encoder = trained_looking_encoder(store)
        init_head(encoder, store, [0], CONFIG.model_copy(update={"seed": seed}))
        assert encoder.head.norm.weight.isfinite().all()
