"""Over-retrieve and score afresh: the index proposes, the embedder of this very step chooses."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.index.exact import check_k
from realm.index.searchable import Searchable

EmbedRows = Callable[[list[int]], Float[Tensor, "rows dim"]]
WriteBack = Callable[[Int[Tensor, " rows"], Float[Tensor, "rows dim"]], None]


class Reranked:
    """Searches an index, embeds the best afresh, and orders them by their fresh scores."""

    def __init__(
        self,
        index: Searchable,
        embed: EmbedRows,
        *,
        num_passages: int,
        write_back: WriteBack | None = None,
    ) -> None:
        """Wrap an index for one batch of queries.

        Args:
            index: what is searched.
            embed: rows -> their fresh embeddings, without dropout.
            num_passages: retrieved from the index for each query.
            write_back: called with (rows, their fresh embeddings).
        """
        self.index = index
        self.embed = embed
        self.num_passages = num_passages
        self.write_back = write_back

    def __len__(self) -> int:
        return len(self.index)

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (fresh scores, rows) of each query among those that it retrieves.

        Raises:
            ValueError: k is not between 1 and the number of passages.
        """
        check_k(k, len(self))
        wide = min(len(self), max(k, self.num_passages))
        _, rows = self.index.search(queries, wide)
        distinct, places = rows.unique(return_inverse=True)
        vectors = self.embed(distinct.tolist())
        if self.write_back is not None:
            self.write_back(distinct, vectors)
        scores = torch.einsum("qd,qkd->qk", queries.float(), vectors[places])
        best, chosen = scores.topk(k, dim=-1)
        return best, rows.gather(-1, chosen)
