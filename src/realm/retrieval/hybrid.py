"""BM25 and the dense retriever together: score(x, z) = f(x, z) + w BM25(x, z).

Lexical and learned matching fail on different questions, so that their sum finds more than either
(`docs/reproductions.md`). What the reader adds to its own logits is that sum, and p(z|x) its
softmax; where Embed_input learns, the gradient goes through f alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.retrieval.bm25 import Lexical
from realm.retrieval.dense import DenseRetriever

MIN_DEPTH = 200
"""Passages that each retriever proposes, at least."""


class HybridRetriever:
    """The best passages of both retrievers, in the order of their weighted sum."""

    name = "hybrid"
    score_weight = 1.0

    def __init__(self, dense: DenseRetriever, lexical: Lexical, *, lexical_weight: float) -> None:
        self.dense = dense
        self.lexical = lexical
        self.lexical_weight = lexical_weight

    def search(
        self, questions: Sequence[str], vectors: Float[Tensor, "questions dim"], k: int
    ) -> tuple[Int[Tensor, "questions k"], Float[Tensor, "questions k"]]:
        """Return (rows, w BM25) of the k best passages of each question, best first.

        Each retriever proposes max(k, MIN_DEPTH) passages; those of either get both scores.

        Args:
            questions: their text.
            vectors: Embed_input of each.
            k: at most the corpus.
        """
        snapshot = self.dense.snapshot
        depth = min(max(k, MIN_DEPTH), len(snapshot))
        fixed = vectors.detach()
        _, proposed = snapshot.search(fixed, depth)
        rows = torch.empty((len(questions), k), dtype=torch.long)
        lexical = torch.empty((len(questions), k))
        for number, question in enumerate(questions):
            scores = self.lexical.scores(question)
            also, _ = self.lexical.best(scores, depth)
            union = torch.from_numpy(np.union1d(proposed[number].numpy(), also).astype(np.int64))
            weighted = self.lexical_weight * torch.from_numpy(scores[union.numpy()])
            total = snapshot.exact[union] @ fixed[number] + weighted
            best = total.argsort(descending=True, stable=True)[:k]
            rows[number], lexical[number] = union[best], weighted[best]
        return rows, lexical

    def weigh(self, question: str, rows: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Return w BM25 of some passages for one question."""
        return self.lexical_weight * torch.from_numpy(self.lexical.scores(question)[rows.numpy()])

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        """Return (rows, scores) of the k best passages of each question, best first."""
        with torch.inference_mode():
            vectors = self.dense.embed(questions)
            rows, lexical = self.search(questions, vectors, min(k, len(self.dense.snapshot)))
            dense = torch.einsum("qd,qkd->qk", vectors, self.dense.snapshot.exact[rows])
        return list(zip(rows.tolist(), (dense + lexical).tolist(), strict=True))
