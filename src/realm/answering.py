"""Questions -> answers with evidence: retrieve, read, rank, and say where the words stand."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from realm.cache import cache_folder
from realm.checkpoint.calibration import Calibration
from realm.checkpoint.checkpoints import Model
from realm.checkpoint.sources import check_vocabulary, passages_of
from realm.corpus.store import Passages, PassageStore
from realm.device import AUTO, device_of
from realm.fine_tuned import AnsweringLengths, Autocast, FineTuned
from realm.index.builder import autocast_to
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.mini import NAME, default_model
from realm.model.confidence import scale_factor
from realm.model.evidence import measure_evidence
from realm.model.realm import Budget, span_logits
from realm.records import Answer, AnsweredQuestion, Evidence, Progress
from realm.retrieval.bm25 import Lexical, open_lexical
from realm.retrieval.dense import DenseRetriever, Retriever
from realm.retrieval.gathering import gather
from realm.retrieval.hybrid import HybridRetriever
from realm.retrieval.reading import question_ids, span_inputs
from realm.retrieval.retriever import NULL_ROW

NUM_SPANS = 200
"""Most probable spans of a question that are summed by string."""
BATCH_TOKENS = 2_048
READ_TOGETHER = 16
"""Questions whose passages are read together."""
OpenIndex = Callable[[Model, PassageStore], Snapshot]


class Answerer:
    """Answers questions from a passage store with a fine-tuned run."""

    def __init__(
        self,
        model: Model,
        store: Passages,
        snapshot: Snapshot,
        *,
        lengths: AnsweringLengths | None = None,
        name: str = "realm",
        fingerprint: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        snapshot.check_passages(store.fingerprint)
        check_vocabulary(model, store)
        self.store = store
        self.snapshot = snapshot
        self.reader = model.need_reader().eval()
        self.lengths = lengths or AnsweringLengths()
        self.model_name = name
        self.model_fingerprint = fingerprint
        self.calibration = calibration
        self.dense = DenseRetriever(
            model.need_towers().query.eval(),
            snapshot,
            store.tokenizer,
            question_wordpieces=self.lengths.question,
        )
        self.retriever: Retriever = self.dense
        self.autocast: Literal["bfloat16", "none"] = "none"
        """Of the reader's matrix products."""

    @classmethod
    def load(
        cls,
        run: Path | None = None,
        *,
        passages: Path | None = None,
        device: str = AUTO,
        progress: Progress | None = None,
        autocast: Autocast = "none",
        kept_in: Path | None = None,
        open_index: OpenIndex | None = None,
    ) -> "Answerer":
        """Open a fine-tuned run.

        Args:
            run: from `realm finetune`; or one of its checkpoints; None: realm-mini, which ships
                in the package and answers from `passages`.
            passages: answer from these instead of the passages it was trained with; they are
                embedded on first use and kept beside the run (realm-mini: in the user's cache).
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            progress: called while other passages are embedded.
            autocast: whether the reader's matrix products are in 16 bits, which moves answers as
                little as packing does; auto: where that is quicker.
            kept_in: folder for what is made of other passages, instead of the run's own.
            open_index: returns the passages' index, where it is made in another way.

        Raises:
            ArtifactError: a folder or `calibration.json` is missing or damaged.
            ConfigError: the run has no reader, or another vocabulary than the passages.
        """
        if run is None:
            run, kept_in = default_model(), kept_in or cache_folder() / NAME
        tuned = FineTuned.load(run, device=device, autocast=autocast)
        return cls.of(
            tuned, passages=passages, kept_in=kept_in, open_index=open_index, progress=progress
        )

    @classmethod
    def of(
        cls,
        tuned: FineTuned,
        *,
        passages: Path | None = None,
        kept_in: Path | None = None,
        open_index: OpenIndex | None = None,
        progress: Progress | None = None,
    ) -> "Answerer":
        """Let an opened run answer from its own passages, or from others.

        Args:
            tuned: the run.
            passages: see `load`.
            kept_in: see `load`.
            open_index: see `load`.
            progress: see `load`.

        Returns:
            What answers.

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the passages were cut with another vocabulary.
        """
        store = PassageStore.open(passages or passages_of(tuned.run))
        if open_index is None:
            open_index = partial(open_snapshot, tuned.run, kept_in=kept_in, progress=progress)
        return cls.over(
            tuned,
            store,
            open_index(tuned.model, store),
            lambda: open_lexical(kept_in or tuned.run, store, progress=progress),
        )

    @classmethod
    def over(
        cls,
        tuned: FineTuned,
        store: Passages,
        snapshot: Snapshot,
        open_words: Callable[[], Lexical],
    ) -> "Answerer":
        """Return what answers from these passages.

        Args:
            tuned: the model.
            store: the passages.
            snapshot: of them, under the model's Embed_doc.
            open_words: returns BM25 over them; called where the model's retriever wants it.

        Raises:
            ConfigError: the passages were cut with another vocabulary.
        """
        answerer = cls(
            tuned.model,
            store,
            snapshot,
            lengths=tuned.lengths,
            name=tuned.name,
            fingerprint=tuned.fingerprint,
            calibration=tuned.calibration,
        )
        answerer.autocast = tuned.autocast
        if tuned.lexical_weight is not None:
            answerer.use_hybrid(open_words(), lexical_weight=tuned.lexical_weight)
        return answerer

    def use_hybrid(self, lexical: Lexical, *, lexical_weight: float) -> None:
        """Retrieve by the sum of the dense score and BM25's from now on."""
        self.retriever = HybridRetriever(self.dense, lexical, lexical_weight=lexical_weight)

    def with_retriever(self, retriever: Retriever) -> "Answerer":
        """Return the same reader over what another retriever finds in the same passages."""
        other = copy(self)
        other.retriever = retriever
        return other

    @property
    def why_uncalibrated(self) -> str | None:
        """Why its probabilities are the reader's own; None: they are calibrated."""
        if self.calibration is None:
            return "it has not been calibrated"
        return self.calibration.mismatch(
            model_fingerprint=self.model_fingerprint, retriever=self.retriever.name
        )

    @property
    def corpus_fingerprint(self) -> str:
        """Fingerprint of the passages it answers from."""
        return self.store.fingerprint

    def search(self, query: str, k: int) -> tuple[list[int], list[float], list[float]]:
        """Return the rows of the k best passages, their scores, and p(z|x) over them.

        Args:
            query: a question, or some words.
            k: passages to return, at most.

        Raises:
            AnsweringError: an empty query, or one longer than the model reads.
        """
        self._check(query)
        if not len(self.store):
            return [], [], []
        ((rows, scores),) = self.retriever.retrieve([query], k)
        return rows, scores, self._weights(scores).softmax(dim=0).tolist()

    def answer(
        self,
        questions: Sequence[str],
        *,
        num_passages: int | None = None,
        num_retrieved: int | None = None,
        num_answers: int = 5,
        min_probability: float | None = None,
    ) -> list[AnsweredQuestion]:
        """Return the answers to each question, best first.

        Those of a calibrated run carry the chance that the best one is right; the p(y|x) of the
        others are scaled by one factor, so that none passes the best and the sum stays within 1.

        Args:
            questions: one or many; many are faster together.
            num_passages: passages to read for each; None: 5 (paper), or what an imported model
                was published with.
            num_retrieved: passages to retrieve, at least `num_passages` (for recall).
            num_answers: distinct strings to return.
            min_probability: below it the best answer is not to be said (`is_refused`); None: the
                calibration's threshold, or 0 where the run has none.

        Raises:
            AnsweringError: an empty question, or one longer than the model reads.
        """
        calibration = None if self.why_uncalibrated else self.calibration
        if min_probability is None:
            min_probability = calibration.min_probability if calibration else 0.0
        pieces = [self._check(question) for question in questions]
        if not pieces:
            return []
        num_passages = num_passages or self.lengths.num_passages
        wanted = max(num_passages, num_retrieved or 0)
        nothing: list[tuple[list[int], list[float]]] = [([], [])] * len(pieces)
        retrieved = self.retriever.retrieve(questions, wanted) if len(self.store) else nothing
        found = [
            _Found(ids, rows[:num_passages], scores[:num_passages])
            for ids, (rows, scores) in zip(pieces, retrieved, strict=True)
        ]
        answered: list[AnsweredQuestion] = []
        for question, (rows, _), one, logits in zip(
            questions, retrieved, found, self._logits(found), strict=True
        ):
            weights = self._weights(one.scores)
            answers, evidence = self._best(one, weights, logits, num_answers)
            if calibration is not None and evidence is not None and answers:
                answers = _calibrated(answers, calibration.calibrator.probability(evidence))
            answered.append(
                AnsweredQuestion(
                    question=question,
                    answers=answers,
                    passage_rows=tuple(rows),
                    read_rows=tuple(one.rows),
                    read_probabilities=tuple(weights.softmax(dim=0).tolist()),
                    evidence=evidence,
                    is_calibrated=calibration is not None,
                    min_probability=min_probability,
                )
            )
        return answered

    def _weights(self, scores: list[float]) -> Float[Tensor, " rows"]:
        """Return what the reader adds for each passage; their softmax is p(z|x)."""
        return torch.tensor(scores) * self.retriever.score_weight

    def _check(self, question: str) -> list[int]:
        """Return the question's wordpieces."""
        return question_ids(self.store.tokenizer, question, self.lengths.question)

    @torch.no_grad()  # not in inference mode, where autocast keeps no weight that it has cast
    def _logits(self, found: Sequence["_Found"]) -> Iterator[list[Tensor]]:
        """Yield the logits of each question's passages, and of the null passage, if it is read.

        Some questions are read together: so many that their logits fit in memory.
        """
        also = [NULL_ROW] if self.reader.reads_null else []
        budget = Budget(pad_id=self.store.tokenizer.pad_id, batch_tokens=BATCH_TOKENS)
        for start in range(0, len(found), READ_TOGETHER):
            some = found[start : start + READ_TOGETHER]
            inputs = [
                span_inputs(self.store, one.ids, [*one.rows, *also], self.lengths.joint)
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
    def _best(
        self,
        found: "_Found",
        weighted: Float[Tensor, " rows"],
        logits: list[Tensor],
        num_answers: int,
    ) -> tuple[tuple[Answer, ...], Evidence | None]:
        """Return the most probable strings among the passages read, and what speaks for the best.

        All from one softmax, as in training: the spans of all passages, each with its passage's
        log p(z|x), and the null passage of a reader that learned it, which has no score.
        """
        if not found.rows:
            return (), None
        reads_null = self.reader.reads_null
        null = logits.pop()[0, :1] if reads_null else torch.empty(0)
        prior = weighted.log_softmax(dim=0)
        flat = torch.cat(
            [(part + log_p).reshape(-1) for part, log_p in zip(logits, prior, strict=True)]
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
            sizes=[part.numel() for part in logits],
            widths=self.reader.max_answer_wordpieces,
        )
        if not gathered.totals:  # the null passage leaves nothing to any span
            return (), None
        evidence = measure_evidence(
            gathered.totals,
            gathered.best_of_passage,
            num_read=len(found.rows),
            best_logit=max(float(part.max()) for part in logits if part.numel()),
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


@dataclass(frozen=True, slots=True)
class _Found:
    """A question's wordpieces, and the passages that are read for it."""

    ids: list[int]
    rows: list[int]
    """Best first."""
    scores: list[float]
    """Of those passages."""


def _calibrated(answers: tuple[Answer, ...], probability: float) -> tuple[Answer, ...]:
    """Return the answers with the best one's calibrated probability, the others scaled beside."""
    best, *others = answers
    factor = scale_factor(best.probability, probability)
    return (
        replace(best, probability=probability),
        *(replace(one, probability=min(probability, one.probability * factor)) for one in others),
    )


def answered_as_json(answered: AnsweredQuestion) -> dict[str, Any]:
    """Return what `realm ask --json` prints.

    `answer` is what to say, null where that is "no answer": the best of `answers` is less probable
    than `min_probability`. `probability` is the calibrated one where `calibrated` says so;
    `raw_probability` is the reader's own. `evidence` is what the calibration looks at.

    `start` and `end` are character offsets into the article's text; the passage's own `start`
    makes its text consistent with them: text[start - passage.start:end - passage.start].
    """
    return {
        "question": answered.question,
        "answer": answered.best.text if answered.best else None,
        "min_probability": answered.min_probability,
        "calibrated": answered.is_calibrated,
        "evidence": asdict(answered.evidence) if answered.evidence else None,
        "answers": [
            {
                "text": answer.text,
                "probability": answer.probability,
                "raw_probability": answer.raw_probability,
                "start": answer.start,
                "end": answer.end,
                "passage": {
                    **answer.passage.as_json(),
                    "probability": answer.passage_probability,
                },
            }
            for answer in answered.answers
        ],
    }
