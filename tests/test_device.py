"""Which device a name stands for here, and what is refused."""

import pytest
import torch

from realm.device import choose_device, device_of
from realm.errors import ConfigError


def see_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "num_gpus", "chosen"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cpu", 1, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_name_stands_for_a_device(
    monkeypatch: pytest.MonkeyPatch, name: str, num_gpus: int, chosen: str
) -> None:
    see_gpus(monkeypatch, num_gpus)
    assert str(choose_device(name)) == chosen


@pytest.mark.parametrize(
    ("name", "num_gpus", "told"),
    [
        ("cuda", 0, "torch sees no GPUs"),
        ("cuda:1", 1, "torch sees 1 GPU;"),
        ("gpu", 1, "expected auto, cpu, cuda or cuda:NUMBER"),
        ("meta", 1, "expected auto, cpu, cuda or cuda:NUMBER"),
        ("", 1, "expected auto, cpu, cuda or cuda:NUMBER"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, num_gpus: int, told: str
) -> None:
    see_gpus(monkeypatch, num_gpus)
    with pytest.raises(ConfigError, match=told):
        choose_device(name)


def test_a_module_is_where_its_parameters_are() -> None:
    assert device_of(torch.nn.Linear(2, 2, device="meta")).type == "meta"
