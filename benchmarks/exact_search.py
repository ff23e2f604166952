"""Exact search of a million vectors on one core: ours against FAISS, ScaNN and numpy.

    python benchmarks/exact_search.py --check

Made-up vectors of width 128, clustered as an embedder's are (synthetic_vectors.py). FAISS is
measured as it comes and with `distance_compute_blas_threshold` = 20: as it comes it multiplies no
matrices below 128,000 queries. Each engine has a process of its own, with one thread; rounds
interleave. FAISS as it comes and numpy need seconds for 256 queries: there they have fewer rounds.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import ROOT, Figure, Measured, Spread, Timings, interleaved, ratio, run_benchmark
from peer import Peer, PeerError, environment_of
from synthetic_vectors import DIM, queries, write_snapshot

HERE = Path(__file__).resolve().parent
PEERS = {
    "faiss-tuned": "FAISS flat, BLAS threshold 20",
    "faiss": "FAISS flat as it comes",
    "scann": "ScaNN brute force",
    "numpy": "numpy, blocks and argpartition",
}
SLOW_IN_BATCHES = ("faiss", "numpy")
SEARCHES = {1: 8, 16: 2, 256: 1}
"""Searches of one timing, by their number of queries."""
SLOW_BATCH, ROUNDS, FEW_ROUNDS = 256, 5, 3
TOPS = (8, 100)
TARGETS = {1: 0.5, 16: 1.0, 256: 1.0}
"""Of our speed to the fastest peer's."""
BYTES_A_PASSAGE = 2 * DIM
EQUAL = 2.0**-15
"""Two float32 sums of 128 products, of about 20, differ by less."""
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Actions = dict[tuple[str, int, int], Any]


def main() -> int:
    """Measure."""
    return run_benchmark("exact_search", __doc__, measure, _add_arguments)


def measure(told: argparse.Namespace) -> Measured:
    """Return ratios to each peer and to the fastest, wrong rows, and resident bytes."""
    torch.set_num_threads(1)
    num_passages = 20_000 if told.quick else told.passages
    rounds = 2 if told.quick else min(told.rounds, ROUNDS)
    folder: Path = told.work / f"exact-search-{num_passages}"
    write_data(folder, num_passages)
    with ExitStack() as stack:
        engines, missing = start_engines(stack, folder)
        wrong = {name: wrong_rows(engines, name) for name in engines}
        memory = resident_bytes(stack.enter_context(engine("ours", folder)), num_passages)
        timings = timed_searches(engines, rounds=rounds)
    if not told.keep:
        shutil.rmtree(folder)
    return Measured(
        figures=[*speed_figures(timings, missing), *equality_figures(wrong), *memory],
        timings={f"{name}, {b} queries, top {k}": took for (name, b, k), took in timings.items()},
        settings={
            "passages": num_passages,
            "dim": DIM,
            "threads": 1,
            "searches_of_a_timing": SEARCHES,
            "rounds": rounds,
        },
        versions={name: text for name, text in missing.items() if text},
    )


def write_data(folder: Path, num_passages: int) -> None:
    """Write the snapshot, the same vectors for the peers, and 256 queries; once."""
    if (folder / "queries.npy").is_file():
        return
    snapshot = write_snapshot(folder / "snapshot", num_passages)
    shape = (num_passages, DIM)
    out = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
    for start, rows in snapshot.exact.chunks(1 << 16):
        out[start : start + len(rows)] = rows.numpy()
    out.flush()
    np.save(folder / "queries.npy", queries(num_passages, max(SEARCHES)).numpy())


def engine(name: str, folder: Path) -> Peer:
    """Start one engine, in the environment that has it."""
    python = environment_of("peers") if name == "scann" else None
    return Peer(HERE / "search_engines.py", name, str(folder), python=python, environment=THREADS)


