"""BERT's optimiser: AdamW, linear warm-up, linear decay to zero."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from realm.config import OptimizerConfig


def build_optimizer(
    parts: Mapping[str, tuple[nn.Module, float]], config: OptimizerConfig
) -> torch.optim.AdamW:
    """Return AdamW over named modules, each with its own relative learning rate.

    Epsilon 1e-6 and decay 0.01 on everything but biases and layer norms, as BERT. torch's AdamW
    corrects Adam's bias, which BERT's optimiser does not; under warm-up the two nearly agree.

    Args:
        parts: name -> (module, learning rate relative to the config's). A parameter that stands
            in two parts belongs to the first.
        config: rates.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for module, rate in parts.values():
        decayed: list[Tensor] = []
        plain: list[Tensor] = []
        for name, parameter in module.named_parameters():
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            is_plain = name.endswith("bias") or "norm" in name.lower()
            (plain if is_plain else decayed).append(parameter)
        groups += [
            {"params": decayed, "weight_decay": config.weight_decay, "rate": rate},
            {"params": plain, "weight_decay": 0.0, "rate": rate},
        ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, eps=1e-6, fused=True)


def warmup_steps(config: OptimizerConfig, num_steps: int) -> int:
    """Return the length of the warm-up: as set, or BERT's, at most half of the steps."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return min(10_000, max(100, num_steps // 10), num_steps // 2)


def learning_rate_factor(step: int, *, num_steps: int, warmup: int) -> float:
    """Return the rate of update number `step` (from 0) relative to the peak."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to `rate` times its own relative rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's moments as flat named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": value
        for number, entry in state.items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
