"""Memory of a training process on a CPU: what steps of ever other shapes leave behind.

Every step has other lengths. The C library keeps the freed blocks in its heap, where the next
step's do not fit; and oneDNN keeps a compiled kernel for each shape it has seen. Resident memory
then climbs by gigabytes over a few dozen steps (docs/log.md, entry 13).
"""

import ctypes
import os
from contextlib import suppress

KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
NUM_KERNELS = 64
"""Kernels that oneDNN keeps (its own default: 1024)."""

STEPS_BETWEEN_RETURNS = 4
"""Pages that are given back must be made again: at each step, short steps take a tenth longer."""


def limit_kernel_cache() -> None:
    """Let oneDNN keep few kernels; without effect once it has run, or where the user said more."""
    os.environ.setdefault(KERNELS, str(NUM_KERNELS))


def return_free_memory(step: int) -> None:
    """Give the heap's free pages back to the system at every fourth step, where glibc can."""
    if step % STEPS_BETWEEN_RETURNS:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
