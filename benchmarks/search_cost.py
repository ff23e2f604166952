"""Exact 16-bit search and IVF-PQ over synthetic vectors: build, bytes, time a query, recall@8."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from synthetic_vectors import queries, write_snapshot

from realm.config import ApproximateConfig
from realm.index.approximate import build_approximate, recall_against_exact
from realm.index.snapshot import Snapshot

BATCHES = (1, 16, 256)
ROUNDS = 5
K = 8
PROBES_AND_WIDEN = ((16, 16), (64, 16), (64, 64), (256, 64))
NUM_QUERIES = 256


def measure_search(num_passages: int, folder: Path) -> dict[str, Any]:
    """Return what one size costs; seconds are CPU seconds of the process, wall beside them."""
    snapshot = write_snapshot(folder / f"exact-{num_passages}", num_passages)
    asked = queries(num_passages, NUM_QUERIES)
    out = folder / f"ivfpq-{num_passages}"
    config = ApproximateConfig()
    built = timed(lambda: build_approximate(snapshot, out, config=config, queries=asked))
    index = built.pop("result")
    on_disk = sum(file.stat().st_size for file in out.iterdir())
    variants: list[dict[str, Any]] = []
    for probes, widen in PROBES_AND_WIDEN:
        variant = type(index).open(out, snapshot, probes=probes, widen=widen)
        variants.append(
            {
                "probes": probes,
                "widen": widen,
                "recall_at_8": recall_against_exact(variant, asked, K),
                "search": search_times(variant, asked),
            }
        )
    return {
        "passages": num_passages,
        "exact": {
            "disk_bytes_per_passage": disk_bytes(snapshot) / num_passages,
            "scanned_bytes_per_passage": snapshot.scan.dim * 2,
            "recall_at_8": 1.0,
            "search": search_times(snapshot, asked),
        },
        "ivfpq": {
            "build": built,
            "lists": index._lists.nlist,
            "disk_bytes_per_passage": on_disk / num_passages,
            "variants": variants,
        },
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def search_times(index: Any, asked: Any) -> dict[str, dict[str, float]]:  # noqa: ANN401
    """Return median milliseconds a query at each batch size, CPU and wall."""
    times: dict[str, dict[str, float]] = {}
    for size in BATCHES:
        batches = [asked[i * size : (i + 1) * size] for i in range(NUM_QUERIES // size)]
        index.search(batches[0], K)  # maps the pages
        rounds = [timed(lambda b=b: index.search(b, K)) for b in (batches * ROUNDS)[:ROUNDS]]
        times[str(size)] = {
            "cpu_ms": 1e3 * median(r["cpu_seconds"] for r in rounds) / size,
            "wall_ms": 1e3 * median(r["wall_seconds"] for r in rounds) / size,
        }
    return times


def disk_bytes(snapshot: Snapshot) -> int:
    """Return the bytes of a snapshot's files."""
    return sum(file.stat().st_size for file in snapshot.folder.iterdir())


def timed(action: Callable[[], Any]) -> dict[str, Any]:
    """Return the action's result with its CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = action()
    return {
        "result": result,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
    }
