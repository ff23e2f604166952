"""One step of Open-QA fine-tuning: the losses of a batch of questions, and their gradients.

Loss of a question = reader + early retriever loss, each -log of the probability of everything
correct. Reader: all spans of the passages read, their logits raised by the passage's log p(z|x).
Retriever: the passages of a wide beam, right when they hold an answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from realm.checkpoint.checkpoints import Model
from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.device import device_of
from realm.index.builder import autocast_to
from realm.index.snapshot import Snapshot
from realm.model.embedder import Towers
from realm.model.likelihood import correct_log_likelihood
from realm.model.reader import Reader
from realm.model.realm import Budget, SpanInput, span_logits
from realm.ranks import ALONE, Ranks
from realm.records import Question
from realm.retrieval.bm25 import Bm25Retriever
from realm.retrieval.dense import DenseRetriever
from realm.retrieval.hybrid import HybridRetriever
from realm.retrieval.reading import span_inputs
from realm.retrieval.retriever import NULL_ROW
from realm.training.mixing import Mixture, QuestionSet
from realm.training.objectives import QuestionLoss, prior_scores, question_loss
from realm.training.packing import pack
from realm.training.sampling import is_held_out, sample
from realm.training.supervision import Judged, correct_spans, judge, rows_to_read

NUM_EVAL = 128
RECALL_AT = 5


class FinetuneJob:
    """One step: a batch of questions, each with the passages that the snapshot gives now."""

    def __init__(
        self,
        sets: Sequence[QuestionSet],
        store: PassageStore,
        snapshot: Snapshot,
        towers: Towers,
        reader: Reader,
        config: FinetuneConfig,
        ranks: Ranks = ALONE,
        *,
        lexical: Bm25Retriever | None = None,
    ) -> None:
        self.store = store
        self.ranks = ranks
        self.towers = towers
        self.reader = reader
        self.config = config
        self.dense = DenseRetriever(
            towers.query,
            snapshot,
            store.tokenizer,
            question_wordpieces=config.question_wordpieces,
            batch_tokens=config.batch_tokens,
        )
        self.hybrid = (
            HybridRetriever(self.dense, lexical, lexical_weight=config.lexical_weight)
            if lexical is not None
            else None
        )
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
        held = [
            question
            for one in sets
            for question in one.questions
            if is_held_out(question.question, config.held_out)
        ]
        kept = [
            QuestionSet(
                questions=[
                    q for q in one.questions if not is_held_out(q.question, config.held_out)
                ],
                weight=one.weight,
            )
            for one in sets
        ]
        if not any(one.questions for one in kept):
            kept, held = list(sets), []
        self.mixture = Mixture(kept, seed=config.seed)
        self.eval_questions = [held[i] for i in sample(range(len(held)), NUM_EVAL, config.seed)]
        towers.passage.requires_grad_(requires_grad=False)

    @property
    def model(self) -> Model:
        """Both towers and the reader."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers, reader=self.reader)

    @property
    def retriever_learns(self) -> bool:
        """Whether Embed_input is trained."""
        return self.config.retriever_rate > 0

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the question tower and the reader; Embed_doc stays as the index has it."""
        reader: dict[str, tuple[nn.Module, float]] = {"reader": (self.reader, 1.0)}
        if not self.retriever_learns:
            return reader
        return {"embedder": (self.towers.query, self.config.retriever_rate), **reader}

    def before_step(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: the index stands still."""
        return {}

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of questions."""
        numbers = self.mixture.at(step, self.config.batch_size)
        mine = self.ranks.share(numbers)
        measured: dict[str, float] = {}
        if mine:
            measured = self._run(
                [self.mixture.questions[number] for number in mine],
                draws=[np.random.default_rng([self.config.seed, step, n]) for n in mine],
                share=len(mine) / len(numbers),
            )
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
        size = self.config.batch_size
        batches = [
            self.eval_questions[first : first + size]
            for first in range(0, len(self.eval_questions), size)
        ]
        measured = [(len(batch), self._run(batch)) for batch in batches]
        return {f"eval/{name}": value for name, value in _mean(measured).items()}

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""

    def _run(
        self,
        questions: Sequence[Question],
        *,
        draws: Sequence[np.random.Generator] = (),
        share: float = 1.0,
    ) -> dict[str, float]:
        """Retrieve, read, and in training leave gradients; return the questions' numbers.

        Args:
            questions: this rank's.
            draws: of each question, in training; none: measure only.
            share: by what gradients are multiplied: this rank's share of the questions.
        """
        texts = [question.question for question in questions]
        with (
            autocast_to(self.config.autocast, device_of(self.towers)),
            torch.set_grad_enabled(bool(draws) and self.retriever_learns),
        ):
            vectors = self.dense.embed(texts).float()
        found, lexical = self._search(texts, vectors)
        judged = [
            judge(self.store, question, rows.tolist(), gold_passages=self.config.gold_passages)
            for question, rows in zip(questions, found, strict=True)
        ]
        num_read = min(self.config.num_passages, found.shape[1])
        read = [
            rows_to_read(one, self.config, draws[number]) if draws else one.rows[:num_read]
            for number, one in enumerate(judged)
        ]
        early_loss = self._early_loss(vectors, found, lexical, judged)
        read_scores = self._scores(texts, vectors, read)
        measured, gradient = self._read(
            questions, read, judged, read_scores.detach(), learn=bool(draws), share=share
        )
        if draws and self.retriever_learns:
            # Both losses share the question vectors: the reader's groups were run one by one
            # against detached scores, whose gradient now goes back through the tower once.
            torch.autograd.backward([early_loss, read_scores], [torch.tensor(share), gradient])
        is_right = torch.from_numpy(np.stack([one.is_right for one in judged]))
        rank = torch.where(is_right.any(dim=-1), is_right.int().argmax(dim=-1), found.shape[1])
        return {
            "loss": measured["loss_reader"]
            + measured.get("loss_retriever", 0.0)
            + float(early_loss.detach()),
            "loss_early": float(early_loss.detach()),
            **measured,
            "recall_at_1": float((rank < 1).float().mean()),
            "recall_at_5": float((rank < RECALL_AT).float().mean()),
        }

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

    def _early_loss(
        self,
        vectors: Float[Tensor, "questions dim"],
        found: Int[Tensor, "questions beam"],
        lexical: Float[Tensor, "questions beam"],
        judged: Sequence[Judged],
    ) -> Float[Tensor, ""]:
        if not self.retriever_learns:
            return torch.zeros(())
        scores = torch.einsum("qd,qkd->qk", vectors, self.dense.snapshot.exact[found]) + lexical
        is_right = torch.from_numpy(np.stack([one.is_right for one in judged]))
        return -correct_log_likelihood(scores, is_right).mean()

    def _scores(
        self,
        texts: Sequence[str],
        vectors: Float[Tensor, "questions dim"],
        read: Sequence[Sequence[int]],
    ) -> Float[Tensor, "questions read"]:
        """Return the scores of the passages read; 0 where a question reads fewer."""
        width = max(len(rows) for rows in read)
        padded = torch.tensor([[*rows, *[0] * (width - len(rows))] for rows in read])
        scores = torch.einsum("qd,qkd->qk", vectors, self.dense.snapshot.exact[padded])
        if self.hybrid is None:
            return scores
        return scores + torch.stack(
            [self.hybrid.weigh(text, rows) for text, rows in zip(texts, padded, strict=True)]
        )

    def _read(
        self,
        questions: Sequence[Question],
        read: Sequence[Sequence[int]],
        judged: Sequence[Judged],
        scores: Float[Tensor, "questions read"],
        *,
        learn: bool,
        share: float,
    ) -> tuple[dict[str, float], Float[Tensor, "questions read"]]:
        """Run the reader; return its numbers, and the gradient of `share` times its loss.

        Args:
            questions: asked.
            read: rows of the passages that each reads.
            judged: what is right.
            scores: of the passages read.
            learn: leave gradients.
            share: see `_run`.
        """
        scores.requires_grad_(learn)
        also = [NULL_ROW] if self.config.null_passage else []
        limit = self.config.question_wordpieces - 2
        pieces = self.store.tokenizer.encode_batch([question.question for question in questions])
        inputs = [
            span_inputs(self.store, one.ids[:limit], [*rows, *also], self.config.joint_wordpieces)
            for one, rows in zip(pieces, read, strict=True)
        ]
        total = torch.zeros(2)  # of the reader, and of what it teaches the retriever
        hits = readable = tokens = 0
        for group in self._groups(inputs):
            losses: list[QuestionLoss] = []
            priors = [
                prior_scores(scores[number, : len(read[number])], self.config) for number in group
            ]
            for number, logits in self._group_logits(group, inputs, priors):
                correct = correct_spans(
                    self.store,
                    questions[number],
                    [*read[number], *also],
                    logits,
                    gold=judged[number].gold,
                )
                scored = scores[number, : len(read[number])]
                losses.append(question_loss(logits, correct, scored, self.config))
                flat = torch.cat([part.reshape(-1) for part in logits])
                hits += int(correct[int(flat.argmax())])
                spans = correct[: -logits[-1].numel()] if also else correct
                readable += int(spans.any())
                tokens += sum(len(item.ids) for item in inputs[number])
            part = torch.stack([torch.stack(one) for one in losses]).sum(dim=0) / len(questions)
            if learn:
                (share * part.sum()).backward()
            total += part.detach()
        taught = {} if self.config.objective == "marginal" else {"loss_retriever": float(total[1])}
        measured = {
            "loss_reader": float(total[0]),
            **taught,
            "span_accuracy": hits / len(questions),
            "readable": readable / len(questions),
            "tokens": float(tokens),
        }
        return measured, torch.zeros_like(scores) if scores.grad is None else scores.grad

    def _groups(self, inputs: Sequence[Sequence[SpanInput]]) -> list[list[int]]:
        """Split the questions so that one backward pass holds about `batch_tokens`."""
        sizes = [sum(len(item.ids) for item in passages) for passages in inputs]
        order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        groups = pack([sizes[number] for number in order], self.config.batch_tokens)
        return [[order[place] for place in group] for group in groups]

    def _group_logits(
        self,
        group: Sequence[int],
        inputs: Sequence[Sequence[SpanInput]],
        scores: Sequence[Float[Tensor, " _"]],
    ) -> list[tuple[int, list[Tensor]]]:
        """Return, per question, each passage's span logits with log p(z|x) added.

        The null passage, which has no score, is left as the reader sees it.
        """
        flat = [item for number in group for item in inputs[number]]
        with autocast_to(self.config.autocast, device_of(self.reader)):
            logits = iter(span_logits(self.reader, flat, self.budget))
        answered: list[tuple[int, list[Tensor]]] = []
        for number, score in zip(group, scores, strict=True):
            prior = score.log_softmax(dim=0)
            parts = [next(logits) for _ in inputs[number]]
            answered.append((number, [part + add for part, add in zip(parts, prior, strict=False)]))
            answered[-1][1].extend(parts[len(prior) :])
        return answered


def _mean(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the means of several (count, measures); tokens are no mean."""
    total = sum(count for count, _ in parts)
    return {
        name: sum(count * part[name] for count, part in parts) / total
        for name in parts[0][1]
        if name != "tokens"
    }
