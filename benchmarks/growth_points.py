"""One point of a curve of growth.py, in a process of its own.

    python benchmarks/growth_points.py CURVE SIZE WORK DATA

Prints JSON: the amount that counts (passages, queries, ranks), CPU and wall seconds; CPU seconds
are those of all processes. Workers of split and mask import this file again, as they do the light
`realm` of the command line: what is heavy is imported where it is used.
"""

import gzip
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from realm.checkpoint.folders import load_tokenizer, pretrained_folder
from realm.config import EncoderConfig, IndexConfig, MaskConfig, SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.encyclopedia import articles_file
from realm.masking.examples import mask

ARTICLES = "corpora/simplewiki_2021.jsonl.gz"
"""Simple English Wikipedia, 192,073 articles; without it the encyclopedia in the package, again
and again."""
SEARCHES, STEPS = 5, 3
EMBED_ARTICLES = 2_000
RANK_STEPS = (4, 12)
"""The difference of two runs is free of what starting takes."""
RANK_SETTINGS = ("batch_size=16", "threads=1", "save_every_steps=1000", "eval_every_steps=1000")
Point = tuple[float, float, float]
"""Amount, CPU seconds, wall seconds."""


def main() -> None:
    """Measure one point."""
    curve, size, work, data = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    work.mkdir(parents=True, exist_ok=True)
    amount, cpu, wall = CURVES[curve](size, work, data)
    sys.stdout.write(json.dumps({"amount": amount, "cpu": cpu, "wall": wall}) + "\n")


def search(queries: int) -> Callable[[int, Path, Path], Point]:
    """Return the curve of exact search: seconds a query against passages."""

    def point(size: int, work: Path, _: Path) -> Point:
        from synthetic_vectors import queries as made_up
        from synthetic_vectors import write_snapshot

        folder = work / f"search-{size}"
        snapshot = write_snapshot(folder, size)
        asked = made_up(size, queries * SEARCHES).split(queries)
        snapshot.search(asked[0], 8)  # maps the pages
        times = [timed(lambda some=some: snapshot.search(some, 8)) for some in asked]
        if queries > 1:  # the last to use it
            shutil.rmtree(folder)
        cpu, wall = (median(values) / queries for values in zip(*times, strict=True))
        return float(size), cpu, wall

    return point


def splitting(processes: int) -> Callable[[int, Path, Path], Point]:
    """Return the curve of `realm split`: seconds against passages."""

    def point(size: int, work: Path, data: Path) -> Point:
        articles, out = first_articles(size, work, data), work / f"passages-{size}"
        shutil.rmtree(out, ignore_errors=True)
        cpu, wall = timed(lambda: cut(articles, out, processes))
        return float(len(PassageStore.open(out))), cpu, wall

    return point


def masking(processes: int) -> Callable[[int, Path, Path], Point]:
    """Return the curve of `realm mask`: seconds against passages."""

    def point(size: int, work: Path, data: Path) -> Point:
        store, out = passages(size, work, data), work / f"examples-{size}"
        shutil.rmtree(out, ignore_errors=True)
        config = MaskConfig()
        cpu, wall = timed(lambda: mask(store, out, config=config, num_processes=processes))
        return float(len(store)), cpu, wall

    return point


