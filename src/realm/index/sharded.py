"""Exact search that several ranks share: each reads its own rows of the snapshot only.

The queries of all ranks are gathered, each rank searches its rows for all of them, and scores and
row numbers (never vectors or texts) come back, of which every rank keeps the best for its own
queries. A passage's text is looked up in the passage store, which every rank has open.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.index.exact import check_k, in_order, search_exactly
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.ranks import Ranks


class ShardedIndex:
    """A snapshot whose rows the ranks have shared out among them.

    Every rank calls `search` equally often, also when it has no queries.
    """

    def __init__(self, snapshot: Snapshot | LiveIndex, ranks: Ranks) -> None:
        self.ranks = ranks
        self.snapshot = snapshot
        self.rows = ranks.part(len(snapshot))
        self._scan = snapshot.scan.part(self.rows)
        self._exact = snapshot.exact.part(self.rows)

    def __len__(self) -> int:
        """Return how many passages all ranks hold together."""
        return len(self.snapshot)

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (scores, rows) of this rank's queries, as `Snapshot.search` does.

        Raises:
            ValueError: k is not between 1 and the number of passages.
            RankError: another rank died, or does not answer.
        """
        check_k(k, len(self))
        own = self.ranks.gather_values(len(queries))
        everybody = self.ranks.gather(queries.detach().float())
        scores, rows = self._search_own_rows(everybody, k)
        # [ranks, queries of all, k]: what each rank found for everybody
        shape = (self.ranks.world, len(everybody), k)
        first = sum(own[: self.ranks.rank])
        mine = slice(first, first + len(queries))
        all_scores = self.ranks.gather(scores).view(shape)[:, mine]
        all_rows = self.ranks.gather(rows).view(shape)[:, mine]
        best, found = in_order(
            all_scores.transpose(0, 1).flatten(1), all_rows.transpose(0, 1).flatten(1)
        )
        return best[:, :k], found[:, :k]

    def _search_own_rows(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best of this rank's rows; where it has fewer, score -inf fills up."""
        scores = torch.full((len(queries), k), float("-inf"))
        rows = torch.full((len(queries), k), -1)
        held = min(k, len(self.rows))
        if held and len(queries):
            scores[:, :held], own = search_exactly(
                queries,
                self._scan,
                self._exact,
                held,
                max_norm=self.snapshot.max_norm,
                max_rounding=self.snapshot.max_rounding,
            )
            rows[:, :held] = own + self.rows.start
        return scores, rows
