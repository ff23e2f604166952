"""Questions -> answers with evidence: retrieve, read, rank, and say where the words stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realm.checkpoint.checkpoints import Model, find_checkpoint, load_model
from realm.checkpoint.sources import check_vocabulary, passages_of, run_of
from realm.corpus.store import PassageStore
from realm.device import AUTO, choose_device
from realm.errors import AnsweringError
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.model.realm import Budget, span_logits
from realm.records import Answer, AnsweredQuestion, Passage, Progress
from realm.retrieval.bm25 import Bm25Retriever, open_lexical
from realm.retrieval.dense import DenseRetriever, Retriever
from realm.retrieval.hybrid import HybridRetriever
from realm.retrieval.reading import span_inputs
from realm.storage import MANIFEST, read_json

NUM_SPANS = 200
"""Most probable spans of a question that are summed by string."""
BATCH_TOKENS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringLengths:
    """Longest inputs in wordpieces, as the reader was trained."""

    question: int = 64
    joint: int = 352
    num_passages: int = 5
    """Passages read for each question, unless the caller says otherwise (paper: 5)."""


class Answerer:
    """Answers questions from a passage store with a fine-tuned run."""

    def __init__(
        self,
        model: Model,
        store: PassageStore,
        snapshot: Snapshot,
        *,
        lengths: AnsweringLengths | None = None,
        name: str = "realm",
        fingerprint: str = "",
    ) -> None:
        snapshot.check_passages(store.fingerprint)
        check_vocabulary(model, store)
        self.store = store
        self.reader = model.need_reader().eval()
        self.lengths = lengths or AnsweringLengths()
        self.model_name = name
        self.model_fingerprint = fingerprint
        self.dense = DenseRetriever(
            model.need_towers().query.eval(),
            snapshot,
            store.tokenizer,
            question_wordpieces=self.lengths.question,
        )
        self.retriever: Retriever = self.dense

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        passages: Path | None = None,
        device: str = AUTO,
        progress: Progress | None = None,
    ) -> "Answerer":
        """Open a fine-tuned run.

        Args:
            run: from `realm finetune`; or one of its checkpoints.
            passages: answer from these instead of the passages it was trained with; they are
                embedded on first use and kept beside the run.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            progress: called while other passages are embedded.

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the run has no reader, or another vocabulary than the passages.
        """
        checkpoint = find_checkpoint(run)
        model = load_model(checkpoint).to(choose_device(device))
        model.need_reader()
        run = run_of(run)
        store = PassageStore.open(passages or passages_of(run))
        manifest = read_json(checkpoint / MANIFEST)
        settings = manifest["settings"]
        answerer = cls(
            model,
            store,
            open_snapshot(run, model, store, progress=progress),
            lengths=AnsweringLengths(
                question=int(settings["question_wordpieces"]),
                joint=int(settings["joint_wordpieces"]),
                num_passages=_num_passages(settings),
            ),
            name=run.name,
            fingerprint=str(manifest["fingerprint"]),
        )
        if settings.get("retriever") == "hybrid":
            answerer.use_hybrid(
                open_lexical(run, store, progress=progress),
                lexical_weight=float(settings["lexical_weight"]),
            )
        return answerer

    def use_hybrid(self, lexical: Bm25Retriever, *, lexical_weight: float) -> None:
        """Retrieve by the sum of the dense score and BM25's from now on."""
        self.retriever = HybridRetriever(self.dense, lexical, lexical_weight=lexical_weight)

    @property
    def corpus_fingerprint(self) -> str:
        """Fingerprint of the passages it answers from."""
        return self.store.fingerprint

    def answer(
        self,
        questions: Sequence[str],
        *,
        num_passages: int | None = None,
        num_retrieved: int | None = None,
        num_answers: int = 5,
    ) -> list[AnsweredQuestion]:
        """Return the answers to each question, best first.

        Args:
            questions: one or many; many are faster together.
            num_passages: passages to read for each; None: 5 (paper), or what an imported model
                was published with.
            num_retrieved: passages to retrieve, at least `num_passages` (for recall).
            num_answers: distinct strings to return.

        Raises:
            AnsweringError: an empty question, or one longer than the model reads.
        """
        pieces = [self._check(question) for question in questions]
        if not pieces:
            return []
        num_passages = num_passages or self.lengths.num_passages
        wanted = max(num_passages, num_retrieved or 0)
        retrieved = self.retriever.retrieve(questions, wanted)
        answered: list[AnsweredQuestion] = []
        for question, ids, (rows, scores) in zip(questions, pieces, retrieved, strict=True):
            read = rows[:num_passages]
            answers = self._read(ids, read, scores[:num_passages], num_answers)
            answered.append(
                AnsweredQuestion(
                    question=question,
                    answers=answers,
                    passage_rows=tuple(rows),
                    read_rows=tuple(read),
                )
            )
        return answered

    def _check(self, question: str) -> list[int]:
        """Return the question's wordpieces."""
        ids = self.store.tokenizer.encode(question).ids
        if not set(ids) - {self.store.tokenizer.unk_id}:
            raise AnsweringError(
                f"found no word that the model knows in the question {question[:80]!r}; "
                "expected some words"
            )
        limit = self.lengths.question - 2
        if len(ids) > limit:
            raise AnsweringError(
                f"the question has {len(ids)} wordpieces ({len(question):,} characters), expected "
                f"at most {limit}; shorten it"
            )
        return ids

    @torch.inference_mode()
    def _read(
        self, question_ids: list[int], rows: list[int], scores: list[float], num_answers: int
    ) -> tuple[Answer, ...]:
        """Return the most probable strings among the passages read."""
        if not rows:
            return ()
        inputs = span_inputs(self.store, question_ids, rows, self.lengths.joint)
        budget = Budget(pad_id=self.store.tokenizer.pad_id, batch_tokens=BATCH_TOKENS)
        weighted = torch.tensor(scores) * self.retriever.score_weight
        logits = [
            part + score
            for part, score in zip(span_logits(self.reader, inputs, budget), weighted, strict=True)
        ]
        flat = torch.cat([part.reshape(-1) for part in logits])
        if not torch.isfinite(flat).any():
            return ()
        best = flat.softmax(dim=0).topk(min(NUM_SPANS, len(flat)))
        sizes = [part.numel() for part in logits]
        return self._gather(best, sizes, rows, weighted.softmax(dim=0), num_answers)

    def _gather(
        self,
        best: "torch.return_types.topk",
        sizes: list[int],
        rows: list[int],
        p_passages: Tensor,
        num_answers: int,
    ) -> tuple[Answer, ...]:
        """Sum spans with the same string, keep each string's best place."""
        widths = self.reader.max_answer_wordpieces
        bounds = torch.tensor(sizes).cumsum(dim=0)
        passages: dict[int, tuple[Passage, list[tuple[int, int]]]] = {}
        totals: dict[str, float] = {}
        places: dict[str, tuple[float, int, int, int]] = {}
        for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if probability <= 0.0:
                break
            number = int(torch.searchsorted(bounds, index, right=True))
            first, width = divmod(index - int(bounds[number]) + sizes[number], widths)
            if number not in passages:
                passage = self.store[rows[number]]
                passages[number] = passage, self.store.tokenizer.encode(passage.text).offsets
            passage, offsets = passages[number]
            start, end = offsets[first][0], offsets[first + width][1]
            key = passage.text[start:end].casefold()
            totals[key] = totals.get(key, 0.0) + probability
            if key not in places:
                places[key] = probability, number, start, end
        ranked = sorted(totals, key=lambda key: -totals[key])[:num_answers]
        answers: list[Answer] = []
        for key in ranked:
            _, number, start, end = places[key]
            passage = passages[number][0]
            answers.append(
                Answer(
                    text=passage.text[start:end],
                    probability=min(1.0, totals[key]),
                    start=passage.start + start,
                    end=passage.start + end,
                    passage=passage,
                    passage_probability=float(p_passages[number]),
                )
            )
        return tuple(answers)


def _num_passages(settings: dict[str, Any]) -> int:
    """Return how many passages an imported model was published to read; the paper's otherwise."""
    published = settings.get("defaults", {}).get("evaluate", {})
    return int(published.get("num_passages", AnsweringLengths().num_passages))


def answered_as_json(answered: AnsweredQuestion) -> dict[str, Any]:
    """Return what `realm ask --json` prints.

    `start` and `end` are character offsets into the article's text; the passage's own `start`
    makes its text consistent with them: text[start - passage.start:end - passage.start].
    """
    return {
        "question": answered.question,
        "answers": [
            {
                "text": answer.text,
                "probability": answer.probability,
                "start": answer.start,
                "end": answer.end,
                "passage": {
                    "id": answer.passage.id,
                    "article_id": answer.passage.article_id,
                    "title": answer.passage.title,
                    "text": answer.passage.text,
                    "start": answer.passage.start,
                    "end": answer.passage.end,
                    "probability": answer.passage_probability,
                },
            }
            for answer in answered.answers
        ],
    }
