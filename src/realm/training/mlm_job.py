"""One step of the encoder's warm start: which sentences are masked, and what they are read with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.config import MlmConfig
from realm.corpus.store import PassageStore
from realm.device import CPU, autocast_to, device_of, send
from realm.errors import ConfigError, CorpusError
from realm.masking.store import ExampleStore
from realm.model.bert import joining, max_length
from realm.model.encoder import Encoder
from realm.model.inputs import TokenSequence
from realm.ranks import ALONE, Ranks
from realm.retrieval.batch import body_of
from realm.retrieval.candidates import NULL_ROW
from realm.training.corpus_groups import split_rows
from realm.training.pairing import pair_examples
from realm.training.sampling import batch_at, sample, step_rng

MIN_SENTENCE = 8
GUESS_AMONG_READ = 0.2
"""Share of the single-span examples that are read with the null passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedReading:
    """One masked sentence with the passage it is read with."""

    ids: TokenSequence
    positions: list[int]
    targets: list[int]


class MlmJob:
    """One step: a batch of masked sentences, each read with one passage or none."""

    def __init__(
        self,
        store: PassageStore,
        examples: ExampleStore | None,
        encoder: Encoder,
        config: MlmConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        """Prepare.

        Args:
            store: the passages.
            examples: salient spans of them; None: nothing is read but what is copied.
            encoder: that learns.
            config: settings.
            ranks: the processes that train together.

        Raises:
            ConfigError: there is something to read, and the shares come to more than the whole.
        """
        self.store = store
        self.ranks = ranks
        self.examples = examples
        self.encoder = encoder
        self.config = config
        self.train_rows, held_rows = split_rows(store, config.held_out)
        pairs = pair_examples(examples, store) if examples is not None else []
        held = set(held_rows)
        self.pairs = [p for p in pairs if p.origin not in held]
        if self.pairs:
            _check_shares(config)
        held_pairs = [p for p in pairs if p.origin in held]
        chosen = sample(range(len(held_pairs)), config.num_eval_examples, config.seed)
        self.eval_pairs = [held_pairs[i] for i in chosen]
        self.eval_rows = sample(held_rows, config.num_eval_examples // 2, config.seed)

    @property
    def model(self) -> Model:
        """The encoder."""
        return Model(tokenizer=self.store.tokenizer, encoder=self.encoder)

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the encoder."""
        return {"encoder": (self.encoder, 1.0)}

    def before_step(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: no index here."""
        return {}

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of mixed examples."""
        readings = self.readings(step)
        total = sum(len(reading.targets) for reading in readings)
        num_tokens = sum(len(reading.ids[0]) for reading in readings)
        readings = self.ranks.share(readings)
        loss, right = 0.0, 0
        for group in self._groups(readings):
            gold, hits = self._forward([readings[i] for i in group])
            (-gold.sum() / total).backward()
            loss -= float(gold.detach().sum())
            right += int(hits.sum())
        parts = self.ranks.gather_values((loss, right))
        return {
            "loss": sum(part for part, _ in parts) / total,
            "piece_accuracy": sum(part for _, part in parts) / total,
            "tokens": float(num_tokens),
        }

    def readings(self, step: int) -> list[MaskedReading]:
        """Return the masked sentences of one step: read, copy and guess.

        Raises:
            CorpusError: every sentence is too short.
        """
        rng = step_rng(self.config.seed, step)
        size = self.config.batch_size
        num_read = round(size * self.config.read_rate) if self.pairs else 0
        chosen = batch_at(
            step, num_items=max(1, len(self.pairs)), batch_size=num_read, seed=self.config.seed
        )
        readings = [self._read(number, rng) for number in chosen]
        rows = batch_at(
            step,
            num_items=len(self.train_rows),
            batch_size=size - len(readings),
            seed=self.config.seed + 1,
        )
        copy_share = self.config.copy_rate / max(1e-9, 1 - num_read / size)
        for number in rows:
            is_copy = bool(rng.random() < copy_share)
            drawn = self._dense(self.train_rows[number], rng, with_passage=is_copy)
            if drawn is not None:
                readings.append(drawn)
        return readings or [self._any_sentence(rng)]

    @torch.inference_mode()
    def evaluate(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return held-out accuracy: salient spans with a passage and without; dense masks."""
        rng = step_rng(self.config.seed, 0)
        measured: dict[str, float] = {}
        tasks = {
            "read": [self._single(p.example, p.row, rng, side=False) for p in self.eval_pairs],
            "guess": [self._single(p.example, NULL_ROW, rng, side=False) for p in self.eval_pairs],
            "copy": [self._dense(row, rng, with_passage=True) for row in self.eval_rows],
            "dense_guess": [self._dense(row, rng, with_passage=False) for row in self.eval_rows],
        }
        for name, drawn in tasks.items():
            readings = [reading for reading in drawn if reading is not None]
            if not readings:
                continue
            gold_sum, hit_sum, count = 0.0, 0, 0
            for group in self._groups(readings):
                gold, hits = self._forward([readings[i] for i in group])
                gold_sum += float(gold.sum())
                hit_sum += int(hits.sum())
                count += len(gold)
            measured[f"eval/{name}_accuracy"] = hit_sum / count
            measured[f"eval/{name}_loss"] = -gold_sum / count
        return measured

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""

    def _groups(self, readings: Sequence[MaskedReading]) -> Iterable[list[int]]:
        _, groups_of = joining(self.encoder.bert)
        return groups_of([len(one.ids[0]) for one in readings], self.config.batch_tokens)

    def _forward(
        self, readings: Sequence[MaskedReading]
    ) -> tuple[Float[Tensor, " masks"], Bool[Tensor, " masks"]]:
        """Return (log p of every target, whether it was the most probable wordpiece)."""
        join, _ = joining(self.encoder.bert)
        inputs = join([reading.ids for reading in readings], self.store.tokenizer.pad_id)
        rows = torch.tensor([n for n, r in enumerate(readings) for _ in r.positions])
        positions = torch.tensor([position for r in readings for position in r.positions])
        targets = torch.tensor([target for r in readings for target in r.targets])
        device = device_of(self.encoder)
        with autocast_to(self.config.autocast, device):
            gold, best = self.encoder.log_probs(
                inputs.to(device),
                send(rows, device),
                send(positions, device),
                send(targets, device),
            )
        return gold.to(CPU), best.to(CPU) == targets

    def _read(self, number: int, rng: np.random.Generator) -> MaskedReading:
        pair = self.pairs[number]
        is_guess = bool(rng.random() < GUESS_AMONG_READ)
        return self._single(pair.example, NULL_ROW if is_guess else pair.row, rng, side=True)

    def _single(
        self, row: int, passage: int, rng: np.random.Generator, *, side: bool
    ) -> MaskedReading:
        """Return a sentence with its salient span masked, and side targets beside it."""
        if self.examples is None:
            raise CorpusError("no masked examples")
        example = self.examples[row]
        query = list(example.query_ids)
        positions, targets = list(example.positions), list(example.target_ids)
        mask_id = self.store.tokenizer.mask_id
        if side:
            free = [i for i, piece in enumerate(query) if piece != mask_id]
            for place in free:
                if rng.random() < self.config.side_mask_rate:
                    positions.append(place)
                    targets.append(example.original_ids[place])
                    query[place] = mask_id
        body = self._read_beside(query, passage, example.target_ids, rng)
        return self._joint(query, positions, targets, body)

    def _dense(
        self, row: int, rng: np.random.Generator, *, with_passage: bool
    ) -> MaskedReading | None:
        """Return one sentence of a passage with spans of 1 to 3 wordpieces masked."""
        passage, tokenizer = self.store[row], self.store.tokenizer
        start, end = passage.sentences[int(rng.integers(len(passage.sentences)))]
        pieces = tokenizer.encode(passage.text[start:end]).ids[: self.config.query_wordpieces - 2]
        if len(pieces) < MIN_SENTENCE:
            return None
        masked: set[int] = set()
        while len(masked) < self.config.mask_rate * len(pieces):
            first = int(rng.integers(len(pieces)))
            masked |= set(range(first, min(len(pieces), first + int(rng.integers(1, 4)))))
        positions = sorted(masked)
        targets = [pieces[i] for i in positions]
        query = [tokenizer.mask_id if i in masked else piece for i, piece in enumerate(pieces)]
        body = self._read_beside(query, row if with_passage else NULL_ROW, pieces, rng)
        return self._joint(query, positions, targets, body)

    def _any_sentence(self, rng: np.random.Generator) -> MaskedReading:
        """Return one sentence of the first passage that has a long one: no step without a loss."""
        for row in self.train_rows:
            if (drawn := self._dense(row, rng, with_passage=True)) is not None:
                return drawn
        raise CorpusError(
            f"{self.store.folder}: found no sentence of {MIN_SENTENCE} wordpieces to mask, "
            "expected at least one; look at the passages"
        )

    @property
    def _longest(self) -> int:
        """The longest joint input, in wordpieces."""
        room = self.config.query_wordpieces + self.config.passage_wordpieces
        return min(room, max_length(self.encoder.bert))

    def _read_beside(
        self, query: Sequence[int], row: int, wanted: Sequence[int], rng: np.random.Generator
    ) -> list[int]:
        """Return the window of a passage that is read with a query: no longer than its room."""
        room = self._longest - 3 - len(query)  # [CLS] query [SEP] passage [SEP]
        return window(body_of(self.store, row), wanted, min(self.config.window, room), rng)

    def _joint(
        self, query: list[int], positions: list[int], targets: list[int], body: list[int]
    ) -> MaskedReading:
        ids = self.store.tokenizer.joint_input(query, body, self._longest)
        return MaskedReading(ids=ids, positions=[place + 1 for place in positions], targets=targets)


def _check_shares(config: MlmConfig) -> None:
    """Refuse shares of which the batch has no room for both."""
    copied, read = config.copy_rate, config.read_rate
    if round(copied + read, 9) > 1:
        raise ConfigError(
            f"found copy_rate={copied:g} and read_rate={read:g}, expected at most 1 together, the "
            "rest is guessed; lower one of them"
        )


def window(
    body: list[int], wanted: Sequence[int], size: int, rng: np.random.Generator
) -> list[int]:
    """Return at most `size` wordpieces of a passage that hold `wanted`, at a random place in them.

    Where `wanted` does not stand in the passage side by side, the window starts anywhere.
    """
    if len(body) <= size:
        return body
    count = min(len(wanted), size)
    head = list(wanted[:count])
    starts = [i for i in range(len(body) - count + 1) if body[i : i + count] == head]
    low = max(0, starts[0] + count - size) if starts else 0
    high = min(starts[0], len(body) - size) if starts else len(body) - size
    first = int(rng.integers(low, max(low, high) + 1))
    return body[first : first + size]
