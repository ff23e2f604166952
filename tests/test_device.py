"""Which device a name stands for here, and what is refused."""

import pytest
import torch

from realm.device import CPU, autocast_to, choose_device, device_of
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


def test_sums_on_a_gpu_are_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default torch may sum parts of a 16-bit product in 16 bits: the scan's bound is narrower.

    (`realm.index.scan.Errors`)
    """
    see_gpus(monkeypatch, 1)
    products = torch.backends.cuda.matmul
    products.allow_bf16_reduced_precision_reduction = True
    choose_device("cuda")
    assert not products.allow_bf16_reduced_precision_reduction


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


@pytest.mark.parametrize("is_quick", [True, False])
def test_16_bits_are_for_processors_with_instructions_for_them(
    monkeypatch: pytest.MonkeyPatch, *, is_quick: bool
) -> None:
    monkeypatch.setattr("realm.device.has_quick_bfloat16", lambda _: is_quick)
    left, right = torch.ones(3, 4), torch.ones(4, 2)
    with autocast_to("bfloat16", CPU):
        assert (left @ right).dtype == (torch.bfloat16 if is_quick else torch.float32)
    with autocast_to("none", CPU):
        assert (left @ right).dtype == torch.float32
