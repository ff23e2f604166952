"""Where parameters live and matrix products run: the CPU, or one GPU of this process.

Batches, scores, vectors of the index and everything that is written stay in main memory: a tower
moves its padded inputs to where its parameters are, and what it returns comes back (a few numbers
for each text). So only `realm.model` and the code that calls a Transformer directly know of it.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from realm.errors import ConfigError

AUTO = "auto"
"""A GPU if torch sees one, else the CPU."""
CPU = torch.device("cpu")


def choose_device(name: str = AUTO) -> torch.device:
    """Return the device of this name: auto, cpu, cuda, cuda:1.

    Under torchrun "cuda" is the GPU of this process's local rank.

    Raises:
        ConfigError: no such device here.
    """
    has_gpu = torch.cuda.is_available()
    if name == AUTO:
        name = "cuda" if has_gpu else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"found device={name!r}, expected auto, cpu, cuda or cuda:NUMBER")
    if device.type == "cuda":
        # Batches differ in size: blocks of fixed sizes would be freed and asked for again, and
        # cuDNN's attention compiles a plan for every new shape (log, 18).
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        torch.backends.cuda.enable_cudnn_sdp(enabled=False)
        # The bound on what a 16-bit scan of an index may miss is that of sums in 32 bits.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        count = torch.cuda.device_count() if has_gpu else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"found device={name!r}, but torch sees {count or 'no'} GPU{'s' * (count != 1)}; "
                "expected device=cpu (or auto), or a build of torch with CUDA and its driver"
            )
    return device


def has_quick_bfloat16(device: torch.device) -> bool:
    """Return whether matrix products in 16 bits are quicker there than in 32.

    So they are on GPUs and on processors with instructions for them (AVX-512 BF16, AMX).
    """
    if device.type != "cpu":
        return True
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's parameters are."""
    return next(module.parameters()).device


def send(values: Shaped[Tensor, "..."], device: torch.device) -> Shaped[Tensor, "..."]:
    """Return a tensor of main memory on a device; a GPU is not waited for.

    Hence pinned memory: to copy from any other, the host waits until the GPU has done all that it
    was given before, and prepares nothing meanwhile.
    """
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)


def autocast_to(kind: Literal["bfloat16", "none"], device: torch.device) -> torch.autocast:
    """Return the context in which matrix products run in this dtype, where that is quicker.

    A processor without instructions for 16 bits takes 32: 16 would be up to 60 times as slow there.
    """
    is_half = kind == "bfloat16" and has_quick_bfloat16(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_half)


@contextmanager
def on_threads(count: int | None) -> Generator[None]:
    """Compute on so many CPU threads (None: as many as before), then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