def embedding(size: int, work: Path, data: Path) -> Point:
    """Return seconds of embedding so many passages with MiniLM, drawn evenly from the corpus."""
    from realm.checkpoint.pretrained import load_pretrained
    from realm.index.builder import PassageEmbedder
    from realm.model.embedder import MeanEmbedder

    store = passages(EMBED_ARTICLES, work, data)
    size = min(size, len(store))
    tower = MeanEmbedder(
        load_pretrained(EncoderConfig(init="minilm"), tokenizer=store.tokenizer).build()
    )
    embed = PassageEmbedder(tower.eval(), store, IndexConfig())
    rows = [i * len(store) // size for i in range(size)]
    embed(rows[:4])  # makes kernels
    return float(size), *timed(lambda: embed(rows))


def candidates(size: int, work: Path, data: Path) -> Point:
    """Return seconds of a joint step with so many candidates, one query, MiniLM's size."""
    import training_step
    from peer import Peer

    store = passages(EMBED_ARTICLES, work, data)
    folder = work / f"candidates-{size}"
    folder.mkdir(exist_ok=True)
    training_step.write_batch(store, folder, training_step.LENGTH, queries=1, candidates=size)
    script = Path(__file__).parent / "peers" / "step_ours.py"
    with Peer(script, str(folder), "whole", environment={"OMP_NUM_THREADS": "1"}) as peer:
        peer.call("step")
        times = [peer.call("step").seconds for _ in range(STEPS)]
    shutil.rmtree(folder)
    return float(size), median(t.cpu for t in times), median(t.wall for t in times)


def ranks(size: int, work: Path, data: Path) -> Point:
    """Return seconds of a step of `realm ict` whose batch of 16 so many ranks share."""
    store = passages(EMBED_ARTICLES, work, data)
    took = [timed(lambda steps=steps: train(store, work, size, steps)) for steps in RANK_STEPS]
    between = RANK_STEPS[1] - RANK_STEPS[0]
    cpu, wall = ((late - early) / between for early, late in zip(*took, strict=True))
    return float(size), cpu, wall


def train(store: PassageStore, work: Path, ranks: int, steps: int) -> None:
    """Run `realm ict` on so many ranks."""
    out = work / "ict"
    shutil.rmtree(out, ignore_errors=True)
    settings = itertools.chain.from_iterable(("--set", s) for s in (*RANK_SETTINGS, f"{steps=}"))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [
        "-m",
        "realm",
        "ict",
        str(store.folder),
        "--out",
        str(out),
        "--init",
        "scratch:2x256",
    ]
    subprocess.run(  # noqa: S603 - our own interpreter and arguments
        [sys.executable, *launch, *command, *settings, "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def first_articles(count: int, work: Path, data: Path) -> Path:
    """Write the first articles of the corpus to a file of their own, once."""
    out = work / f"articles-{count}.jsonl"
    if not out.is_file():
        lines = itertools.islice(read_lines(data / ARTICLES), count)
        scratch = out.with_suffix(".part")
        scratch.write_text("".join(lines), encoding="utf-8")
        scratch.rename(out)
    return out


def read_lines(path: Path) -> Iterator[str]:
    """Yield articles as lines of JSON, without end where the corpus is not there."""
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
        return
    known: list[dict[str, Any]] = [
        json.loads(line) for line in articles_file().read_text(encoding="utf-8").splitlines()
    ]
    for turn in itertools.count():
        for article in known:
            yield json.dumps(article | {"id": f"{article['id']}-{turn}"}) + "\n"


def passages(size: int, work: Path, data: Path) -> PassageStore:
    """Return the passages of the first articles, cut where that was not done before."""
    out = work / f"passages-{size}"
    if not out.is_dir():
        cut(first_articles(size, work, data), out, 1)
    return PassageStore.open(out)


def cut(articles: Path, out: Path, processes: int) -> None:
    """Split with MiniLM's tokenizer."""
    tokenizer = load_tokenizer(str(pretrained_folder("minilm")))
    split([articles], out, config=SplitConfig(), tokenizer=tokenizer, num_processes=processes)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return (CPU seconds of this process and of its children that ended, wall seconds)."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    action()
    return _cpu_seconds() - cpu, time.perf_counter() - wall


def _cpu_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


CURVES: dict[str, Callable[[int, Path, Path], Point]] = {
    "search, 1 query": search(1),
    "search, 16 queries": search(16),
    "split": splitting(1),
    "split, 2 processes": splitting(2),
    "mask": masking(1),
    "mask, 2 processes": masking(2),
    "embed": embedding,
    "candidates": candidates,
    "ranks": ranks,
}

if __name__ == "__main__":
    main()
