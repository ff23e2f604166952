"""The processes of one run on one or many machines, and all that they ever tell each other.

`torchrun` starts N equal processes ("ranks"). Each trains on its own part of every batch and
searches its own part of the index; what they exchange stands in this module and nowhere else.
Without `torchrun` there is one rank, and every method returns its argument.

One rule keeps them from waiting for each other for ever: all ranks call the same methods in the
same order, whatever their own data look like. An empty part is a part.
"""

import json
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

from realm.errors import RankError, RealmError

T = TypeVar("T")
BUCKET_FLOATS = 1 << 24
"""Numbers of the gradient that are sent at once (64 MiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The ranks of a run, as one of them sees them; made by `torchrun.started_ranks`."""

    rank: int = 0
    """Which of them this process is."""
    world: int = 1
    """How many there are."""
    local_rank: int = 0
    """Which one of those on this machine: its GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes: checkpoints, metrics, console."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there is anybody to talk to."""
        return self.world > 1

    def part(self, count: int, rank: int | None = None) -> range:
        """Return the numbers out of 0 .. count - 1 that are this (or another) rank's.

        Consecutive, in rank order, sizes as equal as can be.
        """
        mine = self.rank if rank is None else rank
        return range(count * mine // self.world, count * (mine + 1) // self.world)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this rank's part of what every rank holds."""
        mine = self.part(len(items))
        return items[mine.start : mine.stop]

    def gather(self, part: Shaped[Tensor, "own ..."]) -> Shaped[Tensor, "all ..."]:
        """Return the parts of all ranks along the first axis, in rank order; no gradient.

        Parts may have different lengths, also none.

        Raises:
            RankError: another rank died, or does not answer.
        """
        return part if self.world == 1 else torch.cat(self._parts(part.detach()))

    def gather_with_gradient(self, part: Shaped[Tensor, "own ..."]) -> Shaped[Tensor, "all ..."]:
        """Return the same, where each rank's loss sends gradients to the parts of all.

        Every rank must run the backward pass of its result exactly once.

        Raises:
            RankError: another rank died, or does not answer.
        """
        if self.world == 1:
            return part
        if not part.requires_grad:  # an empty one, whose backward pass the others wait for
            part = part.detach().requires_grad_()
        gathered: Tensor = _Gathered.apply(part, self)  # pyright: ignore[reportAssignmentType]
        return gathered

    def gather_values(self, value: T) -> list[T]:
        """Return what each rank passed, in rank order: JSON values, tuples come as lists.

        Raises:
            RankError: another rank died, or does not answer.
        """
        if self.world == 1:
            return [value]
        return [_decoded(part) for part in self._parts(_encoded(value))]

    def any(self, value: bool) -> bool:  # noqa: FBT001 - reads like the built-in
        """Return whether any rank passed True.

        Raises:
            RankError: another rank died, or does not answer.
        """
        return any(self.gather_values(value))

    def from_first(self, action: Callable[[], T]) -> T:
        """Let the first rank alone act; return its result, a JSON value, once it is there.

        Raises:
            RankError: it failed (on the first rank the error itself is raised), or died.
        """
        if self.world == 1:
            return action()
        told: dict[str, Any] = {}
        if self.is_first:
            with self._failure_told():
                told = {"value": action()}
        told = self._broadcast(told)
        if "error" in told:
            raise RankError(f"rank {self.rank} stops because rank 0 did: {told['error']}")
        return told["value"]

    @contextmanager
    def first_goes_first(self) -> Generator[None]:
        """Let the first rank through, and the others when it has come to the end of the block.

        Raises:
            RankError: the first rank failed, or died.
        """
        if self.is_first:
            with self._failure_told():
                yield
            self.from_first(_nothing)
        else:
            self.from_first(_nothing)
            yield

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every rank the sum of all ranks' gradients.

        A parameter without a gradient on some rank counts as zero there; one that has none
        anywhere keeps none, so that the optimiser leaves it alone as it does on one rank.

        Raises:
            RankError: another rank died, or does not answer.
        """
        if self.world == 1:
            return
        known = list(parameters)
        with self.talking("add up gradients"):
            is_used = torch.tensor([p.grad is not None for p in known], dtype=torch.int32)
            dist.all_reduce(is_used, op=dist.ReduceOp.MAX)
            used = [p for p, flag in zip(known, is_used.tolist(), strict=True) if flag]
            for bucket in _buckets(used):
                self._sum_bucket([_gradient(p) for p in bucket])

    def copy_from_first(self, modules: Iterable[nn.Module]) -> None:
        """Give every rank the first one's parameters and buffers.

        Raises:
            RankError: another rank died, or does not answer.
        """
        if self.world == 1:
            return
        with self.talking("copy the parameters"), torch.no_grad():
            for module in modules:
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def _sum_bucket(self, gradients: Sequence[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        sums = flat.split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))

    def _parts(self, part: Tensor) -> list[Tensor]:
        """Return every rank's tensor; they may differ in the length of the first axis."""
        with self.talking("exchange tensors"):
            own = torch.tensor([len(part)])
            all_sizes = [torch.empty_like(own) for _ in range(self.world)]
            dist.all_gather(all_sizes, own)
            sizes = [int(size) for size in all_sizes]
            padded = part.new_zeros((max(sizes), *part.shape[1:]))
            padded[: len(part)] = part
            parts = [torch.empty_like(padded) for _ in range(self.world)]
            if padded.numel():
                dist.all_gather(parts, padded)
        return [found[:size] for found, size in zip(parts, sizes, strict=True)]

    def _broadcast(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return what the first rank passed."""
        with self.talking("wait for rank 0"):
            content = _encoded(value)
            size = torch.tensor([len(content)])
            dist.broadcast(size, src=0)
            content = content if self.is_first else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(content, src=0)
        return _decoded(content)

    @contextmanager
    def _failure_told(self) -> Generator[None]:
        """On the first rank: let the others, who wait, hear of an error."""
        try:
            yield
        except (RealmError, OSError) as error:
            if self.world > 1:
                self._broadcast({"error": str(error)})
            raise

    @contextmanager
    def talking(self, what: str) -> Generator[None]:
        """Say what was tried, and what to do, where torch says that a rank is gone.

        Raises:
            RankError: another rank died, or does not answer.
        """
        try:
            yield
        except RuntimeError as error:  # gloo raises nothing more special
            reason = re.sub(r"^\[[^]]*\] *", "", str(error)).partition(". ")[0].partition("\n")[0]
            raise RankError(
                f"rank {self.rank} of {self.world} could not {what}: another rank died or hung "
                f"({reason}). Look for its own error above; `torchrun --max-restarts=N`, or the "
                "same command again, goes on from the newest checkpoint"
            ) from error


ALONE = Ranks()
"""One process, nobody to talk to."""


class _Gathered(torch.autograd.Function):
    """All ranks' parts; backward, each gets what all ranks' losses say about its own part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:  # noqa: ANN401
        parts = ranks._parts(part.detach())  # pyright: ignore[reportPrivateUsage]
        ctx.ranks = ranks
        ctx.start = sum(len(before) for before in parts[: ranks.rank])
        ctx.stop = ctx.start + len(part)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        total = gradients[0].contiguous().clone()
        with ctx.ranks.talking("exchange gradients"):
            dist.all_reduce(total)
        return total[ctx.start : ctx.stop], None


def _nothing() -> None:
    """Stand for an action of the first rank that others wait for."""


def _encoded(value: object) -> Tensor:
    """Return JSON as bytes: never pickle."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _decoded(content: Tensor) -> Any:  # noqa: ANN401
    return json.loads(content.numpy().tobytes())


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return consecutive parameters in lists of at most BUCKET_FLOATS numbers each."""
    buckets: list[list[nn.Parameter]] = []
    held = 0
    for parameter in parameters:
        if not buckets or held + parameter.numel() > BUCKET_FLOATS:
            buckets.append([])
            held = 0
        buckets[-1].append(parameter)
        held += parameter.numel()
    return buckets
