"""Table 3 for any sentence: the prediction without retrieval, with each passage, summed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from realm.checkpoint.checkpoints import Model, find_checkpoint, load_model
from realm.checkpoint.sources import check_vocabulary, passages_of, run_of
from realm.config import PretrainConfig
from realm.corpus.store import PassageStore
from realm.device import AUTO, choose_device
from realm.errors import ConfigError
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.masking.cloze import cloze
from realm.masking.spans import MaskedPieces
from realm.model.embedder import embed_in_groups
from realm.model.likelihood import (
    marginal_log_likelihood,
    retrieval_utility,
    score_gradient,
    span_log_probs,
)
from realm.model.realm import (
    Budget,
    CandidateBatch,
    gold_log_probs,
    mask_logits,
    predict_masks,
    score_candidates,
)
from realm.records import MaskedExample, Passage, Progress
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.retriever import NULL_ROW
from realm.storage import MANIFEST, read_json

BATCH_TOKENS = 4_096


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


class Explainer:
    """Fills blanks with a pre-trained run and says which passages helped."""

    def __init__(
        self,
        model: Model,
        store: PassageStore,
        snapshot: Snapshot,
        *,
        lengths: Lengths | None = None,
    ) -> None:
        snapshot.check_passages(store.fingerprint)
        check_vocabulary(model, store)
        self.store = store
        self.snapshot = snapshot
        self.towers = model.need_towers().eval()
        self.encoder = model.need_encoder().eval()
        defaults = PretrainConfig()
        self.lengths = lengths or Lengths(
            query=defaults.query_wordpieces,
            passage=defaults.passage_wordpieces,
            joint=defaults.joint_wordpieces,
        )

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

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the run has no encoder or no embedder, or another vocabulary than the
                passages.
        """
        checkpoint = find_checkpoint(run)
        model = load_model(checkpoint).to(choose_device(device))
        model.need_encoder()
        model.need_towers()
        run = run_of(run)
        store = PassageStore.open(passages or passages_of(run))
        settings = read_json(checkpoint / MANIFEST)["settings"]
        return cls(
            model,
            store,
            open_snapshot(run, model, store, progress=progress),
            lengths=Lengths(
                query=int(settings["query_wordpieces"]),
                passage=int(settings["passage_wordpieces"]),
                joint=int(settings["joint_wordpieces"]),
            ),
        )

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
        if not 2 <= num_candidates <= len(self.store) + 1:
            raise ConfigError(
                f"num_candidates={num_candidates}; expected 2 to {len(self.store) + 1} (the null "
                f"passage and the {len(self.store)} passages of {self.store.folder}); set it with "
                "--candidates"
            )
        blank = cloze(text, self.store.tokenizer, query_wordpieces=self.lengths.query)
        pieces = blank.with_answers(answers) if answers else blank.with_masks()
        rows = self._candidates(pieces, num_candidates)
        batch = candidate_batch(self.store, [_example(pieces)], [rows], self.lengths)
        budget = Budget(pad_id=self.store.tokenizer.pad_id, batch_tokens=BATCH_TOKENS)
        scores = score_candidates(self.towers, batch, budget)
        logits, owners, places = mask_logits(self.encoder, batch, budget)
        only_null = torch.zeros_like(scores)
        only_null[:, 0] = 1.0
        predicted = predict_masks(batch, scores.softmax(dim=-1), logits, owners, places)[0]
        without = predict_masks(batch, only_null, logits, owners, places)[0]
        if not answers:
            batch.targets[0] = predicted
        log_probs = gold_log_probs(batch, logits, owners, places)
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

    def _candidates(self, pieces: MaskedPieces, num_candidates: int) -> list[int]:
        """Return the null passage and the best rows; nothing is excluded."""
        query = self.store.tokenizer.query_input(pieces.query_ids, self.lengths.query)
        vector = embed_in_groups(
            self.towers.query,
            [query],
            pad_id=self.store.tokenizer.pad_id,
            batch_tokens=BATCH_TOKENS,
        )
        _, found = self.snapshot.search(vector, num_candidates - 1)
        return [NULL_ROW, *found[0].tolist()]

    def _explain(
        self,
        rows: Sequence[int],
        batch: CandidateBatch,
        scores: torch.Tensor,
        log_probs: torch.Tensor,
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
