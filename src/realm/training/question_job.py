"""What the stages share that learn from questions, or claims, over an index that stands still."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from realm.checkpoint.checkpoints import Model
from realm.config import ClassifyConfig, FinetuneConfig
from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.model.realm import Budget
from realm.ranks import ALONE, Ranks
from realm.retrieval.dense import DenseRetriever
from realm.training.packing import pack
from realm.training.sampling import batch_at, is_held_out, sample

T = TypeVar("T")
NUM_EVAL = 128


class QuestionJob(ABC, Generic[T]):
    """One step: a batch of questions, each with the passages that the snapshot gives now.

    Embed_input learns; Embed_doc stays as the index has it.
    """

    def __init__(
        self,
        questions: Sequence[T],
        text_of: Callable[[T], str],
        store: PassageStore,
        snapshot: Snapshot,
        towers: Towers,
        config: FinetuneConfig | ClassifyConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self.store = store
        self.ranks = ranks
        self.towers = towers
        self.retriever = DenseRetriever(
            towers.query,
            snapshot,
            store.tokenizer,
            question_wordpieces=config.question_wordpieces,
            batch_tokens=config.batch_tokens,
        )
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
        held = [q for q in questions if is_held_out(text_of(q), config.held_out)]
        self.train_questions = [
            q for q in questions if not is_held_out(text_of(q), config.held_out)
        ]
        if not self.train_questions:
            self.train_questions, held = held, []
        self.eval_questions = [held[i] for i in sample(range(len(held)), NUM_EVAL, config.seed)]
        self._batch_size, self._seed = config.batch_size, config.seed
        towers.passage.requires_grad_(requires_grad=False)

    @property
    @abstractmethod
    def model(self) -> Model:
        """The parts that are saved."""

    @abstractmethod
    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the parts that learn, with relative learning rates."""

    @abstractmethod
    def run(self, questions: Sequence[T], *, learn: bool, share: float = 1.0) -> dict[str, float]:
        """Retrieve, read, and (with `learn`) leave gradients; return the questions' numbers.

        Args:
            questions: this rank's.
            learn: whether to leave gradients.
            share: by what they are multiplied: this rank's share of the questions.

        Returns:
            Means over the questions, and `tokens`, the wordpieces read in all.
        """

    def before_step(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: the index stands still."""
        return {}

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of questions."""
        numbers = batch_at(
            step,
            num_items=len(self.train_questions),
            batch_size=self._batch_size,
            seed=self._seed,
        )
        mine = [self.train_questions[n] for n in self.ranks.share(numbers)]
        measured = self.run(mine, learn=True, share=len(mine) / len(numbers)) if mine else {}
        if not self.ranks.are_several:
            return measured
        parts = self.ranks.gather_values((len(mine), measured))
        having = [(count, part) for count, part in parts if count]
        return {**_mean(having), "tokens": sum(part["tokens"] for _, part in having)}

    @torch.inference_mode()
    def evaluate(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return the same numbers on held-out questions."""
        if not self.eval_questions:
            return {}
        size = self._batch_size
        batches = [
            self.eval_questions[first : first + size]
            for first in range(0, len(self.eval_questions), size)
        ]
        measured = [(len(batch), self.run(batch, learn=False)) for batch in batches]
        return {f"eval/{name}": value for name, value in _mean(measured).items()}

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""

    def groups(self, sizes: Sequence[int]) -> list[list[int]]:
        """Split questions so that one backward pass holds about `batch_tokens`, largest first.

        Args:
            sizes: wordpieces that are read for each.
        """
        order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        groups = pack([sizes[number] for number in order], self.budget.batch_tokens)
        return [[order[place] for place in group] for group in groups]


def _mean(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the means of several (count, measures); tokens are no mean."""
    total = sum(count for count, _ in parts)
    return {
        name: sum(count * part[name] for count, part in parts) / total
        for name in parts[0][1]
        if name != "tokens"
    }
