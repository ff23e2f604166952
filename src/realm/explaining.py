"""Table 3 for any sentence: the prediction without retrieval, with each passage, summed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from realm.checkpoint.parts import Model
from realm.corpus.store import Passages
from realm.device import AUTO
from realm.index.snapshot import Snapshot
from realm.masking.cloze import cloze
from realm.masking.spans import MaskedPieces
from realm.model.likelihood import (
    marginal_log_likelihood,
    retrieval_utility,
    score_gradient,
    span_log_probs,
)
from realm.model.realm import CandidateBatch
from realm.predicting import Predictor
from realm.readable import as_probability
from realm.records import MaskedExample, Passage, Progress
from realm.retrieval.batch import Lengths
from realm.retrieval.candidates import NULL_ROW

Propose = Callable[[str, int], list[int]]
"""(A sentence with blanks, k) -> rows of k passages to read, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateExplanation:
    """What one candidate does for the prediction."""

    passage: Passage | None
    """None: the null passage."""
    p_passage: float
    """p(z|x) over the candidates."""
    p_answer: float
    """p(y|z,x)."""
    gradient: float
    """r(z) = [p(y|z,x) / p(y|x) - 1] p(z|x): positive where training would raise its score."""
    utility: float
    """RU(z|x) = log p(y|z,x) - log p(y|null,x), in nats (Eq. 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One row of Table 3."""

    text: str
    answer: str
    """What was asked about, or the prediction when nothing was."""
    num_masks: int
    p_without: float
    """p(y | null, x): no retrieval."""
    p_marginal: float
    """p(y|x), summed over the candidates (Eq. 1)."""
    predicted_without: str
    predicted: str
    candidates: tuple[CandidateExplanation, ...]
    """The null passage first, then passages by score."""

    def _repr_html_(self) -> str:
        """Show it in a notebook; every text escaped."""
        rows = "".join(
            f"<tr><td>{escape(_name(one.passage))}</td><td>{as_probability(one.p_passage)}</td>"
            f"<td>{as_probability(one.p_answer)}</td><td>{one.gradient:+.3f}</td>"
            f"<td>{one.utility:+.2f}</td></tr>"
            for one in self.candidates
        )
        return (
            f"<div><b>{escape(self.text)}</b><p>{escape(self.answer)}: p(y|x) = "
            f"{as_probability(self.p_without)} without retrieval, "
            f"{as_probability(self.p_marginal)} with it; predicted "
            f"{escape(self.predicted_without)} and {escape(self.predicted)}</p>"
            "<table><tr><th>z</th><th>p(z|x)</th><th>p(y|z,x)</th><th>r(z)</th>"
            f"<th>RU(z|x)</th></tr>{rows}</table></div>"
        )


