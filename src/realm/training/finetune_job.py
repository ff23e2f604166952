"""One step of Open-QA fine-tuning: the losses of a batch of questions, and their gradients.

Loss of a question = reader + early retriever loss, each -log of the probability of everything
correct. Reader: all spans of the passages read, their logits raised by the passage's score.
Retriever: the passages of a wide beam, right when they hold an answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
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
from realm.retrieval.dense import DenseRetriever
from realm.retrieval.matching import answer_spans, holds_answer, wordpiece_spans
from realm.retrieval.reading import span_inputs
from realm.training.packing import pack
from realm.training.sampling import batch_at, is_held_out, sample

NUM_EVAL = 128


class FinetuneJob:
    """One step: a batch of questions, each with the passages that the snapshot gives now."""

    def __init__(
        self,
        questions: Sequence[Question],
        store: PassageStore,
        snapshot: Snapshot,
        towers: Towers,
        reader: Reader,
        config: FinetuneConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self.store = store
        self.ranks = ranks
        self.towers = towers
        self.reader = reader
        self.config = config
        self.retriever = DenseRetriever(
            towers.query,
            snapshot,
            store.tokenizer,
            question_wordpieces=config.question_wordpieces,
            batch_tokens=config.batch_tokens,
        )
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
        held = [q for q in questions if is_held_out(q.question, config.held_out)]
        self.train_questions = [
            q for q in questions if not is_held_out(q.question, config.held_out)
        ]
        if not self.train_questions:
            self.train_questions, held = held, []
        self.eval_questions = [held[i] for i in sample(range(len(held)), NUM_EVAL, config.seed)]
        towers.passage.requires_grad_(requires_grad=False)

    @property
    def model(self) -> Model:
        """Both towers and the reader."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers, reader=self.reader)

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the question tower and the reader; Embed_doc stays as the index has it."""
        return {
            "embedder": (self.towers.query, self.config.retriever_rate),
            "reader": (self.reader, 1.0),
        }

    def before_step(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: the index stands still."""
        return {}

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of questions."""
        numbers = batch_at(
            step,
            num_items=len(self.train_questions),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        mine = [self.train_questions[n] for n in self.ranks.share(numbers)]
        measured = self._run(mine, learn=True, share=len(mine) / len(numbers)) if mine else {}
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
        measured = [(len(batch), self._run(batch, learn=False)) for batch in batches]
        return {f"eval/{name}": value for name, value in _mean(measured).items()}

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""

    def _run(
        self, questions: Sequence[Question], *, learn: bool, share: float = 1.0
    ) -> dict[str, float]:
        """Retrieve, read, and (with `learn`) leave gradients; return the questions' numbers.

        Args:
            questions: this rank's.
            learn: whether to leave gradients.
            share: by what they are multiplied: this rank's share of the questions.
        """
        with autocast_to(self.config.autocast, device_of(self.towers)):
            vectors = self.retriever.embed([q.question for q in questions]).float()
        beam = min(self.config.retriever_beam, len(self.store))
        _, found = self.retriever.snapshot.search(vectors, beam)
        beam_scores = torch.einsum("qd,qkd->qk", vectors, self.retriever.snapshot.exact[found])
        is_right = torch.stack(
            [
                torch.from_numpy(holds_answer(self.store, rows.tolist(), question))
                for rows, question in zip(found, questions, strict=True)
            ]
        )
        early = correct_log_likelihood(beam_scores, is_right)
        num_read = min(self.config.num_passages, beam)
        inputs = [
            span_inputs(
                self.store,
                pieces.ids[: self.config.question_wordpieces - 2],
                rows[:num_read].tolist(),
                self.config.joint_wordpieces,
            )
            for pieces, rows in zip(
                self.store.tokenizer.encode_batch([q.question for q in questions]),
                found,
                strict=True,
            )
        ]
        # The early loss and the scores inside the reader's loss share the question vectors: the
        # reader's groups are run one by one against detached scores, whose gradient is then sent
        # back through the tower once.
        scores = beam_scores[:, :num_read].detach().requires_grad_(learn)
        count = len(questions)
        total = torch.zeros(())
        hits = readable = tokens = 0
        for group in self._groups(inputs):
            log_likelihoods: list[Tensor] = []
            for number, logits in self._group_logits(group, inputs, scores):
                correct = self.correct_spans(questions[number], found[number, :num_read], logits)
                flat = torch.cat([part.reshape(-1) for part in logits])[None]
                log_likelihoods.append(correct_log_likelihood(flat, correct[None])[0])
                hits += int(correct[int(flat.argmax())])
                readable += int(correct.any())
                tokens += sum(len(item.ids) for item in inputs[number])
            part = -torch.stack(log_likelihoods).sum() / count
            if learn:
                (share * part).backward()
            total += part.detach()
        early_loss = -early.sum() / count
        if learn:
            torch.autograd.backward(
                [early_loss, beam_scores], [torch.tensor(share), _padded(scores.grad, beam)]
            )
        rank = torch.where(is_right.any(dim=-1), is_right.int().argmax(dim=-1), beam)
        return {
            "loss": float(total + early_loss.detach()),
            "loss_reader": float(total),
            "loss_early": float(early_loss.detach()),
            "span_accuracy": hits / count,
            "readable": readable / count,
            "recall_at_1": float((rank < 1).float().mean()),
            "recall_at_5": float((rank < 5).float().mean()),
            "tokens": float(tokens),
        }

    def _groups(self, inputs: Sequence[Sequence[SpanInput]]) -> list[list[int]]:
        """Split the questions so that one backward pass holds about `batch_tokens`."""
        sizes = [sum(len(item.ids) for item in passages) for passages in inputs]
        order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        groups = pack([sizes[number] for number in order], self.config.batch_tokens)
        return [[order[place] for place in group] for group in groups]

    def _group_logits(
        self, group: Sequence[int], inputs: Sequence[Sequence[SpanInput]], scores: Tensor
    ) -> list[tuple[int, list[Tensor]]]:
        """Return, per question, each passage's span logits with the passage's score added."""
        flat = [item for number in group for item in inputs[number]]
        with autocast_to(self.config.autocast, device_of(self.reader)):
            logits = iter(span_logits(self.reader, flat, self.budget))
        return [
            (
                number,
                [next(logits) + scores[number, place] for place in range(len(inputs[number]))],
            )
            for number in group
        ]

    def correct_spans(self, question: Question, rows: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """Return which of the flattened spans are answers."""
        marks: list[Tensor] = []
        for row, part in zip(rows.tolist(), logits, strict=True):
            mark = torch.zeros(part.shape, dtype=torch.bool)
            text = self.store.text(row)
            spans = answer_spans(text, question)
            if spans:
                offsets = self.store.tokenizer.encode(text).offsets
                for first, last in wordpiece_spans(spans, offsets):
                    if last < part.shape[0] and last - first < part.shape[1]:
                        mark[first, last - first] = True
            marks.append(mark.reshape(-1))
        return torch.cat(marks)


def _mean(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the means of several (count, measures); tokens are no mean."""
    total = sum(count for count, _ in parts)
    return {
        name: sum(count * part[name] for count, part in parts) / total
        for name in parts[0][1]
        if name != "tokens"
    }


def _padded(gradient: Tensor | None, width: int) -> Tensor:
    """Return the scores' gradient with zeros for the passages that were not read."""
    if gradient is None:
        raise AssertionError("scores were not used")
    return nn.functional.pad(gradient, (0, width - gradient.shape[1]))
