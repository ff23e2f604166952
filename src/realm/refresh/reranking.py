"""Over-retrieve and score afresh: the index proposes, the embedder of this very step chooses."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.index.live import LiveIndex

EmbedRows = Callable[[list[int]], Float[Tensor, "rows dim"]]


class Reranked:
    """Searches an index, embeds the best afresh, and orders them by their fresh scores."""

    def __init__(
        self,
        index: LiveIndex,
        embed: EmbedRows,
        *,
        num_passages: int,
        write_back_step: int | None = None,
    ) -> None:
        """Wrap an index for one batch of queries.

        Args:
            index: what is searched.
            embed: rows -> their fresh embeddings, without dropout.
            num_passages: retrieved from the index for each query.
            write_back_step: put the fresh vectors into the index, as of this training step (None:
                leave it as it is).
        """
        self.index = index
        self.embed = embed
        self.num_passages = num_passages
        self.write_back_step = write_back_step

    def __len__(self) -> int:
        return len(self.index)

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (fresh scores, rows) of each query among those that it retrieves.

        Raises:
            ValueError: k is not between 1 and the number of passages.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k}, expected 1 to {len(self)}: the index holds so many passages")
        wide = min(len(self), max(k, self.num_passages))
        _, rows = self.index.search(queries, wide)
        distinct, places = rows.unique(return_inverse=True)
        vectors = self.embed(distinct.tolist())
        if self.write_back_step is not None:
            self.index.write(distinct, vectors, self.write_back_step)
        scores = torch.einsum("qd,qkd->qk", queries.float(), vectors[places])
        best, chosen = scores.topk(k, dim=-1)
        return best, rows.gather(-1, chosen)
