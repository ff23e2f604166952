"""How many threads a thread computes with."""

import torch


def compute_with(num_threads: int) -> None:
    """Let the calling thread, and no other one, compute with this many from now on.

    A thread that has not computed yet takes over the number that any thread has set last, at its
    first operation: so that has to be made first.
    """
    torch.get_num_threads()
    torch.set_num_threads(num_threads)