class Explainer:
    """Fills blanks with a pre-trained run and says which passages helped."""

    def __init__(
        self,
        model: Model,
        store: Passages,
        snapshot: Snapshot,
        *,
        lengths: Lengths | None = None,
        propose: Propose | None = None,
    ) -> None:
        """Take a model apart.

        Args:
            model: with towers and encoder.
            store: the passages.
            snapshot: of them; under another embedder than the model's only with `propose`.
            lengths: longest inputs.
            propose: finds the candidates, in the place of `snapshot`; the model then only scores.
        """
        self.predictor = Predictor(model, store, snapshot, lengths=lengths)
        self.propose = propose
        self.store = store
        self.lengths = self.predictor.lengths

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        passages: Path | None = None,
        device: str = AUTO,
        progress: Progress | None = None,
    ) -> "Explainer":
        """Open a run of `realm pretrain`.

        Args:
            run: a run with an encoder and an embedder, or one of its checkpoints.
            passages: look these up instead of the passages it was trained with; they are embedded
                on first use and kept beside the run.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            progress: called while other passages are embedded.

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the run has no encoder or no embedder, or another vocabulary than the
                passages.
        """
        opened = Predictor.load(run, passages=passages, device=device, progress=progress)
        return cls(opened.model, opened.store, opened.snapshot, lengths=opened.lengths)

    @torch.inference_mode()
    def explain(
        self, text: str, *, answers: Sequence[str] = (), num_candidates: int = 8
    ) -> Explanation:
        """Return p(y|x) without retrieval, with each candidate, and summed.

        Args:
            text: a sentence with one or more literal [MASK].
            answers: y, one for each blank; empty: the model's own prediction, one wordpiece a mark.
            num_candidates: passages read, the null passage included (paper: 8).

        Raises:
            MaskingError: no [MASK], a sentence too long, or not one answer for each blank.
            ConfigError: more candidates than passages.
        """
        self.predictor.check_candidates(num_candidates)
        blank = cloze(text, self.store.tokenizer, query_wordpieces=self.lengths.query)
        pieces = blank.with_answers(answers) if answers else blank.with_masks()
        example = _example(pieces)
        rows = (
            [NULL_ROW, *self.propose(text, num_candidates - 1)]
            if self.propose
            else self._candidates(example, num_candidates)
        )
        reading = self.predictor.read([example], [rows])
        batch, scores = reading.batch, reading.scores
        only_null = torch.zeros_like(scores)
        only_null[:, 0] = 1.0
        predicted = reading.predicted(scores.softmax(dim=-1))[0]
        without = reading.predicted(only_null)[0]
        if not answers:
            batch.targets[0] = predicted
        log_probs = reading.log_probs().double()  # 32 bits hold no p(y|x) below 1e-45
        decode = self.store.tokenizer.decode
        return Explanation(
            text=text,
            answer=" ".join(answers) or decode(predicted.tolist()),
            num_masks=len(pieces.positions),
            p_without=float(span_log_probs(log_probs, batch.mask_is_real)[0, 0].exp()),
            p_marginal=float(
                marginal_log_likelihood(scores, log_probs, batch.mask_is_real)[0].exp()
            ),
            predicted_without=decode(without.tolist()),
            predicted=decode(predicted.tolist()),
            candidates=self._explain(rows, batch, scores, log_probs),
        )

    def _candidates(self, example: MaskedExample, num_candidates: int) -> list[int]:
        """Return the null passage and the best rows; nothing is excluded."""
        vector = self.predictor.query_vectors([example])
        _, found = self.predictor.snapshot.search(vector, num_candidates - 1)
        return [NULL_ROW, *found[0].tolist()]

    def _explain(
        self,
        rows: Sequence[int],
        batch: CandidateBatch,
        scores: Float[Tensor, "1 candidates"],
        log_probs: Float[Tensor, "1 candidates masks"],
    ) -> tuple[CandidateExplanation, ...]:
        p_answer = span_log_probs(log_probs, batch.mask_is_real)[0].exp()
        columns = zip(
            rows,
            scores.softmax(dim=-1)[0].tolist(),
            p_answer.tolist(),
            score_gradient(scores, log_probs, batch.mask_is_real)[0].tolist(),
            retrieval_utility(log_probs, batch.mask_is_real)[0].tolist(),
            strict=True,
        )
        return tuple(
            CandidateExplanation(
                passage=self.store[row] if row >= 0 else None,
                p_passage=p_z,
                p_answer=p_y,
                gradient=gradient,
                utility=utility,
            )
            for row, p_z, p_y, gradient, utility in columns
        )


def _name(passage: Passage | None) -> str:
    return "(null)" if passage is None else passage.title or passage.id


def _example(pieces: MaskedPieces) -> MaskedExample:
    return MaskedExample(
        row=0,
        origin=-1,
        origin_sha256="",
        article_id="",
        sentence="",
        span_start=-1,
        span_end=-1,
        label="cloze",
        original_ids=(),
        query_ids=pieces.query_ids,
        positions=pieces.positions,
        target_ids=pieces.target_ids,
    )
