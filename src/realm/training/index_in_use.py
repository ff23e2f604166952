"""The index of a stage whose Embed_doc learns: searched, refreshed between two steps, audited.

The index only selects; whoever trains scores afresh what it reads (section 3.3), and tells here
what that says of the index: how old what is retrieved is, how far its scores had drifted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.config import IndexConfig, RefreshConfig
from realm.index.builder import PassageEmbedder
from realm.index.mapped import MappedRows
from realm.index.searchable import Searchable
from realm.index.sharded import ShardedIndex
from realm.model.bert import evaluating
from realm.model.embedder import Towers
from realm.ranks import ALONE, Ranks
from realm.refresh.audit import recall_of_index
from realm.refresh.refresher import Refresher
from realm.refresh.reranking import Reranked
from realm.training.sampling import sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What passages that were scored afresh tell of the index."""

    rows: Int[Tensor, " seen"]
    drift: Float[Tensor, " seen"]
    """Absolute difference of the score in the index and afresh; nan where the former is unknown."""
    vectors: Float[Tensor, "seen dim"]
    """Fresh ones, those of training."""


class IndexInUse:
    """Searches the index that a refresher keeps fresh; `advance` before each step."""

    def __init__(
        self,
        refresher: Refresher,
        towers: Towers,
        config: RefreshConfig,
        index: IndexConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        """Prepare; nothing is opened or built before `advance` or `restore`.

        Args:
            refresher: owns the index.
            towers: that learn; Embed_doc is theirs.
            config: of the refresher; who writes back, re-ranks and audits reads it here.
            index: how passages are embedded.
            ranks: the processes that train together, and share the search.
        """
        self.refresher = refresher
        self.towers = towers
        self.config = config
        self.index_config = index
        self.ranks = ranks
        self._step = 0

    def __len__(self) -> int:
        return len(self.refresher.index)

    @property
    def exact(self) -> MappedRows:
        """[passages, dim] float32, of this moment."""
        return self.refresher.index.exact

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (scores, rows) of each query; all ranks call it equally often.

        The scores are the index's, or fresh ones where `rerank_passages` are scored again.
        """
        return self._searched().search(queries, k)

    def advance(self, step: int) -> None:
        """Refresh the index if it is time, before a step or a measurement.

        Raises:
            StaleIndexError: the index is older than the run allows.
        """
        self._step = step
        self.refresher.advance(self.towers.passage, step)

    def measures(self) -> Mapping[str, float]:
        """Return the state of the index before a step."""
        return self.refresher.measures(self._step)

    def take(self, seen: Sequence[Seen], measures: Mapping[str, float]) -> Mapping[str, float]:
        """Take in what this rank's part of a step tells of the index; return what all tell.

        Args:
            seen: by this rank; none where it had nothing to do.
            measures: of all ranks; `index/rank_correlation` is watched for drift.
        """
        live = self.refresher.index
        seen = seen or [_nothing(self.exact.dim)]
        own = torch.cat([one.rows for one in seen])
        rows = self.ranks.gather(own)
        staleness = live.mean_staleness(self._step, rows)
        self.refresher.count(rows, self.ranks.gather(torch.cat([one.drift for one in seen])))
        if "index/rank_correlation" in measures:
            self.refresher.drift.observe(measures["index/rank_correlation"])
        if self.config.write_back and not self.config.rerank_passages:
            self._write_back(own, torch.cat([one.vectors for one in seen]))
        return {"index/retrieved_staleness_steps": staleness}

    def recall(
        self, queries: Callable[[], Float[Tensor, "queries dim"]], k: int, *, seed: int
    ) -> Mapping[str, float]:
        """Return the recall@k of the index against fresh vectors, on a sample of the passages.

        Nothing with `audit_passages = 0`, and on all ranks but the first.

        Args:
            queries: embeds some, without dropout; called where they are needed.
            k: how many best count.
            seed: of the sample.
        """
        num_passages = len(self)
        count = min(self.config.audit_passages, num_passages)
        if not count or not self.ranks.is_first:
            return {}
        rows = sample(range(num_passages), count, seed)
        recall = recall_of_index(
            self.refresher.index,
            queries(),
            torch.tensor(rows),
            self.embed(rows),
            k,
            rerank=self.config.rerank_passages,
        )
        return {"eval/index_recall": recall}

    def embed(self, rows: Sequence[int]) -> Float[Tensor, "rows dim"]:
        """Return fresh embeddings of passages, without dropout or gradients."""
        tower = self.towers.passage
        with evaluating(tower):
            return PassageEmbedder(tower, self.refresher.store, self.index_config)(rows)

    def state(self) -> Mapping[str, Any]:
        """Return which index is in use."""
        return self.refresher.state()

    def restore(self, values: Mapping[str, Any]) -> None:
        """Search the index that was in use; `step` is among the values."""
        self.refresher.restore(values, int(values["step"]))

    def _searched(self) -> Searchable:
        """Return what is searched: the index, in parts, with fresh scores on top."""
        live = self.refresher.index
        index = ShardedIndex(live, self.ranks) if self.ranks.are_several else live
        if not self.config.rerank_passages:
            return index
        return Reranked(
            index,
            self.embed,
            num_passages=self.config.rerank_passages,
            write_back=self._write_back if self.config.write_back else None,
        )

    def _write_back(self, rows: Int[Tensor, " rows"], vectors: Float[Tensor, "rows dim"]) -> None:
        """Put fresh vectors of all ranks into every rank's index; of several of a row, the last.

        Dropout makes a passage's vector another one in each group of queries that it is in.
        """
        rows, vectors = self.ranks.gather(rows), self.ranks.gather(vectors)
        distinct, last = _last_of_each(rows)
        self.refresher.index.write(distinct, vectors[last], self._step)


def _last_of_each(rows: Int[Tensor, " rows"]) -> tuple[Int[Tensor, " some"], Int[Tensor, " some"]]:
    """Return (the distinct rows, the place at which each stands last)."""
    distinct, number = rows.unique(return_inverse=True)
    places = torch.arange(len(rows))
    return distinct, torch.zeros_like(distinct).scatter_reduce(0, number, places, "amax")


def _nothing(dim: int) -> Seen:
    rows = torch.zeros(0, dtype=torch.long)
    return Seen(rows=rows, drift=torch.zeros(0), vectors=torch.zeros(0, dim))
