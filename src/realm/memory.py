"""Memory of a long-lived process on a CPU: its peak, and what inputs of other shapes leave behind.

Every step of training has other lengths, and every batch of questions. The C library keeps the
freed blocks in its heap, where the next ones do not fit; and oneDNN keeps a compiled kernel for
each shape it has seen. Resident memory then climbs by gigabytes over a few dozen steps
(docs/log.md, entry 13).
"""

import ctypes
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

KERNELS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables of oneDNN, and of the layer through which torch calls it."""
NUM_KERNELS = 64
"""Kernels that each keeps (their own default: 1024)."""

M_ARENA_MAX = -8
"""Number of the option in glibc's malloc.h."""

STEPS_BETWEEN_RETURNS = 4
"""Pages that are given back must be made again: at each step, short steps take a tenth longer."""


def limit_kernel_cache() -> None:
    """Let oneDNN keep few kernels; without effect once it has run, or where the user said more."""
    for name in KERNELS:
        os.environ.setdefault(name, str(NUM_KERNELS))


def share_one_heap() -> None:
    """Let all threads take memory from one heap, where glibc can.

    Each would have its own otherwise, in which the freed blocks of its last batch lie idle while
    another computes. To be called before there are threads.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def return_free_memory(step: int) -> None:
    """Give the heap's free pages back to the system at every fourth step, where glibc can."""
    if step % STEPS_BETWEEN_RETURNS:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far.

    The system tells it in kilobytes, macOS in bytes.
    """
    resource: Any = import_module("resource")  # Windows has none
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
