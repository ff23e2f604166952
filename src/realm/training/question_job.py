"""What the stages share that learn from questions, or claims, over an index that stands still."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from realm.checkpoint.parts import Model
from realm.config import ClassifyConfig, FinetuneConfig
from realm.corpus.store import PassageStore
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.model.realm import Budget
from realm.ranks import ALONE, Ranks
from realm.retrieval.dense import DenseRetriever
from realm.training.averaging import over_batches, over_ranks
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
        return over_ranks(self.ranks, len(mine), measured)

    @torch.inference_mode()
    def evaluate(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return the same numbers on held-out questions."""
        return over_batches(
            self.eval_questions, self._batch_size, lambda batch: self.run(batch, learn=False)
        )

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""
