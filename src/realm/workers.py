"""Worker processes for what is slow and needs no model: splitting, masking."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from realm.errors import ArtifactError, ConfigError

T = TypeVar("T")
R = TypeVar("R")
THREADS = "OMP_NUM_THREADS"
"""Environment variable that torch reads when it is imported."""
AHEAD = 2
"""Tasks of each worker that are running, or done and not taken yet."""


@contextmanager
def worker_pool(
    verb: str,
    num_processes: int,
    *,
    start: Callable[..., None] | None = None,
    with_arguments: tuple[Any, ...] = (),
) -> Generator[ProcessPoolExecutor]:
    """Yield a pool of fresh processes that end with this one.

    Args:
        verb: what they do, for the error message.
        num_processes: how many.
        start: called once in each of them, before its first task.
        with_arguments: what it is called with.

    Raises:
        ConfigError: less than one process.
        ArtifactError: a worker died.
    """
    check_processes(num_processes)
    pool = ProcessPoolExecutor(
        num_processes,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(start, with_arguments),
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise ArtifactError(
            f"a worker process of {verb} died (killed, or out of memory?); run the same command "
            "again, with fewer processes if memory is short"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(
    pool: ProcessPoolExecutor, num_processes: int, work: Callable[[T], R], tasks: Iterable[T]
) -> Iterator[R]:
    """Yield the results in the order of the tasks; few tasks are drawn ahead of what is taken."""
    running: deque[Future[R]] = deque()
    for task in tasks:
        running.append(pool.submit(work, task))
        if len(running) >= AHEAD * num_processes:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def check_processes(num_processes: int) -> None:
    """Refuse less than one.

    Raises:
        ConfigError: there is nobody to do the work.
    """
    if num_processes < 1:
        raise ConfigError(f"found {num_processes} worker processes, expected 1 or more")


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # of this worker: the others use the cores
    _compute_on_one_thread()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _compute_on_one_thread() -> None:
    """Let torch, if a tagger needs it here, leave the cores to the others, unless told how many."""
    if THREADS in os.environ:
        return
    os.environ[THREADS] = "1"
    torch: Any = sys.modules.get("torch")  # of a script that imports it, and is imported here again
    if torch is not None:
        torch.set_num_threads(1)


def _leave_with_parent() -> None:
    """End this worker when its parent is killed, so that it writes into no resumed run."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
