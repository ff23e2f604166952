"""The scores by which fine-tuning learns to retrieve: from the index as it stands, or afresh.

The early loss of a question x over passages B, of which R is right, is

    L = -log( sum_{z in R} exp f(x,z) / sum_{z in B} exp f(x,z) )
    dL / df(x,z) = p(z) - r(z),  p the softmax of f over B, r over R (0 elsewhere)
    dL / dEmbed_doc(z) = (p(z) - r(z)) Embed_input(x)

Where Embed_doc stands still, B is a beam of thousands. Where it learns, every f must be fresh, and
p and r lie on few passages anyway: B is then the best of the beam, the best that is right, and what
is read. The rest of the beam must not count with its vectors in the index: both towers would turn
away from what is stale, by which L falls and nothing is found any more (docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.index.searchable import VectorIndex
from realm.model.embedder import Embedder, embed_in_groups
from realm.model.inputs import in_packs
from realm.model.likelihood import correct_log_likelihood
from realm.model.realm import Budget
from realm.records import Question
from realm.retrieval.batch import passage_sequence
from realm.retrieval.hybrid import HybridRetriever
from realm.training.index_in_use import Seen
from realm.training.measures import rank_correlations
from realm.training.supervision import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Questions, with what was found for each, and what is read."""

    questions: list[Question]
    vectors: Float[Tensor, "questions dim"]
    """Embed_input of each."""
    beam: Int[Tensor, "questions beam"]
    """Rows that were found, best first."""
    lexical: Float[Tensor, "questions beam"]
    """BM25's part of their scores."""
    judged: list[Judged]
    read: list[list[int]]
    """Rows of the passages that the reader reads."""

    def part(self, numbers: Sequence[int]) -> "Retrieved":
        """Return some of the questions."""
        return replace(
            self,
            questions=[self.questions[n] for n in numbers],
            vectors=self.vectors[numbers],
            beam=self.beam[numbers],
            lexical=self.lexical[numbers],
            judged=[self.judged[n] for n in numbers],
            read=[self.read[n] for n in numbers],
        )

    @property
    def is_right(self) -> Bool[Tensor, "questions beam"]:
        """Which passages of each beam are right."""
        return torch.from_numpy(np.stack([one.is_right for one in self.judged]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What the retriever learns from."""

    early: Float[Tensor, " questions"]
    """The early loss of each question; 0 where no passage is right."""
    taught: int
    """Questions with a passage that is right, if there is an early loss."""
    read: Float[Tensor, "questions read"]
    """Scores of the passages read; 0 where a question reads fewer."""
    seen: Seen | None = None
    """What was scored afresh."""
    measures: dict[str, float] | None = None
    """Sums over the questions."""


@runtime_checkable
class PassageScores(Protocol):
    """Scores the passages that were retrieved."""

    def groups(self, found: Retrieved) -> list[list[int]]:
        """Return which questions go through one backward pass together."""
        ...

    def score(self, found: Retrieved) -> Scored:
        """Return early losses and scores, with gradients where the retriever learns."""
        ...


class StandingScores:
    """Scores by the vectors of the index, which are constants: Embed_input alone learns."""

    def __init__(
        self, index: VectorIndex, hybrid: HybridRetriever | None, *, has_early_loss: bool
    ) -> None:
        self.index = index
        self.hybrid = hybrid
        self.has_early_loss = has_early_loss

    def groups(self, found: Retrieved) -> list[list[int]]:
        """Return all questions in one group."""
        return [list(range(len(found.questions)))]

    def score(self, found: Retrieved) -> Scored:
        """Return early losses (0 where there are none) and scores."""
        early, taught = torch.zeros(len(found.questions)), 0
        if self.has_early_loss:
            dense = torch.einsum("qd,qkd->qk", found.vectors, self.index.exact[found.beam])
            scores = dense + found.lexical
            early = -correct_log_likelihood(scores, found.is_right)
            taught = int(found.is_right.any(dim=-1).sum())
        width = max(len(rows) for rows in found.read)
        padded = torch.tensor([[*rows, *[0] * (width - len(rows))] for rows in found.read])
        read = torch.einsum("qd,qkd->qk", found.vectors, self.index.exact[padded])
        if self.hybrid is not None:
            weights = zip(found.questions, padded, strict=True)
            read = read + torch.stack([self.hybrid.weigh(q.question, rows) for q, rows in weights])
        return Scored(early=early, taught=taught, read=read)


class FreshScores:
    """Scores the head of the beam and what is read afresh, and nothing else: Embed_doc learns."""

    def __init__(
        self,
        index: VectorIndex,
        hybrid: HybridRetriever | None,
        tower: Embedder,
        store: PassageStore,
        config: FinetuneConfig,
    ) -> None:
        self.index = index
        self.hybrid = hybrid
        self.tower = tower
        self.store = store
        self.config = config
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
        self.longest = min(config.passage_wordpieces, tower.max_length)

    def groups(self, found: Retrieved) -> list[list[int]]:
        """Return consecutive questions whose fresh passages have about `batch_tokens`."""
        numbers = range(len(found.questions))
        rows = [self.rows_to_embed(found.judged[n], found.read[n]) for n in numbers]
        sizes = [self.store.lengths(one).clip(max=self.longest).sum() for one in rows]
        return list(in_packs(map(int, sizes), self.config.batch_tokens))

    def rows_to_embed(self, judged: Judged, read: Sequence[int]) -> list[int]:
        """Return the distinct passages of one question that are scored afresh.

        The first `fresh_passages` of its beam, the last of which gives way to the first right one
        where that comes later; and what is read. Nothing of other questions, so that the loss of a
        question does not depend on the batch, nor on the rank, in which it stands.
        """
        head = judged.rows[: self.config.fresh_passages]
        right = np.flatnonzero(judged.is_right)
        if head and len(right) and int(right[0]) >= len(head):
            head[-1] = judged.rows[int(right[0])]
        return list(dict.fromkeys([*head, *read]))

    def score(self, found: Retrieved) -> Scored:
        """Return early losses and scores, and what they tell of the index."""
        rows = [self.rows_to_embed(*pair) for pair in zip(found.judged, found.read, strict=True)]
        distinct = list(dict.fromkeys(row for one in rows for row in one))
        place_of = {row: place for place, row in enumerate(distinct)}
        vectors = self._embed(distinct)
        early: list[Tensor] = []
        read: list[Tensor] = []
        drifts: list[Tensor] = []
        agreement, taught = 0.0, 0
        for number, own in enumerate(rows):
            dense = vectors[[place_of[row] for row in own]] @ found.vectors[number]
            stale = self.index.exact[torch.tensor(own)] @ found.vectors[number].detach()
            drifts.append((dense.detach() - stale).abs())
            known = torch.ones(1, len(own), dtype=torch.bool)
            order = rank_correlations(dense.detach()[None], stale[None], known)
            agreement += float(order[0]) if len(order) else 1.0
            scores = dense + self._lexical(found.questions[number], own)
            is_right = torch.from_numpy(found.judged[number].are_right(own))
            early.append(-correct_log_likelihood(scores[None], is_right[None])[0])
            taught += int(is_right.any())
            read.append(scores[[own.index(row) for row in found.read[number]]])
        return Scored(
            early=torch.stack(early),
            taught=taught,
            read=torch.nn.utils.rnn.pad_sequence(read, batch_first=True),
            seen=Seen(
                rows=torch.tensor([row for own in rows for row in own]),
                drift=torch.cat(drifts),
                vectors=vectors.detach()[[place_of[row] for own in rows for row in own]],
            ),
            measures={
                "index/score_drift": sum(float(drift.mean()) for drift in drifts),
                "index/rank_correlation": agreement,
            },
        )

    def _embed(self, rows: Sequence[int]) -> Float[Tensor, "rows dim"]:
        """Return Embed_doc of passages, with gradients where they are on."""
        store = self.store
        texts = [passage_sequence(store, store.tokenizer, row, self.longest) for row in rows]
        with autocast_to(self.config.autocast, device_of(self.tower)):
            return embed_in_groups(
                self.tower,
                texts,
                pad_id=self.budget.pad_id,
                batch_tokens=self.budget.batch_tokens,
            ).float()

    def _lexical(self, question: Question, rows: Sequence[int]) -> Float[Tensor, " rows"]:
        """Return BM25's part of the scores of one question's passages."""
        if self.hybrid is None:
            return torch.zeros(len(rows))
        return self.hybrid.weigh(question.question, torch.tensor(rows))
