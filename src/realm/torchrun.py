"""Meeting the other ranks that `torchrun` started."""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from realm.errors import ConfigError
from realm.ranks import ALONE, Ranks

TIMEOUT = "REALM_RANKS_TIMEOUT_SECONDS"
"""Environment variable: how long a rank waits for the others before it gives up."""
TIMEOUT_SECONDS = 1_800
"""Its default. The longest wait is for an index build by another rank."""
POLL_SECONDS = 0.02


@contextmanager
def started_ranks(environment: Mapping[str, str] = os.environ) -> Generator[Ranks]:
    """Meet the other ranks, and part from them at the end; one rank without `torchrun`.

    Tensors in main memory travel by gloo, those on a GPU by NCCL.

    Raises:
        ConfigError: the environment is not one that `torchrun` makes.
        RankError: the others do not come.
    """
    world = _number(environment, "WORLD_SIZE", 1)
    if world == 1:
        yield ALONE
        return
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in environment]
    if missing:
        raise ConfigError(
            f"found WORLD_SIZE={world} but no {', '.join(missing)} in the environment; expected "
            "those that torchrun sets: start with `torchrun --nproc-per-node=N -m realm ...`, or "
            "unset WORLD_SIZE for a run on one process"
        )
    rank, local_rank = (_number(environment, name, 0) for name in ("RANK", "LOCAL_RANK"))
    ranks = Ranks(rank=rank, world=world, local_rank=local_rank)
    timeout = timedelta(seconds=_number(environment, TIMEOUT, TIMEOUT_SECONDS))
    has_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if has_gpu:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    with ranks.talking("meet the others"):
        store, _, _ = next(rendezvous("env://", rank, world, timeout=timeout))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
            store=PrefixStore(agree_on_session(store, ranks, timeout), store),
            rank=rank,
            world_size=world,
            timeout=timeout,
        )
    yield ranks
    dist.destroy_process_group()  # not after an error: that would wait for whoever is gone


def agree_on_session(store: Store, ranks: Ranks, timeout: timedelta) -> str:
    """Return a name for this start of all ranks that no earlier start had; the same on all.

    `torchrun` keeps one store over all its restarts, where a rank would find the addresses of
    processes that are gone (pytorch issue 135712); and the restarts that it counts are those of
    each machine. So the first rank names the session, and tells only processes that it has heard
    of: whoever greets gives a name of its own, under which nobody else can be answered.
    """
    own = uuid4().hex
    if not ranks.is_first:
        store.set(f"realm/hello/{ranks.rank}", own)
        store.wait([f"realm/welcome/{own}"], timeout)
        session = store.get(f"realm/welcome/{own}").decode()
        store.set(f"realm/{session}/here/{ranks.rank}", own)
        return session
    deadline = time.monotonic() + timeout.total_seconds()
    missing = set(range(1, ranks.world))
    while missing := {rank for rank in missing if not store.check([f"realm/{own}/here/{rank}"])}:
        for rank in missing:
            if store.check([f"realm/hello/{rank}"]):  # it may be of a process that is gone
                store.set(f"realm/welcome/{store.get(f'realm/hello/{rank}').decode()}", own)
        if time.monotonic() > deadline:
            raise RuntimeError(f"ranks {sorted(missing)} did not come")
        time.sleep(POLL_SECONDS)
    return own


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    told = environment.get(name, str(default))
    if not told.isdecimal() or (name in {"WORLD_SIZE", TIMEOUT} and not int(told)):
        raise ConfigError(
            f"found {name}={told!r} in the environment, expected a whole number; torchrun sets "
            f"it, or `unset {name}`"
        )
    return int(told)
