"""Questions -> answers with evidence: retrieve, read, rank, and say where the words stand."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from realm.cache import cache_folder
from realm.checkpoint.calibration import Calibration
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import check_vocabulary, passages_of
from realm.corpus.store import Passages, PassageStore
from realm.device import AUTO
from realm.errors import ConfigError
from realm.fine_tuned import AnsweringLengths, Autocast, FineTuned
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.mini import NAME, default_model
from realm.model.confidence import scale_factor
from realm.readable import counted
from realm.reading import Found, PassageReader
from realm.records import Answer, AnsweredQuestion, Progress
from realm.retrieval.bm25 import Lexical, open_lexical
from realm.retrieval.dense import Retriever, Retrieving, dense_over, no_index
from realm.retrieval.distinct import Retrieved, retrieve_distinct
from realm.retrieval.hybrid import HybridRetriever
from realm.retrieval.reading import question_ids

OpenIndex = Callable[[Model, PassageStore], Snapshot]


class Answerer(Retrieving):
    """Answers questions from a passage store with a fine-tuned run."""

    def __init__(
        self,
        model: Model,
        store: Passages,
        snapshot: Snapshot | None,
        *,
        lengths: AnsweringLengths | None = None,
        name: str = "realm",
        fingerprint: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        lengths = lengths or AnsweringLengths()
        check_vocabulary(model, store)
        super().__init__(
            dense_over(model, store, snapshot, lengths.question) if snapshot is not None else None
        )
        self.store = store
        self._snapshot = snapshot
        self.lengths = lengths
        self.passage_reader = PassageReader(
            model.need_reader().eval(), store, max_length=self.lengths.joint
        )
        self.model_name = name
        self.model_fingerprint = fingerprint
        self.calibration = calibration

    @property
    def snapshot(self) -> Snapshot:
        """The index of the passages.

        Raises:
            ConfigError: it was opened without one.
        """
        if self._snapshot is None:
            raise no_index()
        return self._snapshot

    @classmethod
    def load(
        cls,
        run: str | Path | None = None,
        *,
        passages: str | Path | None = None,
        device: str = AUTO,
        progress: Progress | None = None,
        autocast: Autocast = "none",
        kept_in: Path | None = None,
        open_index: OpenIndex | None = None,
        is_indexed: bool = True,
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
            is_indexed: False: passages are not embedded, and no index is opened; a `retriever` is
                to be put under it before it answers.

        Raises:
            ArtifactError: a folder or `calibration.json` is missing or damaged.
            ConfigError: the run has no reader, or another vocabulary than the passages.
        """
        if run is None:
            run, kept_in = default_model(), kept_in or cache_folder() / NAME
        tuned = FineTuned.load(Path(run), device=device, autocast=autocast)
        return cls.of(
            tuned,
            passages=None if passages is None else Path(passages),
            kept_in=kept_in,
            open_index=open_index,
            is_indexed=is_indexed,
            progress=progress,
        )

    @classmethod
    def of(
        cls,
        tuned: FineTuned,
        *,
        passages: Path | None = None,
        kept_in: Path | None = None,
        open_index: OpenIndex | None = None,
        is_indexed: bool = True,
        progress: Progress | None = None,
    ) -> "Answerer":
        """Let an opened run answer from its own passages, or from others.

        Args:
            tuned: the run.
            passages: see `load`.
            kept_in: see `load`.
            open_index: see `load`.
            is_indexed: see `load`.
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
            open_index(tuned.model, store) if is_indexed else None,
            lambda: open_lexical(kept_in or tuned.run, store, progress=progress),
        )

    @classmethod
    def over(
        cls,
        tuned: FineTuned,
        store: Passages,
        snapshot: Snapshot | None,
        open_words: Callable[[], Lexical],
    ) -> "Answerer":
        """Return what answers from these passages.

        Args:
            tuned: the model.
            store: the passages.
            snapshot: of them, under the model's Embed_doc; None: see `load`.
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
        answerer.passage_reader.autocast = tuned.autocast
        if snapshot is not None and tuned.lexical_weight is not None:
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

    def why_inexact(self, num_passages: int | None = None) -> str | None:
        """Return why its calibrated probabilities may be off; None: no reason, or not calibrated.

        Args:
            num_passages: as told to `answer`.
        """
        read = num_passages or self.lengths.num_passages
        if self.calibration is None or self.why_uncalibrated:
            return None
        if read == (fitted := self.calibration.num_passages):
            return None
        return f"it was calibrated reading {counted(fitted, 'passage')}, not {read}"

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
            ConfigError: no passages are to be found.
        """
        _check_counts(num_passages=k)
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
            num_passages: passages to read for each, no two with the same text; None: 5 (paper),
                or what an imported model was published with. Read one alone, and calibrated
                probabilities are too high (`why_inexact`).
            num_retrieved: passages to retrieve, at least `num_passages` (for recall).
            num_answers: distinct strings to return.
            min_probability: below it the best answer is not to be said (`is_refused`); None: the
                calibration's threshold, or 0 where the run has none.

        Raises:
            AnsweringError: an empty question, or one longer than the model reads.
            ConfigError: no passages are to be read, or no answers to be returned.
        """
        _check_counts(num_passages=num_passages, num_answers=num_answers)
        calibration = None if self.why_uncalibrated else self.calibration
        if min_probability is None:
            min_probability = calibration.min_probability if calibration else 0.0
        pieces = [self._check(question) for question in questions]
        if not pieces:
            return []
        num_passages = num_passages or self.lengths.num_passages
        retrieved = [Retrieved()] * len(pieces)
        if len(self.store):
            retrieved = retrieve_distinct(
                self.retriever,
                self.store,
                questions,
                num_passages=num_passages,
                num_retrieved=num_retrieved or 0,
            )
        found = [
            Found(ids, rows.read, rows.scores, rows.copies)
            for ids, rows in zip(pieces, retrieved, strict=True)
        ]
        answered: list[AnsweredQuestion] = []
        for question, rows, one, logits in zip(
            questions, retrieved, found, self.passage_reader.logits(found), strict=True
        ):
            weights = self._weights(one.scores)
            answers, evidence = self.passage_reader.best(one, weights, logits, num_answers)
            if calibration is not None and evidence is not None and answers:
                answers = _calibrated(answers, calibration.calibrator.probability(evidence))
            answered.append(
                AnsweredQuestion(
                    question=question,
                    answers=answers,
                    passage_rows=tuple(rows.rows),
                    read_rows=tuple(one.rows),
                    read_probabilities=tuple(weights.softmax(dim=0).tolist()),
                    evidence=evidence,
                    is_calibrated=calibration is not None,
                    min_probability=min_probability,
                    why_inexact=self.why_inexact(num_passages),
                )
            )
        return answered

    def _weights(self, scores: list[float]) -> Float[Tensor, " rows"]:
        """Return what the reader adds for each passage; their softmax is p(z|x)."""
        return torch.tensor(scores) * self.retriever.score_weight

    def _check(self, question: str) -> list[int]:
        """Return the question's wordpieces."""
        return question_ids(self.store.tokenizer, question, self.lengths.question)


def _check_counts(**counts: int | None) -> None:
    """Refuse what would be told as "no answer", or as no passage.

    Raises:
        ConfigError: a number below 1.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"found {name}={count}, expected at least 1")


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
    `raw_probability` is the reader's own. `why_inexact` says why calibrated ones may be off, null
    where nothing speaks for it. `evidence` is what the calibration looks at.

    `start` and `end` are character offsets into the article's text; the passage's own `start`
    makes its text consistent with them: text[start - passage.start:end - passage.start].
    `same_text` says where the words stand in the other passages found with the same text.
    """
    return {
        "question": answered.question,
        "answer": answered.best.text if answered.best else None,
        "min_probability": answered.min_probability,
        "calibrated": answered.is_calibrated,
        "why_inexact": answered.why_inexact,
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
                "same_text": [mention.as_json() for mention in answer.same_text],
            }
            for answer in answered.answers
        ],
    }
