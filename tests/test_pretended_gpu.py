"""The GPU that is pretended where there is none refuses what a real one would."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from realm.device import send
from tests.pretended_gpu import MixedDevicesError, PretendedGpu, pretended_gpu

HERE = torch.arange(6.0).view(2, 3)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    with pretended_gpu(monkeypatch) as entered:
        yield entered


@pytest.mark.parametrize(
    "misdeed",
    [
        lambda there: there + HERE,
        lambda there: there @ HERE.T,
        lambda there: there.masked_fill(HERE > 1, 0.0),
        lambda there: there.gather(1, torch.zeros(2, 1, dtype=torch.long)),
        lambda there: HERE[there[:, 0].long()],
        lambda there: torch.nn.Linear(3, 2)(there),
        lambda there: torch.cat([there, HERE]),
        lambda there: there.numpy(),
        lambda there: there.pin_memory(),
        lambda there: there.to("cpu", non_blocking=True),
    ],
)
def test_what_a_gpu_would_refuse_is_refused(misdeed: Callable[[Tensor], object]) -> None:
    with pytest.raises(MixedDevicesError):
        misdeed(HERE.to("cuda"))


def test_what_a_gpu_allows_is_allowed(gpu: PretendedGpu) -> None:
    there = HERE.to("cuda")
    assert there.device.type == "cuda"
    assert torch.zeros_like(there).is_cuda
    assert torch.equal((there * torch.tensor(2.0)).cpu(), HERE * 2)  # a number in main memory
    assert torch.equal(there[torch.tensor([1])].to("cpu"), HERE[1:])  # so may an index be
    assert torch.ones(2, device="cuda").sum().item() == 2.0
    assert gpu.counted == {"up": 1, "down": 2, "read": 1}


def test_learning_there_is_learning_here() -> None:
    layers = [torch.nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[1].to("cuda")
    for layer, values in zip(layers, (HERE, HERE.to("cuda")), strict=True):
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
        for _ in range(2):
            layer(values).square().sum().to("cpu").backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert layers[1].weight.is_cuda
    assert torch.equal(layers[0].weight, layers[1].weight.cpu())


def test_nobody_waits_for_what_is_sent(gpu: PretendedGpu) -> None:
    assert torch.equal(send(HERE, torch.device("cuda")).cpu(), HERE)
    assert gpu.counted == {"up, not waited for": 1, "down": 1}
    assert send(HERE, torch.device("cpu")) is HERE
