"""Closed book: what a pre-trained encoder says to a question by heart, the null passage beside it.

The encoder reads [CLS] question [MASK] ... [MASK] [SEP] [SEP], as it read masked sentences with
the null passage in pre-training, and fills 1 to 5 blanks, each by itself, with its most probable
word or part of a word. The number of blanks with the highest mean log-probability answers.
Punctuation is left out: what stands last in a sentence is nearly always a full stop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import passages_of, run_of
from realm.config import PretrainConfig
from realm.corpus.store import PassageStore
from realm.device import AUTO, CPU, choose_device, device_of, send
from realm.errors import AnsweringError, ConfigError
from realm.model.bert import widened
from realm.model.inputs import group_by_length, pad
from realm.storage import MANIFEST, read_json
from realm.tokenizer import WordpieceTokenizer

MOST_MASKS = 5
BATCH_TOKENS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Recited:
    """An answer from memory: no passage stands behind it."""

    text: str
    probability: float
    """The product over its wordpieces, each given the question alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecitedAnswers:
    """What is said to one question."""

    answers: tuple[Recited, ...]
    """One for each number of blanks, the best mean log-probability of a wordpiece first."""
    passage_rows: tuple[int, ...] = ()
    read_rows: tuple[int, ...] = ()


class ClosedBook:
    """Answers from the parameters of an encoder alone."""

    def __init__(
        self,
        model: Model,
        store: PassageStore,
        *,
        question_wordpieces: int = PretrainConfig().query_wordpieces,
        name: str = "closed-book",
        fingerprint: str = "",
    ) -> None:
        self.encoder = model.need_encoder().eval()
        self.tokenizer = model.tokenizer
        self.store = store
        """What the others search: it is not looked at, and makes the reports comparable."""
        self.question_wordpieces = question_wordpieces
        """Longest input, [CLS], blanks and both [SEP] included."""
        self.model_name = name
        self.model_fingerprint = fingerprint
        self._is_allowed = _allowed_pieces(self.tokenizer, len(self.encoder.head.bias))

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        encoder: Path | None = None,
        passages: Path | None = None,
        device: str = AUTO,
    ) -> "ClosedBook":
        """Open the encoder of a pre-trained run.

        Args:
            run: whose questions are asked: its passages name the corpus.
            encoder: the run with the encoder; None: `run` itself.
            passages: instead of the passages of `run`.
            device: where the encoder runs: auto, cpu, cuda, cuda:NUMBER.

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the run has no encoder.
        """
        checkpoint = find_checkpoint(encoder or run)
        model = load_model(checkpoint).to(choose_device(device))
        if model.encoder is None:
            found = ", ".join(model.modules)
            raise ConfigError(
                f"closed-book: {encoder or run} has no encoder (found: {found}); name a run "
                "of `realm pretrain` or `realm mlm` with --encoder"
            )
        manifest = read_json(checkpoint / MANIFEST)
        settings: dict[str, Any] = manifest["settings"]
        default = PretrainConfig().query_wordpieces
        return cls(
            model,
            PassageStore.open(passages or passages_of(run_of(run))),
            question_wordpieces=int(settings.get("query_wordpieces", default)),
            name=run_of(encoder or run).name,
            fingerprint=str(manifest["fingerprint"]),
        )

    @property
    def corpus_fingerprint(self) -> str:
        """Fingerprint of the passages that the others search."""
        return self.store.fingerprint

    def answer(
        self, questions: Sequence[str], *, num_passages: int = 0, num_retrieved: int = 0
    ) -> list[RecitedAnswers]:
        """Return the answers to each question; nothing is retrieved or read.

        Args:
            questions: one or many.
            num_passages: not used.
            num_retrieved: not used.

        Raises:
            AnsweringError: a question without a known word, or longer than the encoder reads.
        """
        del num_passages, num_retrieved
        pieces = [self._check(question) for question in questions]
        said: list[list[tuple[float, Recited]]] = [[] for _ in questions]
        for count in range(1, MOST_MASKS + 1):
            for mine, found in zip(said, self._fill(pieces, count), strict=True):
                mine.append(found)
        return [RecitedAnswers(answers=_ranked(found)) for found in said]

    def _check(self, question: str) -> list[int]:
        """Return the question's wordpieces."""
        ids = self.tokenizer.encode(question).ids
        if not set(ids) - {self.tokenizer.unk_id}:
            raise AnsweringError(
                f"found no word that the model knows in the question {question[:80]!r}; "
                "expected some words"
            )
        limit = self.question_wordpieces - 3 - MOST_MASKS
        if len(ids) > limit:
            raise AnsweringError(
                f"the question has {len(ids)} wordpieces ({len(question):,} characters), expected "
                f"at most {limit}; shorten it"
            )
        return ids

    @torch.inference_mode()
    def _fill(self, questions: Sequence[list[int]], count: int) -> list[tuple[float, Recited]]:
        """Return (mean log-probability, answer) of so many blanks after each question."""
        blanks = [self.tokenizer.mask_id] * count
        inputs = [
            self.tokenizer.joint_input([*ids, *blanks], [], self.question_wordpieces)
            for ids in questions
        ]
        filled: dict[int, tuple[float, Recited]] = {}
        device = device_of(self.encoder)
        for group in group_by_length([len(ids) for ids, _ in inputs], BATCH_TOKENS):
            rows = torch.arange(len(group)).repeat_interleave(count)
            places = torch.cat(
                [torch.arange(count) + 1 + len(questions[number]) for number in group]
            )
            padded = pad([inputs[number] for number in group], self.tokenizer.pad_id).to(device)
            logits = self.encoder(padded, send(rows, device), send(places, device))
            best, chosen = self._best(widened(logits).to(CPU).view(len(group), count, -1))
            for number, scores, ids in zip(group, best.tolist(), chosen.tolist(), strict=True):
                answer = Recited(text=self.tokenizer.decode(ids), probability=math.exp(sum(scores)))
                filled[number] = sum(scores) / count, answer
        return [filled[number] for number in range(len(questions))]

    def _best(
        self, logits: Float[Tensor, "questions masks vocab"]
    ) -> tuple[Float[Tensor, "questions masks"], Tensor]:
        """Return log p of the most probable allowed wordpiece of each blank, and its id."""
        log_probs = logits.log_softmax(dim=-1)
        allowed = log_probs.masked_fill(~self._is_allowed[: log_probs.shape[1]], float("-inf"))
        found = allowed.max(dim=-1)
        return found.values, found.indices


def _ranked(found: Sequence[tuple[float, Recited]]) -> tuple[Recited, ...]:
    return tuple(answer for _, answer in sorted(found, key=lambda pair: -pair[0]))


def _allowed_pieces(tokenizer: WordpieceTokenizer, num_pieces: int) -> Bool[Tensor, "masks vocab"]:
    """Return which wordpieces may stand in each blank.

    No special token ([SEP], [unused1]) and no punctuation anywhere, no continuation in the first.

    Args:
        tokenizer: the encoder's.
        num_pieces: the encoder's vocabulary, which may have room for more.
    """
    pieces = [tokenizer.token(number) for number in range(num_pieces)]
    is_word = torch.tensor(
        [not piece.startswith("[") and any(c.isalnum() for c in piece) for piece in pieces]
    )
    starts = is_word & torch.tensor([not piece.startswith("##") for piece in pieces])
    return torch.stack([starts, *[is_word] * (MOST_MASKS - 1)])
