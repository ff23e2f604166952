"""The reader's part of a fine-tuning step: spans of the passages read, some questions at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.model.reader import Reader
from realm.model.realm import Budget, SpanInput, span_logits
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.reading import span_inputs
from realm.training.objectives import QuestionLoss, prior_scores, question_loss
from realm.training.packing import pack_largest_first
from realm.training.passage_scores import Retrieved
from realm.training.supervision import correct_spans


@dataclass(slots=True)
class ReadTally:
    """What the reader did with some questions, in sums."""

    losses: Float[Tensor, "2"] = field(default_factory=lambda: torch.zeros(2))
    """Of the reader, and of what it teaches the retriever; already divided by the questions."""
    hits: int = 0
    """Questions whose best span is right."""
    readable: int = 0
    """Questions with a right span in a passage read."""
    taught: int = 0
    """Questions that teach the reader: they have a right span, if only the null passage's."""
    tokens: int = 0
    """Wordpieces read."""

    def measures(self, num_questions: int, *, teaches: bool) -> dict[str, float]:
        """Return the numbers of all questions together; `teaches`: with the retriever's loss.

        A loss is left out where no question teaches: a 0 would look like all being right.
        """
        reader = {"loss_reader": float(self.losses[0])} if self.taught else {}
        retriever = {"loss_retriever": float(self.losses[1])} if teaches and self.readable else {}
        return {
            **reader,
            **retriever,
            "span_accuracy": self.hits / num_questions,
            "readable": self.readable / num_questions,
            "tokens": float(self.tokens),
        }


class SpanReading:
    """Runs the reader, and leaves its gradients."""

    def __init__(self, reader: Reader, store: PassageStore, config: FinetuneConfig) -> None:
        self.reader = reader
        self.store = store
        self.config = config
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)

    def read(
        self,
        found: Retrieved,
        scores: Float[Tensor, "questions read"],
        tally: ReadTally,
        *,
        num_questions: int,
        share: float | None,
    ) -> Float[Tensor, "questions read"]:
        """Run the reader; return the gradient of `share` times its loss for the scores.

        Args:
            found: questions, with the rows that each reads.
            scores: of the passages read, detached.
            tally: gets what was measured.
            num_questions: over how many the loss is a mean.
            share: by what gradients are multiplied; None: measure only.
        """
        scores.requires_grad_(share is not None)
        also = [NULL_ROW] if self.config.null_passage else []
        inputs = self._inputs(found, also)
        sizes = [sum(len(item.ids) for item in passages) for passages in inputs]
        for group in pack_largest_first(sizes, self.config.batch_tokens):
            losses: list[QuestionLoss] = []
            priors = [
                prior_scores(scores[number, : len(found.read[number])], self.config)
                for number in group
            ]
            for number, logits in self._group_logits(group, inputs, priors):
                read = found.read[number]
                correct = correct_spans(
                    self.store,
                    found.questions[number],
                    [*read, *also],
                    logits,
                    gold=found.judged[number].gold,
                )
                losses.append(
                    question_loss(logits, correct, scores[number, : len(read)], self.config)
                )
                flat = torch.cat([part.reshape(-1) for part in logits])
                tally.hits += int(correct[int(flat.argmax())])
                spans = correct[: -logits[-1].numel()] if also else correct
                tally.readable += int(spans.any())
                tally.taught += int(correct.any())
                tally.tokens += sum(len(item.ids) for item in inputs[number])
            part = torch.stack([torch.stack(one) for one in losses]).sum(dim=0) / num_questions
            if share is not None:
                (share * part.sum()).backward()
            tally.losses += part.detach()
        return torch.zeros_like(scores) if scores.grad is None else scores.grad

    def _inputs(self, found: Retrieved, also: Sequence[int]) -> list[list[SpanInput]]:
        limit = self.config.question_wordpieces - 2
        pieces = self.store.tokenizer.encode_batch([one.question for one in found.questions])
        return [
            span_inputs(self.store, one.ids[:limit], [*rows, *also], self.config.joint_wordpieces)
            for one, rows in zip(pieces, found.read, strict=True)
        ]

    def _group_logits(
        self,
        group: Sequence[int],
        inputs: Sequence[Sequence[SpanInput]],
        scores: Sequence[Float[Tensor, " _"]],
    ) -> list[tuple[int, list[Float[Tensor, "starts widths"]]]]:
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
