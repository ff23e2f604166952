"""The batch of the training step as its peers take it: padded tensors, and one way to step."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peer import memory_bytes
from safetensors.torch import load_file
from torch import Tensor, nn

LEARNING_RATE, EPS, DECAY, CLIP = 1e-5, 1e-6, 0.01, 1.0


class Padded(NamedTuple):
    """Sequences of equal length: ids, segments, 1 where a wordpiece is real."""

    ids: Tensor
    segments: Tensor
    is_real: Tensor


def read_batch(folder: Path) -> dict[str, Any]:
    """Return what the benchmark wrote."""
    content: dict[str, Any] = json.loads((folder / "batch.json").read_text(encoding="utf-8"))
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights that all engines start from."""
    return load_file(folder / "weights.safetensors")


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin so, without that beginning."""
    return {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}


def pad(sequences: Iterable[tuple[list[int], list[int]]], length: int) -> Padded:
    """Return sequences padded to one length."""
    rows = [(ids + [0] * (length - len(ids)), kinds, len(ids)) for ids, kinds in sequences]
    return Padded(
        torch.tensor([ids for ids, _, _ in rows]),
        torch.tensor([kinds + [0] * (length - len(kinds)) for _, kinds, _ in rows]),
        torch.tensor([[1] * real + [0] * (length - real) for _, _, real in rows]),
    )


def labels_of(batch: dict[str, Any], length: int) -> Tensor:
    """Return the gold wordpiece at each [MASK] of each query, -100 everywhere else."""
    labels = torch.full((len(batch["targets"]), length), -100)
    for row, (places, gold) in enumerate(zip(batch["positions"], batch["targets"], strict=True)):
        labels[row, torch.tensor(places)] = torch.tensor(gold)
    return labels


class Stepper:
    """Forward, backward, clip, AdamW; tells the loss, the gradient's norm and the memory."""

    def __init__(self, baseline: int, modules: Iterable[nn.Module]) -> None:
        self._baseline = baseline
        self._parameters = [p for module in modules for p in module.parameters()]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=LEARNING_RATE, eps=EPS, weight_decay=DECAY, fused=True
        )

    def step(self, backward: Callable[[], float]) -> dict[str, float]:
        """Step once; `backward` leaves gradients and returns the loss."""
        loss = backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {
            "loss": loss,
            "gradient_norm": float(norm),
            "bytes": memory_bytes("VmHWM") - self._baseline,
        }
