"""One forward pass of REALM over a batch: fresh scores of the candidates, then reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from realm.device import CPU, device_of, send
from realm.model.bert import joining, widened
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.inputs import TokenSequence, group_by_length, in_packs, pack, pad
from realm.model.reader import Reader


@dataclass(frozen=True, kw_only=True)
class CandidateBatch:
    """Queries with their candidates, as wordpieces; nothing padded yet."""

    queries: list[TokenSequence]
    passages: list[TokenSequence]
    """Distinct candidates; the null passage first."""
    passage_of: Int[Tensor, "batch candidates"]
    """Index into `passages` of each candidate (missing ones point at the null passage)."""
    is_real: Bool[Tensor, "batch candidates"]
    """False for candidates that get no probability."""
    joint: list[TokenSequence]
    """[CLS] x [SEP] body [SEP], candidate by candidate: index b * num_candidates + c."""
    targets: Int[Tensor, "batch masks"]
    mask_positions: Int[Tensor, "batch masks"]
    """In the joint input, [CLS] counted."""
    mask_is_real: Bool[Tensor, "batch masks"]

    @property
    def num_tokens(self) -> int:
        """Wordpieces that towers and encoder read, padding aside."""
        return sum(len(ids) for ids, _ in [*self.queries, *self.passages, *self.joint])


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How sequences are padded."""

    pad_id: int
    batch_tokens: int
    """Wordpieces, padding included, in one forward pass."""


def score_candidates(
    towers: Towers, batch: CandidateBatch, budget: Budget
) -> Float[Tensor, "batch candidates"]:
    """Return f(x, z) = Embed_input(x) . Embed_doc(z), -inf for candidates left out (section 3.2).

    Always computed afresh: the snapshot selects candidates, it never scores them for training.
    """
    return score_vectors(*candidate_vectors(towers, batch, budget), batch)


def candidate_vectors(
    towers: Towers, batch: CandidateBatch, budget: Budget
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "passages dim"]]:
    """Return (Embed_input of the queries, Embed_doc of the distinct candidates)."""
    settings = {"pad_id": budget.pad_id, "batch_tokens": budget.batch_tokens}
    queries = embed_in_groups(towers.query, batch.queries, **settings)
    return queries, embed_in_groups(towers.passage, batch.passages, **settings)


def score_vectors(
    queries: Float[Tensor, "batch dim"],
    passages: Float[Tensor, "passages dim"],
    batch: CandidateBatch,
) -> Float[Tensor, "batch candidates"]:
    """Return the inner products of `candidate_vectors`, -inf for candidates left out.

    In 32 bits also under autocast: 16 would round a score of 20 by up to 0.06.
    """
    with torch.autocast(queries.device.type, enabled=False):
        chosen = widened(passages)[batch.passage_of]
        scores = torch.einsum("bd,bcd->bc", widened(queries), chosen)
    return scores.masked_fill(~batch.is_real, float("-inf"))


class MaskLogits(NamedTuple):
    """What the encoder makes of the [MASK]s of some joint inputs."""

    logits: Float[Tensor, "read vocab"]
    """In 32 bits, where the encoder is."""
    owners: Int[Tensor, " read"]
    """Index b * num_candidates + c of each joint input, in main memory."""
    places: Int[Tensor, " read"]
    """Index of the mask in it, in main memory."""


def mask_logits(encoder: Encoder, batch: CandidateBatch, budget: Budget) -> MaskLogits:
    """Return the encoder's logits at every real [MASK] of every candidate."""
    groups = joint_groups(encoder, batch, range(len(batch.joint)), budget)
    read = [read_masks(encoder, batch, group, budget) for group in groups]
    return MaskLogits(*(torch.cat(parts) for parts in zip(*read, strict=True)))


def joint_groups(
    encoder: Encoder, batch: CandidateBatch, numbers: Sequence[int], budget: Budget
) -> list[list[int]]:
    """Return some joint inputs in groups, each within the budget.

    Args:
        encoder: what is to read them.
        batch: the batch.
        numbers: of joint inputs, b * num_candidates + c.
        budget: of a group.
    """
    lengths = [len(batch.joint[number][0]) for number in numbers]
    _, groups_of = joining(encoder.bert)
    groups = groups_of(lengths, budget.batch_tokens)
    return [[numbers[place] for place in group] for group in groups]


