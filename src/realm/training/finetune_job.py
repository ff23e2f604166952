"""One step of Open-QA fine-tuning: the losses of a batch of questions, and their gradients.

Loss of a question = reader + early retriever loss, each -log of the probability of everything
correct. Reader: all spans of the passages read, their logits raised by the passage's log p(z|x).
Retriever: the passages of a wide beam, right when they hold an answer. A question of which nothing
right was found adds 0 to the mean; a batch of nothing but such questions has no loss.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.index.searchable import VectorIndex
from realm.index.snapshot import Snapshot
from realm.model.bert import evaluating
from realm.model.embedder import Towers
from realm.model.reader import Reader
from realm.ranks import ALONE, Ranks
from realm.records import Question
from realm.refresh.refresher import Refresher
from realm.retrieval.bm25 import Bm25Retriever
from realm.retrieval.dense import DenseRetriever
from realm.retrieval.hybrid import HybridRetriever
from realm.training.averaging import over_batches, over_ranks
from realm.training.index_in_use import IndexInUse, Seen
from realm.training.mixing import Mixture, QuestionSet, apart
from realm.training.passage_scores import FreshScores, PassageScores, Retrieved, StandingScores
from realm.training.refreshing import index_config
from realm.training.sampling import sample
from realm.training.span_reading import ReadTally, SpanReading
from realm.training.supervision import judge, rows_to_read

NUM_EVAL = 128
RECALL_AT = 5
NOT_FOUND = 1 << 30
"""The rank of what is not in the beam, however narrow that is."""


class FinetuneJob:
    """One step: a batch of questions, each with the passages that the index gives now."""

    def __init__(
        self,
        sets: Sequence[QuestionSet],
        store: PassageStore,
        index: Snapshot | Refresher,
        towers: Towers,
        reader: Reader,
        config: FinetuneConfig,
        ranks: Ranks = ALONE,
        *,
        lexical: Bm25Retriever | None = None,
    ) -> None:
        """Prepare.

        Args:
            sets: questions; a share is held out to measure on.
            store: the passages.
            index: a snapshot that stands still, or with `train_passages` what keeps one fresh.
            towers: two where Embed_doc stands still.
            reader: that learns.
            config: settings.
            ranks: the processes that train together.
            lexical: BM25, for hybrid retrieval.
        """
        self.store = store
        self.ranks = ranks
        self.towers = towers
        self.reader = reader
        self.config = config
        self.live: IndexInUse | None = None
        if isinstance(index, Snapshot):
            self._searched: VectorIndex = index
        else:
            embedding = index_config(config, len(store))
            self.live = IndexInUse(index, towers, config.refresh, embedding, ranks)
            self._searched = self.live
        self._bm25 = lexical
        self.reading = SpanReading(reader, store, config)
        kept, held = apart(sets, config.held_out)
        self.mixture = Mixture(kept, seed=config.seed)
        self.eval_questions = [held[n] for n in sample(range(len(held)), NUM_EVAL, config.seed)]
        towers.passage.requires_grad_(requires_grad=self.live is not None)

    @cached_property
    def dense(self) -> DenseRetriever:
        """Embed_input and the index; one that is refreshed is open from the first step on."""
        return DenseRetriever(
            self.towers.query,
            self._searched,
            self.store.tokenizer,
            question_wordpieces=self.config.question_wordpieces,
            batch_tokens=self.config.batch_tokens,
        )

    @cached_property
    def hybrid(self) -> HybridRetriever | None:
        """The same together with BM25, where that is asked for."""
        if self._bm25 is None:
            return None
        return HybridRetriever(self.dense, self._bm25, lexical_weight=self.config.lexical_weight)

    @cached_property
    def scores(self) -> PassageScores:
        """How what was retrieved is scored."""
        if self.live is None:
            return StandingScores(self._searched, self.hybrid, has_early_loss=self.retriever_learns)
        return FreshScores(self.live, self.hybrid, self.towers.passage, self.store, self.config)

    @property
    def model(self) -> Model:
        """Both towers and the reader."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers, reader=self.reader)

    @property
    def retriever_learns(self) -> bool:
        """Whether Embed_input is trained."""
        return self.config.retriever_rate > 0

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the reader and the towers that learn; Embed_doc only with `train_passages`."""
        reader: dict[str, tuple[nn.Module, float]] = {"reader": (self.reader, 1.0)}
        if not self.retriever_learns:
            return reader
        learning = self.towers.query if self.live is None else self.towers
        return {"embedder": (learning, self.config.retriever_rate), **reader}

    def before_step(self, step: int) -> Mapping[str, float]:
        """Refresh the index when it is time; return its state. One that stands still has none."""
        if self.live is None:
            return {}
        self.live.advance(step)
        return self.live.measures()

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of questions."""
        numbers = self.mixture.at(step, self.config.batch_size)
        mine = self.ranks.share(numbers)
        measured: dict[str, float] = {}
        seen: list[Seen] = []
        if mine:
            measured = self._run(
                [self.mixture.questions[number] for number in mine],
                draws=[np.random.default_rng([self.config.seed, step, n]) for n in mine],
                share=len(mine) / len(numbers),
                seen=seen,
            )
        elif self.live is not None:  # the other ranks search, and need this one's rows
            self._search([], torch.zeros(0, self.towers.query.dim))
        everything = over_ranks(self.ranks, len(mine), measured)
        if self.live is None:
            return everything
        return {**everything, **self.live.take(seen, everything)}

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Return the same numbers on held-out questions, and the recall of a refreshed index."""
        if self.live is not None:
            self.live.advance(step)
        if not self.eval_questions:
            return {}
        with torch.inference_mode():
            measured = over_batches(self.eval_questions, self.config.batch_size, self._run)
        if self.live is None:
            return measured
        recall = self.live.recall(
            self._eval_vectors, self.config.num_passages, seed=self.config.seed
        )
        return {**measured, **recall}

    def state(self) -> Mapping[str, Any]:
        """Return which index is in use; where it stands still, all follows from the step."""
        return {} if self.live is None else self.live.state()

    def restore(self, values: Mapping[str, Any]) -> None:
        """Search the index that was in use."""
        if self.live is not None:
            self.live.restore(values)

    def _run(
        self,
        questions: Sequence[Question],
        *,
        draws: Sequence[np.random.Generator] = (),
        share: float = 1.0,
        seen: list[Seen] | None = None,
    ) -> dict[str, float]:
        """Retrieve, read, and in training leave gradients; return the questions' numbers.

        Args:
            questions: this rank's.
            draws: of each question, in training; none: measure only.
            share: by what gradients are multiplied: this rank's share of the questions.
            seen: gets what was scored afresh.
        """
        learns = bool(draws) and self.retriever_learns
        texts = [question.question for question in questions]
        vectors = self._vectors(texts, learns=learns)
        found = self._retrieve(questions, vectors.detach().requires_grad_(learns), draws)
        tally = ReadTally()
        early, taught = 0.0, 0
        told: dict[str, float] = {}
        for group in self.scores.groups(found):
            part = found.part(group)
            scored = self.scores.score(part)
            early_loss = scored.early.sum() / len(questions)
            gradient = self.reading.read(
                part,
                scored.read.detach(),
                tally,
                num_questions=len(questions),
                share=share if draws else None,
            )
            if learns:
                # The reader's own groups were run one by one against detached scores, whose
                # gradient now goes back together with that of the early loss.
                torch.autograd.backward([early_loss, scored.read], [torch.tensor(share), gradient])
            early += float(early_loss.detach())
            taught += scored.taught
            for name, value in (scored.measures or {}).items():
                told[name] = told.get(name, 0.0) + value / len(questions)
            if seen is not None and scored.seen is not None:
                seen.append(scored.seen)
        if learns:
            vectors.backward(found.vectors.grad)
        measured = tally.measures(len(questions), teaches=self.config.objective != "marginal")
        if taught:
            measured["loss_early"] = early
        return {**_total(measured), **measured, **told, **_recall(found)}

    def _retrieve(
        self,
        questions: Sequence[Question],
        vectors: Float[Tensor, "questions dim"],
        draws: Sequence[np.random.Generator],
    ) -> Retrieved:
        """Search, judge what was found, choose what is read."""
        rows, lexical = self._search([question.question for question in questions], vectors)
        judged = [
            judge(self.store, question, beam.tolist(), gold_passages=self.config.gold_passages)
            for question, beam in zip(questions, rows, strict=True)
        ]
        num_read = min(self.config.num_passages, rows.shape[1])
        read = [
            rows_to_read(one, self.config, draws[number]) if draws else one.rows[:num_read]
            for number, one in enumerate(judged)
        ]
        return Retrieved(
            questions=list(questions),
            vectors=vectors,
            beam=rows,
            lexical=lexical,
            judged=judged,
            read=read,
        )

    def _search(
        self, texts: Sequence[str], vectors: Float[Tensor, "questions dim"]
    ) -> tuple[Int[Tensor, "questions beam"], Float[Tensor, "questions beam"]]:
        """Return (rows, BM25's part of their scores) of the beam, best first."""
        wide = self.config.retriever_beam if self.retriever_learns else RECALL_AT
        wide = max(wide, self.config.num_passages, self.config.draw_from or 0)
        beam = min(wide, len(self.store))
        if self.hybrid is not None:
            return self.hybrid.search(texts, vectors, beam)
        _, rows = self.dense.snapshot.search(vectors.detach(), beam)
        return rows, torch.zeros(rows.shape)

    def _eval_vectors(self) -> Float[Tensor, "questions dim"]:
        """Return Embed_input of the held-out questions."""
        return self._vectors([one.question for one in self.eval_questions], learns=False)

    def _vectors(self, texts: Sequence[str], *, learns: bool) -> Float[Tensor, "questions dim"]:
        """Return Embed_input of questions, without gradients or dropout where it does not learn."""
        with (
            nullcontext() if learns else evaluating(self.towers),
            autocast_to(self.config.autocast, device_of(self.towers)),
            torch.set_grad_enabled(learns),
        ):
            return self.dense.embed(texts).float()


def _total(measured: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of the losses; nothing where no question of the batch had one."""
    losses = [value for name, value in measured.items() if name.startswith("loss_")]
    return {"loss": sum(losses)} if losses else {}


def _recall(found: Retrieved) -> dict[str, float]:
    """Return how often a passage that is right is among the first of the beam."""
    is_right = found.is_right
    rank = torch.where(is_right.any(dim=-1), is_right.int().argmax(dim=-1), NOT_FOUND)
    return {
        "recall_at_1": float((rank < 1).float().mean()),
        "recall_at_5": float((rank < RECALL_AT).float().mean()),
    }
