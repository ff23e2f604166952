"""Two runs, one trained on from the other -> a model between them (`realm average`).

A model that is fine-tuned to new questions forgets some of what it could do. Between the weights
before and after lies a model that keeps the old and has most of the new, at the cost of neither
training nor answering (weight-space ensembles, WiSE-FT: Wortsman et al. 2022, eq. 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realm.checkpoint.checkpoints import find_checkpoint, load_model, save_checkpoint
from realm.checkpoint.defaults import handed_on
from realm.checkpoint.parts import Model, model_settings
from realm.errors import ConfigError
from realm.storage import MANIFEST, Request, is_done, read_json

FAR = 0.5
"""Relative distance from which on two runs are hardly one trained on from the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageReport:
    """What `average_runs` made, or found already made."""

    folder: Path
    distance: Mapping[str, float]
    """Part -> |after - before| / |before| over all its parameters (Euclidean norms)."""
    already_done: bool

    @property
    def far(self) -> tuple[str, ...]:
        """Parts in which the two differ so much that nothing good lies between them."""
        return tuple(name for name, value in self.distance.items() if value > FAR)


def average_runs(
    before: Path, after: Path, out: Path, *, weight: float = 0.5, rebuild: bool = False
) -> AverageReport:
    """Write the model (1 - weight) * before + weight * after, parameter by parameter.

    The settings are those of `after`. Neither has to be finished or unpacked: the newest checkpoint
    of a run is taken, and 8-bit weights are averaged as 32-bit ones. The probabilities of neither
    hold for what comes out: calibrate it.

    Args:
        before: a run, one of its checkpoints or a packed model.
        after: a run that was trained on from it, or from where it began.
        out: folder to write: a model alone, for `--model`, `pack` and `calibrate`.
        weight: of `after`, 0 to 1.
        rebuild: replace a model that stands there.

    Returns:
        Where it stands, and how far apart the two were.

    Raises:
        ArtifactError: no checkpoint there, or `out` cannot be written or is something else.
        ConfigError: the two have other parts, sizes or wordpieces, or `weight` is out of range.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"found a weight of {weight}, expected 0 (before) to 1 (after)")
    checkpoints = [find_checkpoint(run) for run in (before, after)]
    manifests = [read_json(checkpoint / MANIFEST) for checkpoint in checkpoints]
    settings: dict[str, Any] = manifests[1]["settings"]
    request = Request(
        kind="checkpoint",
        settings={**handed_on(settings, after), "average_weight": weight},
        inputs={
            name: str(manifest["fingerprint"])
            for name, manifest in zip(("before", "after"), manifests, strict=True)
        },
    )
    if is_done(out, request, rebuild=rebuild):
        return _report(out, already_done=True)
    old, new = (_untied(load_model(checkpoint)) for checkpoint in checkpoints)
    _check(old, new, before, after)
    distance = {
        name: _average(old.modules[name].state_dict(), part.state_dict(), weight)
        for name, part in new.modules.items()
    }
    save_checkpoint(
        out,
        replace(new, towers=new.towers.tied()) if new.towers else new,
        settings=request.settings,
        inputs=request.inputs,
        content={"distance": distance},
        replace=rebuild,
    )
    return _report(out, already_done=False)


def _untied(model: Model) -> Model:
    """Return the model with two towers: fine-tuning parts them, where only one is to learn."""
    return replace(model, towers=model.towers.untied()) if model.towers else model


def _check(old: Model, new: Model, before: Path, after: Path) -> None:
    """Refuse two models that have no parameter-by-parameter mean."""
    if old.tokenizer.fingerprint != new.tokenizer.fingerprint:
        raise ConfigError(
            f"{before} and {after} have other wordpieces, expected two runs of which one was "
            "trained on from the other"
        )
    ours, theirs = model_settings(old), model_settings(new)
    if differing := sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n)):
        raise ConfigError(
            f"{before} and {after} differ in {', '.join(differing)} (there in one, or of another "
            "size), expected two runs of which one was trained on from the other"
        )


@torch.no_grad()
def _average(old: dict[str, Tensor], new: dict[str, Tensor], weight: float) -> float:
    """Set `new` to the mean, in place; return how far apart the two were."""
    moved = sum(float((new[name] - old[name]).square().sum()) for name in new)
    size = sum(float(value.square().sum()) for value in old.values())
    for name, value in new.items():
        value.copy_(torch.lerp(old[name], value, weight))
    return (moved / size) ** 0.5 if size else 0.0


def _report(folder: Path, *, already_done: bool) -> AverageReport:
    distance: dict[str, float] = read_json(folder / MANIFEST)["content"]["distance"]
    return AverageReport(folder=folder, distance=distance, already_done=already_done)
