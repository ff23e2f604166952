"""The dense retriever at answering time: embed the question, search the snapshot."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from realm.checkpoint.parts import Model
from realm.corpus.store import Passages
from realm.errors import ConfigError
from realm.index.searchable import VectorIndex
from realm.index.snapshot import Snapshot
from realm.model.embedder import Embedder, MeanEmbedder, embed_in_groups
from realm.tokenizer import WordpieceTokenizer


@runtime_checkable
class Retriever(Protocol):
    """Finds passages for questions."""

    name: str
    score_weight: float
    """What the reader adds of a score to its own (dense: 1, another scale: 0)."""

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        """Return (rows, scores) of the k best passages of each question, best first."""
        ...


class DenseRetriever:
    """Embed_input and maximum inner product search over Embed_doc."""

    name: str
    score_weight: float

    def __init__(
        self,
        tower: Embedder | MeanEmbedder,
        snapshot: VectorIndex,
        tokenizer: WordpieceTokenizer,
        *,
        question_wordpieces: int,
        batch_tokens: int = 4_096,
        name: str = "dense",
        score_weight: float = 1.0,
    ) -> None:
        self.name = name
        self.score_weight = score_weight
        self.tower = tower
        self.snapshot = snapshot
        self.tokenizer = tokenizer
        self.question_wordpieces = question_wordpieces
        self.batch_tokens = batch_tokens

    def embed(self, questions: Sequence[str]) -> Float[Tensor, "questions dim"]:
        """Return Embed_input of each question, with gradients where they are on."""
        sequences = [
            self.tokenizer.query_input(pieces.ids, self.question_wordpieces)
            for pieces in self.tokenizer.encode_batch(questions)
        ]
        return embed_in_groups(
            self.tower, sequences, pad_id=self.tokenizer.pad_id, batch_tokens=self.batch_tokens
        )

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        """Return (rows, scores) of the k best passages of each question, best first."""
        with torch.inference_mode():
            scores, rows = self.snapshot.search(self.embed(questions), min(k, len(self.snapshot)))
        return list(zip(rows.tolist(), scores.tolist(), strict=True))


def dense_over(
    model: Model, store: Passages, snapshot: Snapshot, question_wordpieces: int
) -> DenseRetriever:
    """Return a model's own retriever of some passages.

    Raises:
        ArtifactError: the snapshot is of other passages.
    """
    snapshot.check_passages(store.fingerprint)
    return DenseRetriever(
        model.need_towers().query.eval(),
        snapshot,
        store.tokenizer,
        question_wordpieces=question_wordpieces,
    )


def no_index() -> ConfigError:
    """Return the error of a model that was opened without an index."""
    return ConfigError("found no index of the passages; open the model with one")


class Retrieving:
    """What asks passages: by its own dense retriever, or by another one that is put under it."""

    def __init__(self, dense: DenseRetriever | None) -> None:
        """Start with its own; None: opened without an index, for another one to be put under it."""
        self._dense = dense
        self._retriever: Retriever | None = dense

    @property
    def dense(self) -> DenseRetriever:
        """Its own dense retriever.

        Raises:
            ConfigError: it was opened without an index.
        """
        if self._dense is None:
            raise no_index()
        return self._dense

    @property
    def retriever(self) -> Retriever:
        """What finds passages now.

        Raises:
            ConfigError: it was opened without an index, and none was put under it.
        """
        return self._retriever or self.dense

    @retriever.setter
    def retriever(self, retriever: Retriever) -> None:
        self._retriever = retriever
