"""An engine that searches exactly, alone in a process: exact_search.py starts one for each.

    python benchmarks/search_engines.py ENGINE FOLDER

The folder holds queries.npy, vectors.npy (float32) and snapshot/ with the same vectors. Libraries
that bring threads of their own never meet in one process.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer import memory_bytes, serve

MAPS = Path("/proc/self/smaps")
BLOCK_ROWS = 1 << 14
"""Rows of numpy's scores at a time."""
Array = np.ndarray[Any, Any]
Find = Callable[[Array, int], tuple[Array, Array]]
"""(queries, k) -> (scores, rows), best first."""


def main() -> None:
    """Open the engine and answer."""
    engine, folder = sys.argv[1], Path(sys.argv[2])
    before = memory_bytes("VmRSS")
    asked = np.load(folder / "queries.npy")
    find = ENGINES[engine](folder)

    def search(batch: int, k: int, searches: int) -> None:
        for start in range(0, batch * searches, batch):
            first = start % len(asked)
            find(asked[first : first + batch], k)

    def top(count: int, k: int) -> dict[str, Any]:
        scores, rows = find(asked[:count], k)
        return {"scores": scores.tolist(), "rows": rows.tolist()}

    serve({"search": search, "top": top, "resident": lambda: resident(before)})


def ours(folder: Path) -> Find:
    """Open the snapshot as `realm ask` does: memory-mapped."""
    import torch

    from realm.index.snapshot import Snapshot

    torch.set_num_threads(1)
    snapshot = Snapshot.open(folder / "snapshot")

    def find(queries: Array, k: int) -> tuple[Array, Array]:
        scores, rows = snapshot.search(torch.from_numpy(queries), k)
        return scores.numpy(), rows.numpy()

    return find


def faiss_flat(folder: Path, blas_threshold: int | None) -> Find:
    """Build IndexFlatIP; from so many queries on it multiplies matrices, else never."""
    import faiss

    faiss.omp_set_num_threads(1)
    if blas_threshold is not None:
        faiss.cvar.distance_compute_blas_threshold = blas_threshold
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), 1 << 16):
        index.add(np.ascontiguousarray(vectors[start : start + (1 << 16)]))
    return index.search


def scann_brute_force(folder: Path) -> Find:
    """Build ScaNN's brute force."""
    import scann  # pyright: ignore[reportMissingImports]

    vectors = np.load(folder / "vectors.npy")
    builder = scann.scann_ops_pybind.builder(vectors, 10, "dot_product")
    searcher = builder.score_brute_force().build()

    def find(queries: Array, k: int) -> tuple[Array, Array]:
        rows, scores = searcher.search_batched(queries, final_num_neighbors=k)
        return scores, rows

    return find


def numpy_blocks(folder: Path) -> Find:
    """Multiply, partition, keep the best: a block of rows at a time."""
    vectors = np.load(folder / "vectors.npy")

    def find(queries: Array, k: int) -> tuple[Array, Array]:
        best = np.empty((len(queries), 0), dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        for start in range(0, len(vectors), BLOCK_ROWS):
            scores = queries @ vectors[start : start + BLOCK_ROWS].T
            chosen = np.argpartition(scores, -k, axis=1)[:, -k:]
            found = np.take_along_axis(scores, chosen, axis=1)
            best, rows = np.hstack([best, found]), np.hstack([rows, chosen + start])
            kept = np.argsort(-best, axis=1, kind="stable")[:, :k]
            best, rows = (np.take_along_axis(a, kept, axis=1) for a in (best, rows))
        return best, rows

    return find


ENGINES: dict[str, Callable[[Path], Find]] = {
    "ours": ours,
    "faiss-tuned": lambda folder: faiss_flat(folder, 20),
    "faiss": lambda folder: faiss_flat(folder, None),
    "scann": scann_brute_force,
    "numpy": numpy_blocks,
}


def resident(before: int) -> dict[str, int]:
    """Return resident bytes: of the process since `before`, of mapped 16- and 32-bit vectors."""
    sizes = {"scan": 0, "exact": 0}
    kind = None
    for line in MAPS.read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name = line.rpartition("/")[2]
            kind = next((kind for kind in sizes if name.startswith(f"{kind}-")), None)
        elif kind and line.startswith("Rss:"):
            sizes[kind] += int(line.split()[1]) * 1024
    return {"process": memory_bytes("VmRSS") - before, **sizes}


if __name__ == "__main__":
    main()