def start_engines(stack: ExitStack, folder: Path) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the engines that start, and why the others do not."""
    engines, missing = {"ours": stack.enter_context(engine("ours", folder))}, dict[str, str]()
    for name in PEERS:
        if name == "scann" and environment_of("peers") is None:
            missing[name] = "not installed (make .venv-peers/.installed)"
            continue
        peer = stack.enter_context(engine(name, folder))
        try:
            peer.call("top", count=1, k=1)
        except PeerError as error:
            missing[name] = str(error)
        else:
            engines[name] = peer
    return engines, missing


def timed_searches(
    engines: Mapping[str, Peer], *, rounds: int
) -> dict[tuple[str, int, int], Timings]:
    """Return the timings of (engine, queries, k)."""
    quick: Actions = {}
    slow: Actions = {}
    for name, peer in engines.items():
        for batch, searches in SEARCHES.items():
            for k in TOPS:
                action = peer.action("search", batch=batch, k=k, searches=searches)
                is_slow = batch == SLOW_BATCH and name in SLOW_IN_BATCHES
                (slow if is_slow else quick)[name, batch, k] = action
    slow = {key: action for key, action in slow.items() if key[2] == TOPS[0]}
    beside = ("ours", SLOW_BATCH, TOPS[0])
    few = interleaved({**slow, beside: quick[beside]}, rounds=min(rounds, FEW_ROUNDS))
    few["ours beside the slow", *beside[1:]] = few.pop(beside)
    return {**interleaved(quick, rounds=rounds), **few}


def speed_figures(
    timings: Mapping[tuple[str, int, int], Timings], missing: Mapping[str, str]
) -> list[Figure]:
    """Return our speed over the fastest peer's, and over each one's."""
    best: list[Figure] = []
    each: list[Figure] = []
    for batch, target in TARGETS.items():
        for k in TOPS:
            own = timings["ours", batch, k]
            beside = timings["ours beside the slow", SLOW_BATCH, TOPS[0]]
            ratios: dict[str, Spread] = {}
            for name in PEERS:
                peer = timings.get((name, batch, k))
                if peer:
                    same_rounds = len(peer.cpu) == len(own.cpu) and not (
                        batch == SLOW_BATCH and name in SLOW_IN_BATCHES
                    )
                    ratios[name] = ratio(peer, own if same_rounds else beside)
            what = f"{batch} quer{'y' if batch == 1 else 'ies'}, top {k}: against"
            fastest = min(ratios, key=lambda name: ratios[name].median)
            best.append(
                Figure(
                    what=f"{what} the fastest peer",
                    value=ratios[fastest],
                    at_least=target,
                    note=f"{PEERS[fastest]}; ours {per_second(own, batch):,.0f} a CPU second",
                )
            )
            each += [Figure(what=f"{what} {PEERS[n]}", value=r) for n, r in ratios.items()]
    lacking = [Figure(what=PEERS[n], value=None, note=why) for n, why in missing.items()]
    return [*best, *each, *lacking]


def per_second(timings: Timings, batch: int) -> float:
    """Return queries a CPU second."""
    return batch * SEARCHES[batch] / float(np.median(timings.cpu))


def wrong_rows(engines: Mapping[str, Peer], name: str) -> int:
    """Return how many of an engine's results are not of the top k of numpy in 32 bits.

    A row is wrong where its score is lower than the true one of that rank by more than what 32
    bits can tell apart.
    """
    count, k = max(SEARCHES), max(TOPS)
    truth = engines["numpy"].call("top", count=count, k=k).result
    found = engines[name].call("top", count=count, k=k).result
    difference = np.abs(np.array(found["scores"]) - np.array(truth["scores"]))
    repeated = sum(k - len(set(rows)) for rows in found["rows"])
    return int((difference > EQUAL).sum()) + repeated


def equality_figures(wrong: Mapping[str, int]) -> list[Figure]:
    """Return ours with a target; the peers' show that the comparison is fair."""
    total = max(SEARCHES) * max(TOPS)
    ours = Figure(
        what="results that are not those of a 32-bit search",
        value=float(wrong["ours"]),
        unit="",
        at_most=0.0,
        note=f"of {total:,}; peers: {', '.join(f'{n} {c}' for n, c in wrong.items())}",
    )
    return [ours]


def resident_bytes(fresh: Peer, num_passages: int) -> list[Figure]:
    """Return what a fresh process holds after every kind of search, bytes a passage.

    What the process holds of its own besides (torch and the like) is taken off: it is that after
    a first search of one query less the vectors.
    """
    fresh.call("search", batch=1, k=1, searches=1)
    small = fresh.call("resident").result
    for batch in SEARCHES:
        fresh.call("search", batch=batch, k=TOPS[0], searches=1)
    narrow = fresh.call("resident").result
    peaks = [
        fresh.call("search", batch=b, k=k, searches=1).peak_bytes for b in SEARCHES for k in TOPS
    ]
    wide = fresh.call("resident").result
    base = small["process"] - small["scan"] - small["exact"]
    grown = wide["process"] - wide["scan"] - wide["exact"] - base
    held = (wide["scan"] + max(grown, 0)) / num_passages
    return [
        Figure(
            what="resident: scanned vectors and working memory, against 256 bytes a passage",
            value=held / BYTES_A_PASSAGE,
            at_most=1.2,
            note=f"{held:.0f} bytes; at its peak {max(peaks) / num_passages:.0f} more in a search",
        ),
        Figure(
            what="32-bit vectors touched, page cache, after 273 queries of top 8",
            value=narrow["exact"] / num_passages,
            unit="bytes a passage",
            note=f"{wide['exact'] / num_passages:.0f} after as many of top 100; on disk 512",
        ),
    ]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "bench", help="for the vectors"
    )
    parser.add_argument("--keep", action="store_true", help="the vectors, for another run")


if __name__ == "__main__":
    sys.exit(main())
