"""The scores by which fine-tuning learns to retrieve: from the index as it stands, or afresh.

The early loss of a question x with beam B, of which R is right, is

    L = -log( sum_{z in R} exp f(x,z) / sum_{z in B} exp f(x,z) )
    dL / df(x,z) = p(z) - r(z),  p the softmax of f over B, r over R (0 elsewhere)

so that dL / dEmbed_doc(z) = (p(z) - r(z)) Embed_input(x). Over thousands of passages that is
nothing for all but a few: p and r lie on the best of B and the best of R. So with `train_passages`
those, and what is read, are embedded afresh, with a gradient; the others count in both sums with
their vectors in the index, as constants. Embed_input gets the gradient of all of B either way. How
much of sum_z |p(z) - r(z)| Embed_doc gets is logged as `fresh_gradient_share`.
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
from realm.device import device_of
from realm.index.builder import autocast_to
from realm.index.searchable import VectorIndex
from realm.model.embedder import Embedder, embed_in_groups
from realm.model.likelihood import correct_log_likelihood
from realm.model.realm import Budget
from realm.records import Question
from realm.retrieval.batch import passage_sequence
from realm.retrieval.hybrid import HybridRetriever
from realm.training.index_in_use import Seen
from realm.training.measures import rank_correlation
from realm.training.packing import pack
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
    """The early loss of each question."""
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
        early = torch.zeros(len(found.questions))
        if self.has_early_loss:
            scores = index_scores(self.index, found) + found.lexical
            early = -correct_log_likelihood(scores, found.is_right)
        width = max(len(rows) for rows in found.read)
        padded = torch.tensor([[*rows, *[0] * (width - len(rows))] for rows in found.read])
        read = torch.einsum("qd,qkd->qk", found.vectors, self.index.exact[padded])
        if self.hybrid is not None:
            weights = zip(found.questions, padded, strict=True)
            read = read + torch.stack([self.hybrid.weigh(q.question, rows) for q, rows in weights])
        return Scored(early=early, read=read)


class FreshScores:
    """Scores what is read, and the head of the beam, afresh: Embed_doc learns, too."""

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
        return pack([int(size) for size in sizes], self.config.batch_tokens)

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
        beams = index_scores(self.index, found)
        mixed: list[Tensor] = []
        read: list[Tensor] = []
        drifts: list[Tensor] = []
        agreement = 0.0
        for number, own in enumerate(rows):
            fresh = vectors[[place_of[row] for row in own]] @ found.vectors[number]
            stale = self.index.exact[torch.tensor(own)] @ found.vectors[number].detach()
            drifts.append((fresh.detach() - stale).abs())
            known = torch.ones(1, len(own), dtype=torch.bool)
            agreement += rank_correlation(fresh.detach()[None], stale[None], known)
            mixed.append(_replaced(beams[number], found.judged[number].rows, own, fresh))
            wanted = torch.tensor([own.index(row) for row in found.read[number]])
            read.append(fresh[wanted] + self._lexical(found, number))
        scores = torch.stack(mixed) + found.lexical
        early = -correct_log_likelihood(scores, found.is_right)
        return Scored(
            early=early,
            read=torch.nn.utils.rnn.pad_sequence(read, batch_first=True),
            seen=Seen(
                rows=torch.tensor([row for own in rows for row in own]),
                drift=torch.cat(drifts),
                vectors=vectors.detach()[[place_of[row] for own in rows for row in own]],
            ),
            measures={
                "index/score_drift": sum(float(drift.mean()) for drift in drifts),
                "index/rank_correlation": agreement,
                "fresh_gradient_share": _gradient_share(scores, found, rows),
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

    def _lexical(self, found: Retrieved, number: int) -> Tensor:
        """Return BM25's part of the scores of what one question reads."""
        if self.hybrid is None:
            return torch.zeros(len(found.read[number]))
        text = found.questions[number].question
        return self.hybrid.weigh(text, torch.tensor(found.read[number]))


def index_scores(index: VectorIndex, found: Retrieved) -> Float[Tensor, "questions beam"]:
    """Return the dense scores of each beam by the vectors of the index."""
    return torch.einsum("qd,qkd->qk", found.vectors, index.exact[found.beam])


def _replaced(
    scores: Float[Tensor, " beam"],
    beam: Sequence[int],
    rows: Sequence[int],
    fresh: Float[Tensor, " rows"],
) -> Float[Tensor, " beam"]:
    """Return the scores of a beam with fresh ones at those rows that stand in it."""
    place_of = {row: place for place, row in enumerate(beam)}
    inside = [number for number, row in enumerate(rows) if row in place_of]
    places = torch.tensor([place_of[rows[number]] for number in inside], dtype=torch.long)
    return scores.index_copy(0, places, fresh[inside])


def _gradient_share(
    scores: Float[Tensor, "questions beam"], found: Retrieved, rows: Sequence[Sequence[int]]
) -> float:
    """Return the sum, over questions, of the share of sum_z |p(z) - r(z)| that is of fresh ones.

    1 for a question whose early loss has no gradient.
    """
    scores, is_right = scores.detach(), found.is_right
    lowest = torch.finfo(scores.dtype).min
    right = scores.masked_fill(~is_right, lowest).softmax(dim=-1)
    size = (scores.softmax(dim=-1) - right).abs()
    is_fresh = torch.stack(
        [torch.isin(beam, torch.tensor(own)) for beam, own in zip(found.beam, rows, strict=True)]
    )
    share = (size * is_fresh).sum(dim=-1) / size.sum(dim=-1).clamp_min(torch.finfo().tiny)
    has_gradient = is_right.any(dim=-1) & (size.sum(dim=-1) > 0)
    return float(torch.where(has_gradient, share, 1.0).sum())