def read_masks(
    encoder: Encoder, batch: CandidateBatch, numbers: Sequence[int], budget: Budget
) -> MaskLogits:
    """Return the encoder's logits at every real [MASK] of some joint inputs, read together."""
    device = device_of(encoder)
    num_candidates = batch.passage_of.shape[1]
    join, _ = joining(encoder.bert)
    inputs = join([batch.joint[number] for number in numbers], budget.pad_id).to(device)
    joint = torch.tensor(numbers)
    rows, masks = batch.mask_is_real[joint // num_candidates].nonzero(as_tuple=True)
    positions = batch.mask_positions[joint[rows] // num_candidates, masks]
    logits = widened(encoder(inputs, send(rows, device), send(positions, device)))
    return MaskLogits(logits, joint[rows], masks)


def read_candidates(
    encoder: Encoder, batch: CandidateBatch, budget: Budget
) -> Float[Tensor, "batch candidates masks"]:
    """Return log p(y_j | z, x) of the gold wordpiece at each [MASK]; 0 where masks are padding."""
    gold: list[Tensor] = []
    owners: list[Tensor] = []
    places: list[Tensor] = []
    for group in joint_groups(encoder, batch, range(len(batch.joint)), budget):
        read = read_masks(encoder, batch, group, budget)
        gold.append(gold_of(batch, read))
        owners.append(read.owners)
        places.append(read.places)
    return _by_candidate(batch, torch.cat(gold), torch.cat(owners), torch.cat(places))


def gold_of(batch: CandidateBatch, read: MaskLogits) -> Float[Tensor, " read"]:
    """Return log p(y_j | z, x) of the gold wordpiece of every mask read, where the encoder is."""
    num_candidates = batch.passage_of.shape[1]
    wanted = batch.targets[read.owners // num_candidates, read.places]
    targets = send(wanted, read.logits.device)
    return read.logits.gather(-1, targets[:, None])[:, 0] - read.logits.logsumexp(dim=-1)


def gold_log_probs(
    batch: CandidateBatch, read: MaskLogits
) -> Float[Tensor, "batch candidates masks"]:
    """Return log p(y_j | z, x), in main memory, from what `mask_logits` returned."""
    return _by_candidate(batch, gold_of(batch, read), read.owners, read.places)


def _by_candidate(
    batch: CandidateBatch,
    gold: Float[Tensor, " read"],
    owners: Int[Tensor, " read"],
    places: Int[Tensor, " read"],
) -> Float[Tensor, "batch candidates masks"]:
    """Return what was read in main memory, in its places; 0 elsewhere."""
    size, num_candidates = batch.passage_of.shape
    gold = gold.to(CPU)
    flat = torch.zeros(size * num_candidates, batch.targets.shape[1], dtype=gold.dtype)
    flat = flat.index_put((owners, places), gold)
    return flat.view(size, num_candidates, -1)


def predict_masks(
    batch: CandidateBatch, weights: Float[Tensor, "batch candidates"], read: MaskLogits
) -> Int[Tensor, "batch masks"]:
    """Return the wordpiece with the largest sum_z p(z|x) p(. | z, x) at each mask.

    Args:
        batch: the batch.
        weights: p(z|x), or 1 at the null passage for a prediction without retrieval.
        read: from `mask_logits`.
    """
    logits, owners, places = read
    size, num_candidates = batch.passage_of.shape
    predicted = torch.zeros_like(batch.targets)
    probability = logits.softmax(dim=-1) * send(weights.reshape(-1)[owners][:, None], logits.device)
    for row in range(size):
        for mask in range(int(batch.mask_is_real[row].sum())):
            mine = (owners // num_candidates == row) & (places == mask)
            predicted[row, mask] = int(probability[mine].sum(dim=0).argmax())
    return predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanInput:
    """A question joined with one passage."""

    ids: list[int]
    segments: list[int]
    first: int
    """Position of the passage's first wordpiece."""
    last: int
    """Position of its last one (before `first` when the passage is empty)."""


def span_logits(
    reader: Reader, inputs: Sequence[SpanInput], budget: Budget
) -> list[Float[Tensor, "starts widths"]]:
    """Return, for each passage, the logits of its spans: [s, w] is wordpieces s to s + w.

    They come in main memory; read without padding where the reader can.
    """
    if reader.can_pack:
        return _packed_span_logits(reader, inputs, budget)
    device = device_of(reader)
    logits: dict[int, Tensor] = {}
    for group in group_by_length([len(item.ids) for item in inputs], budget.batch_tokens):
        chosen = [inputs[i] for i in group]
        padded = pad([(item.ids, item.segments) for item in chosen], budget.pad_id)
        places = torch.arange(padded.ids.shape[1])
        first = torch.tensor([item.first for item in chosen])[:, None]
        last = torch.tensor([item.last for item in chosen])[:, None]
        in_passage = (places >= first) & (places <= last)
        group_logits = reader(padded.to(device), send(in_passage, device)).to(CPU)
        for place, (number, item) in enumerate(zip(group, chosen, strict=True)):
            logits[number] = group_logits[place, item.first : item.last + 1]
    return [logits[number] for number in range(len(inputs))]


def _packed_span_logits(
    reader: Reader, inputs: Sequence[SpanInput], budget: Budget
) -> list[Float[Tensor, "starts widths"]]:
    """Return what `span_logits` does, from sequences that are read one after the other."""
    found: list[Tensor] = []
    for numbers in in_packs([len(item.ids) for item in inputs], budget.batch_tokens):
        some = [inputs[number] for number in numbers]
        packed = pack([(item.ids, item.segments) for item in some], budget.pad_id)
        bounds = list(accumulate(packed.lengths, initial=0))
        owners = torch.full_like(packed.ids, -1)
        for number, (start, item) in enumerate(zip(bounds, some, strict=False)):
            owners[0, start + item.first : start + item.last + 1] = number
        logits = packed.split(reader.read_packed(packed, owners))
        found += [mine[item.first : item.last + 1] for mine, item in zip(logits, some, strict=True)]
    return found
