"""Made-up passage vectors that are clustered as an embedder's are, written as a snapshot.

A vector is a topic, an article within the topic and a passage within the article, added up, in 128
dimensions of falling spread (the i-th has 1/sqrt(i)), through a layer norm whose gain makes every
vector score 20 with itself, as `realm ict` starts. Queries are passages with noise as large as
what tells the passages of an article apart.
"""

from pathlib import Path

import torch
from torch import Tensor

from realm.index.builder import publish_vectors
from realm.index.snapshot import Snapshot
from realm.storage import MANIFEST, Request

DIM = 128
NUM_TOPICS = 1_000
PASSAGES_PER_ARTICLE = 8
ARTICLE_SPREAD = 0.7
PASSAGE_SPREAD = 0.6
SCORE_SCALE = 20.0
SHARD_ROWS = 1 << 16
TOPIC_SEED, SHARD_SEED, QUERY_SEED = 1, 1_000, 7


def write_snapshot(folder: Path, num_passages: int) -> Snapshot:
    """Publish the vectors of so many passages, where that was not done before, and open them."""
    if (folder / MANIFEST).is_file():
        return Snapshot.open(folder)
    request = Request(
        kind="index",
        settings={"step": 0, "shard_rows": SHARD_ROWS},
        inputs={"passages": "synthetic", "embedder": "synthetic"},
    )
    publish_vectors(
        lambda rows: normed(latent(rows)), folder, request, num_passages=num_passages, dim=DIM
    )
    return Snapshot.open(folder)


def latent(rows: range) -> Tensor:
    """Return the vectors of one shard before the layer norm; the same at every call."""
    topics = _noise(NUM_TOPICS, TOPIC_SEED)
    seed = SHARD_SEED + rows.start
    num_articles = -(-len(rows) // PASSAGES_PER_ARTICLE)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(NUM_TOPICS, (num_articles,), generator=generator)
    articles = topics[chosen] + ARTICLE_SPREAD * _noise(num_articles, seed + 1)
    spread = PASSAGE_SPREAD * _noise(len(rows), seed + 2)
    return articles.repeat_interleave(PASSAGES_PER_ARTICLE, dim=0)[: len(rows)] + spread


def queries(num_passages: int, count: int) -> Tensor:
    """Return noisy passages of the first shard."""
    first = latent(range(min(SHARD_ROWS, num_passages)))
    generator = torch.Generator().manual_seed(QUERY_SEED)
    chosen = torch.randint(len(first), (count,), generator=generator)
    return normed(first[chosen] + PASSAGE_SPREAD * _noise(count, QUERY_SEED + 1))


def normed(vectors: Tensor) -> Tensor:
    """Return a layer norm of the vectors, of squared length SCORE_SCALE."""
    gain = (SCORE_SCALE / DIM) ** 0.5
    return torch.nn.functional.layer_norm(vectors, (DIM,)) * gain


def _noise(count: int, seed: int) -> Tensor:
    spread = torch.arange(1, DIM + 1, dtype=torch.float32).rsqrt()
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)) * spread
