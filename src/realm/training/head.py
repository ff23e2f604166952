"""A masked-language-model head for an encoder that comes without one, by ridge regression."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from realm.config import MlmConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.model.bert import hidden_states
from realm.model.encoder import Encoder
from realm.model.inputs import group_by_length, pad
from realm.training.sampling import sample

NUM_PASSAGES = 384
SHIFT = 4.0
"""Where GELU is as good as the identity: inputs have mean SHIFT and deviation 1."""
SHARPNESS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
MASK_RATE = 0.15
NUM_JUDGED = 512
"""Positions of each kind on which the gain is chosen."""
RULED_OUT = -100.0
"""Bias of [MASK], in nats."""


@torch.no_grad()
def init_head(encoder: Encoder, store: PassageStore, rows: list[int], config: MlmConfig) -> None:
    """Set the head so that it names the wordpiece at each unmasked position.

    The dense layer is the ridge regression of a position's input embedding (centred) on its last
    hidden state, shifted to where GELU is linear; the layer norm takes the shift out again; its
    gain and the bias -gain |e|^2 / 2 make the product with the tied embeddings a distance to each
    of them. The gain is chosen by likelihood, mostly at unmasked positions (at masked ones nothing
    is known yet, and flat is best), and [MASK] itself, which the regression would name there, is
    ruled out by its bias. Most unmasked wordpieces are then named right before the first step,
    where a random head needs hundreds of steps.
    """
    encoder.eval()
    hidden, pieces, is_masked = _states(encoder, store, rows, config)
    table = encoder.bert.embeddings.word_embeddings.weight.float().cpu()
    centred = table - table.mean(dim=0)
    ridge = _ridge(hidden[~is_masked], centred[pieces[~is_masked]])
    predicted = torch.cat([hidden, torch.ones(len(hidden), 1)], dim=-1) @ ridge
    scale = predicted.std()
    head = encoder.head
    head.dense.weight.copy_(ridge[:-1].T / scale)
    head.dense.bias.copy_(ridge[-1] / scale + SHIFT)
    head.norm.bias.zero_()
    mask_id = store.tokenizer.mask_id
    best, best_gain = -torch.inf, SHARPNESS[0]
    for gain in SHARPNESS:
        _set_gain(encoder, gain, float(scale), centred, mask_id)
        likelihood = sum(
            weight * _likelihood(encoder, hidden[kind][:NUM_JUDGED], pieces[kind][:NUM_JUDGED])
            for weight, kind in ((0.25, is_masked), (1.0, ~is_masked))
            if kind.any()
        )
        if likelihood > best:
            best, best_gain = likelihood, gain
    _set_gain(encoder, best_gain, float(scale), centred, mask_id)


def _states(
    encoder: Encoder, store: PassageStore, rows: list[int], config: MlmConfig
) -> tuple[Float[Tensor, "positions width"], Int[Tensor, " positions"], Bool[Tensor, " positions"]]:
    """Return (last hidden states, wordpieces, whether masked) of a sample of passages."""
    tokenizer = store.tokenizer
    chosen = [rows[i] for i in sample(range(len(rows)), NUM_PASSAGES, config.seed)]
    sequences = [
        tokenizer.joint_input(store.wordpieces(row)[:64].tolist(), [], 128) for row in chosen
    ]
    draw = torch.Generator().manual_seed(config.seed)
    states: list[Tensor] = []
    pieces: list[Tensor] = []
    masked: list[Tensor] = []
    for group in group_by_length([len(ids) for ids, _ in sequences], config.batch_tokens):
        inputs = pad([sequences[i] for i in group], tokenizer.pad_id)
        ordinary = inputs.token_is_real & (inputs.ids != tokenizer.cls_id)
        ordinary &= inputs.ids != tokenizer.sep_id
        is_masked = ordinary & (torch.rand(inputs.ids.shape, generator=draw) < MASK_RATE)
        seen = inputs._replace(ids=inputs.ids.masked_fill(is_masked, tokenizer.mask_id))
        device = device_of(encoder)
        with autocast_to(config.autocast, device):
            hidden = hidden_states(encoder.bert, seen.to(device)).float().cpu()
        states.append(hidden[ordinary])
        pieces.append(inputs.ids[ordinary])
        masked.append(is_masked[ordinary])
    return torch.cat(states), torch.cat(pieces), torch.cat(masked)


def _ridge(
    inputs: Float[Tensor, "positions width"], targets: Float[Tensor, "positions targets"]
) -> Float[Tensor, "width_and_one targets"]:
    """Return W of least squares [inputs, 1] W = targets with a small penalty."""
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=-1).double()
    gram = extended.T @ extended
    penalty = 1e-3 * gram.diagonal().mean()
    gram += penalty * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, extended.T @ targets.double()).float()


def _set_gain(
    encoder: Encoder,
    gain: float,
    scale: float,
    centred: Float[Tensor, "vocab width"],
    mask_id: int,
) -> None:
    encoder.head.norm.weight.fill_(gain * scale)
    encoder.head.bias.copy_(-0.5 * gain * centred.square().sum(dim=-1))
    encoder.head.bias[mask_id] = RULED_OUT


def _likelihood(
    encoder: Encoder, hidden: Float[Tensor, "positions width"], pieces: Int[Tensor, " positions"]
) -> float:
    """Return the mean log-likelihood of the wordpieces, in nats."""
    table = encoder.bert.embeddings.word_embeddings.weight
    logits = encoder.head(hidden.to(table.device), table).float()
    return -float(torch.nn.functional.cross_entropy(logits, pieces.to(table.device)))
