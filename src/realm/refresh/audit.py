"""How much the age of the index costs: its recall against an exact search with fresh vectors."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.index.live import LiveIndex


def recall_of_index(
    index: LiveIndex,
    queries: Float[Tensor, "queries dim"],
    rows: Int[Tensor, " sample"],
    fresh: Float[Tensor, "sample dim"],
    k: int,
    *,
    rerank: int = 0,
) -> float:
    """Return recall@k of the index against fresh vectors, searching a sample of the passages.

    On all passages it is the recall itself. On a sample it is the same question asked of a smaller
    corpus, where fewer passages are near each other: a little higher.

    Args:
        index: what is searched.
        queries: fresh embeddings of queries.
        rows: distinct rows of the sample.
        fresh: their embeddings under the embedder of this moment.
        k: how many best count.
        rerank: passages scored afresh before the best are taken (0: none).
    """
    k = min(k, len(rows))
    wanted = (queries.float() @ fresh.T).topk(k, dim=-1).indices
    stale = queries.float() @ index.vectors(rows).T
    if rerank > k:
        wide = stale.topk(min(rerank, len(rows)), dim=-1).indices
        scores = torch.einsum("qd,qkd->qk", queries.float(), fresh[wide])
        found = wide.gather(-1, scores.topk(k, dim=-1).indices)
    else:
        found = stale.topk(k, dim=-1).indices
    hits = (found[:, :, None] == wanted[:, None, :]).any(dim=-1)
    return float(hits.float().mean())
