"""What the reader makes of the passages found: spans, summed by string, most probable first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from realm.corpus.store import Passages
from realm.device import autocast_to, device_of
from realm.model.evidence import measure_evidence
from realm.model.reader import Reader
from realm.model.realm import Budget, span_logits
from realm.records import Answer, Evidence
from realm.retrieval.candidates import NULL_ROW
from realm.retrieval.gathering import gather
from realm.retrieval.reading import span_inputs

NUM_SPANS = 200
"""Most probable spans of a question that are summed by string."""
BATCH_TOKENS = 2_048
QUESTIONS_TOGETHER = 16
"""Questions whose passages are read together."""


@dataclass(frozen=True, slots=True)
class Found:
    """A question's wordpieces, and the passages that are read for it."""

    ids: list[int]
    rows: list[int]
    """Best first."""
    scores: list[float]
    """Of those passages."""
    copies: Sequence[int] = ()
    """Rows that were found, too, and have the text of one of those."""


class PassageReader:
    """The reader over a passage store."""

    def __init__(self, reader: Reader, store: Passages, *, max_length: int) -> None:
        self.reader = reader
        self.store = store
        self.max_length = max_length
        """Longest joint input in wordpieces."""
        self.autocast: Literal["bfloat16", "none"] = "none"
        """Of the reader's matrix products."""

    @torch.inference_mode()
    def logits(self, found: Sequence[Found]) -> Iterator[list[Float[Tensor, "starts widths"]]]:
        """Yield the logits of each question's passages, and of the null passage, if it is read.

        Some questions are read together: so many that their logits fit in memory.
        """
        also = [NULL_ROW] if self.reader.reads_null else []
        budget = Budget(pad_id=self.store.tokenizer.pad_id, batch_tokens=BATCH_TOKENS)
        for start in range(0, len(found), QUESTIONS_TOGETHER):
            some = found[start : start + QUESTIONS_TOGETHER]
            inputs = [
                span_inputs(self.store, one.ids, [*one.rows, *also], self.max_length)
                if one.rows
                else []
                for one in some
            ]
            with autocast_to(self.autocast, device_of(self.reader)):
                logits = span_logits(self.reader, [x for mine in inputs for x in mine], budget)
            for mine in inputs:
                yield logits[: len(mine)]
                del logits[: len(mine)]

    @torch.inference_mode()
    def best(
        self,
        found: Found,
        weighted: Float[Tensor, " rows"],
        logits: list[Float[Tensor, "_ widths"]],
        num_answers: int,
    ) -> tuple[tuple[Answer, ...], Evidence | None]:
        """Return the most probable strings among the passages read, and what speaks for the best.

        p(a|x) = sum_{(i,j,z): text = a} softmax_{(i,j,z)} [ g(i,j,z) + log p(z|x) ]

        One softmax, as in training: over the spans of all passages, and the null passage of a
        reader that learned it, which has no score.

        Args:
            found: the question, and the passages read.
            weighted: what the retriever adds for each; their softmax is p(z|x).
            logits: g of each passage's spans, then of the null passage's where it is read.
            num_answers: distinct strings to return.

        Returns:
            Answers, best first; none where no span has any probability.
        """
        if not found.rows:
            return (), None
        reads_null = self.reader.reads_null
        null = logits[-1][0, :1] if reads_null else torch.empty(0)
        spans = logits[:-1] if reads_null else logits
        prior = weighted.log_softmax(dim=0)
        flat = torch.cat(
            [(part + log_p).reshape(-1) for part, log_p in zip(spans, prior, strict=True)]
        )
        if not torch.isfinite(flat).any():
            return (), None
        probabilities = torch.cat([flat, null]).softmax(dim=0)
        best = probabilities[: len(flat)].topk(min(NUM_SPANS, len(flat)))
        gathered = gather(
            self.store,
            found.rows,
            best.values.tolist(),
            best.indices.tolist(),
            sizes=[part.numel() for part in spans],
            widths=self.reader.max_answer_wordpieces,
            copies=found.copies,
        )
        if not gathered.totals:  # the null passage leaves nothing to any span
            return (), None
        evidence = measure_evidence(
            gathered.totals,
            gathered.best_of_passage,
            num_read=len(found.rows),
            best_logit=max(float(part.max()) for part in spans if part.numel()),
            scores=found.scores,
            overlap=self._overlap(found.ids, found.rows[0]),
            p_null=float(probabilities[-1]) if reads_null else None,
        )
        return gathered.answers(weighted.softmax(dim=0), num_answers), evidence

    def _overlap(self, question_ids: list[int], row: int) -> float:
        """Return the share of the question's wordpieces that stand in a passage or its title."""
        asked = set(question_ids)
        held = asked.intersection(self.store.wordpieces(row).tolist())
        held |= asked.intersection(self.store.tokenizer.encode(self.store.title(row)).ids)
        return len(held) / len(asked)
