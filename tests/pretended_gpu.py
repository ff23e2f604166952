"""A GPU that is not there: tensors that say they are on `cuda`, and compute on the CPU.

What a GPU would refuse is refused: two devices in one operation, numpy, a copy that nobody waits
for. The numbers are the CPU's, so that whole runs come to their end and can be compared. What only
real hardware shows, its kernels and their rounding, stays with `training/test_gpu.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

CUDA = torch.device("cuda", 0)
COPIES = {"aten.copy_.default", "aten._to_copy.default"}
INDEXED = {"aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default"}
"""Their index may be in main memory while the tensor is not."""
MAKERS = (
    *("arange", "as_tensor", "empty", "empty_like", "eye", "full", "full_like", "linspace"),
    *("ones", "ones_like", "rand", "rand_like", "randn", "randn_like", "tensor", "zeros"),
    "zeros_like",
)
MOVERS: dict[Any, dict[str, Any]] = {
    Tensor.to: {},
    Tensor.cpu: {"device": "cpu"},
    Tensor.cuda: {"device": "cuda"},
}
READERS = {Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__}
NEW = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")


class MixedDevicesError(RuntimeError):
    """What a GPU would have refused."""


class OnGpu(Tensor):
    """A tensor that says it is on a GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls: "type[OnGpu]", held: Tensor) -> "OnGpu":
        with torch.inference_mode(mode=False):  # where torch would not let a view be made
            made = Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device="cpu",  # to the part of torch below Python, which knows of no other here
            )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = OnGpu(self.held.detach().clone())
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, requires_grad=self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return answer(func, args, dict(kwargs or {}))  # also in threads, which have no mode

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        check_devices(func, args, kwargs)
        here, named = tree_map_only(OnGpu, lambda one: one.held, (args, kwargs))
        found = func(*here, **named)
        written = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        if written:
            names = [a.name for a in func._schema.arguments]
            whole = {**dict(zip(names, args, strict=False)), **kwargs}
            if len(func._schema.returns) == 1 and isinstance(whole[written[0]], Tensor):
                return whole[written[0]]
            return None if not func._schema.returns else tuple(whole[name] for name in written)
        return tree_map_only(Tensor, OnGpu, found)


def check_devices(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse what a GPU refuses."""
    if str(func) in COPIES:
        return
    if str(func) in INDEXED:
        if not isinstance(args[0], OnGpu):
            raise MixedDevicesError(f"{func}: an index on the GPU into what is in main memory")
        args = [args[0], *args[2:]]
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    if any(not isinstance(one, OnGpu) and one.dim() for one in tensors):
        found = [(str(one.device), tuple(one.shape)) for one in tensors]
        raise MixedDevicesError(f"{func}: found tensors on two devices, {found}")


class _Upload(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, one: Tensor) -> Tensor:
        return OnGpu(one.detach().clone())

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].held  # type: ignore[attr-defined]


class _Download(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, one: Tensor) -> Tensor:
        return one.held.detach().clone()  # type: ignore[attr-defined]

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return OnGpu(gradients[0])


class PretendedGpu(TorchFunctionMode):
    """While it is entered, `cuda` is there; `counted` tells what went to and fro."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return answer(func, args, dict(kwargs or {}), self.counted)


def answer(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], counted: Counter[str] | None = None
) -> Any:
    """Return what torch would if there were a GPU."""
    name = getattr(func, "__name__", "")
    counted = Counter() if counted is None else counted
    is_there = bool(args) and isinstance(args[0], OnGpu)
    if func in MOVERS:
        return move(args[0], *args[1:], **MOVERS[func], **kwargs, counted=counted)
    if func is Tensor.pin_memory and not is_there:
        return args[0]  # it is not pinned, and no kernel copies from it
    if func in {Tensor.pin_memory, Tensor.numpy, Tensor.__array__} and is_there:
        raise MixedDevicesError(f"{name}: expected a tensor in main memory")
    if func in READERS:
        counted["read"] += is_there
    if name in MAKERS and func is getattr(torch, name, None) and "device" in kwargs:
        where = kwargs.pop("device")
        if is_there:  # `zeros_like` and the like
            args = [args[0].held, *args[1:]]
        is_sent = name in {"tensor", "as_tensor"}  # all others are made there
        return move(func(*args, **kwargs), where, counted=counted if is_sent else Counter())
    if name in NEW and func is getattr(Tensor, name, None) and is_gpu(kwargs.get("device", "")):
        return OnGpu(func(*args, **{**kwargs, "device": "cpu"}))
    return func(*args, **kwargs)


def move(one: Tensor, *args: Any, counted: Counter[str], **kwargs: Any) -> Tensor:
    """Return what `Tensor.to` would."""
    told = list(args)
    device = kwargs.pop("device", None)
    if told and isinstance(told[0], Tensor):
        other = told.pop(0)
        device, kwargs["dtype"] = other.device, other.dtype
    elif told and isinstance(told[0], str | torch.device):
        device = told.pop(0)
    kwargs |= dict(zip(("dtype", "non_blocking", "copy"), told, strict=False))
    waits = not kwargs.get("non_blocking", False)
    if device is not None and is_gpu(device) and not isinstance(one, OnGpu):
        counted["up" if waits else "up, not waited for"] += 1
        one = _Upload.apply(one)
    elif device is not None and torch.device(device).type == "cpu" and isinstance(one, OnGpu):
        if not waits:
            raise MixedDevicesError("a copy to main memory that nobody waits for")
        counted["down"] += 1
        one = _Download.apply(one)
    dtype = kwargs.get("dtype")
    return one if dtype is None or dtype == one.dtype else one.type(dtype)


def is_gpu(device: Any) -> bool:
    """Return whether a device, or its name, is a GPU's."""
    return bool(device) and torch.device(device).type == "cuda"


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """Have one GPU."""
    real: Callable[..., Any] = torch.autocast
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "autocast", lambda _, **told: real("cpu", **told))
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with PretendedGpu() as gpu:
            yield gpu
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
