"""The few calls of FAISS that an approximate index is made of; the only place that imports it."""

import warnings
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.config import ApproximateConfig
from realm.errors import ConfigError
from realm.index.ivfpq import Layout

ITERATIONS = 10
"""Of k-means; more change little."""
BLAS_FROM = 20
"""Queries from which FAISS multiplies matrices instead of vectors. Some builds come with 128,000,
which makes sorting into lists several times slower."""


def import_faiss() -> Any:  # noqa: ANN401 - faiss has no types
    """Return the module, set up to multiply matrices and to use as many threads as torch.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its generated wrappers
            faiss: Any = import_module("faiss")
    except ImportError:
        raise ConfigError(
            "an approximate index needs the library faiss, which is not installed; run "
            '`pip install "realm-lm[ann]"`, or search exactly'
        ) from None
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def fit_lists(
    faiss: Any,  # noqa: ANN401
    sample: Float[Tensor, "sample dim"],
    layout: Layout,
    config: ApproximateConfig,
) -> Any:  # noqa: ANN401
    """Return an empty IVF-PQ index whose lists and codes are fitted to the sample.

    The centroids are directions (spherical k-means, as fits an inner product), all made as long
    as the vectors reach along their own: sorting and probing stay the same, and what is left to
    code becomes as small as it can.
    """
    dim = sample.shape[1]
    vectors = sample.numpy()
    means = faiss.Kmeans(
        *(dim, layout.lists),
        niter=ITERATIONS,
        seed=config.seed + 1,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    means.train(vectors)
    nearest = faiss.IndexFlatIP(dim)
    nearest.add(means.centroids)
    reach, _ = nearest.search(vectors, 1)
    nearest.reset()
    nearest.add(means.centroids * float(reach.mean()))
    lists = faiss.IndexIVFPQ(
        *(nearest, dim, layout.lists, layout.subquantizers, config.bits),
        faiss.METRIC_INNER_PRODUCT,
    )
    lists.own_fields = True
    nearest.this.disown()
    lists.pq.cp.seed = config.seed + 1
    lists.pq.cp.min_points_per_centroid = 1
    lists.train(vectors)
    return lists


def nearest_rows(lists: Any, queries: Tensor, count: int) -> Int[Tensor, "queries count"]:  # noqa: ANN401
    """Return the rows of the largest approximate products, -1 where the lists hold fewer."""
    _, rows = lists.search(queries.contiguous().numpy(), count)
    return torch.from_numpy(rows)
