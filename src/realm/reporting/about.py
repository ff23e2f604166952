"""What a run was told and what it was made from: settings beside their defaults, provenance."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from realm import config
from realm.checkpoint.run_records import RunRecord
from realm.readable import duration, size
from realm.storage import MANIFEST, children, passing_over_damage, read_json

_CONFIGS: dict[str, type[config.TrainConfig]] = {
    "ict": config.IctConfig,
    "mlm": config.MlmConfig,
    "pretrain": config.PretrainConfig,
    "finetune": config.FinetuneConfig,
    "classify": config.ClassifyConfig,
}
_NOT_SETTINGS = ("stage", "task")
_SHORT = 12
"""Characters of a fingerprint that people read."""
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a run beside this release's default."""

    name: str
    value: str
    default: str
    """Empty where this release has no such setting."""
    is_changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line about a run."""

    name: str
    value: str
    whole: str = ""
    """The whole value, where a short one is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFact:
    """A snapshot of the index that is still on disk."""

    step: int
    num_passages: int
    dim: int
    size: str
    embedder: str
    """Fingerprint of the embedder that made it."""


def settings_of(record: RunRecord) -> list[Setting]:
    """Return all settings of a run by name, each with its default."""
    defaults = _flat(_CONFIGS[record.stage]().as_dict())
    found = _flat({n: v for n, v in record.settings.items() if n not in _NOT_SETTINGS})
    settings: list[Setting] = []
    for name, value in found.items():
        default = defaults.get(name, _MISSING)
        settings.append(
            Setting(
                name=name,
                value=_told(value),
                default="" if default is _MISSING else _told(default),
                is_changed=value != default,
            )
        )
    return settings


def provenance_of(record: RunRecord) -> list[Fact]:
    """Return what a run was made from, with what, and how long it took."""
    content = record.content
    facts = [_fingerprint("run", record.fingerprint)] if record.fingerprint else []
    facts += [_fingerprint(f"input: {name}", value) for name, value in record.inputs.items()]
    facts += [Fact(name=name, value=str(text)) for name, text in _sources(record.folder).items()]
    seconds = content.get("seconds", _seconds_so_far(record.folder))
    if seconds is not None:
        facts.append(Fact(name="training time", value=duration(float(seconds))))
    if "peak_memory_bytes" in content:
        facts.append(Fact(name="peak memory", value=size(float(content["peak_memory_bytes"]))))
    if "device" in content:
        facts.append(Fact(name="device", value=str(content["device"])))
    versions = cast("Mapping[str, object]", content.get("versions", {}))
    facts += [Fact(name=name, value=str(release)) for name, release in versions.items()]
    steps = checkpoint_steps(record.folder)
    if steps:
        told = ", ".join(f"step {step:,}" for step in steps)
        facts.append(Fact(name="checkpoints kept", value=told))
    return facts


def checkpoint_steps(run: Path) -> list[int]:
    """Return the steps of the checkpoints on disk."""
    return _steps(run / "checkpoints")


def model_fingerprints(record: RunRecord) -> set[str]:
    """Return the fingerprints under which evaluations may know a run's model as it is now.

    The run's own, once it is finished, and its newest checkpoint's, which is what evaluations open;
    those of older checkpoints are other models'.
    """
    found = {record.fingerprint} if record.fingerprint else set[str]()
    for step in reversed(checkpoint_steps(record.folder)):
        with passing_over_damage():  # removed a moment ago
            manifest = read_json(record.folder / "checkpoints" / f"step-{step}" / MANIFEST)
            return found | {str(manifest.get("fingerprint"))}
    return found


def snapshots_of(run: Path) -> list[SnapshotFact]:
    """Return the snapshots of a run that are on disk, oldest first.

    Raises:
        UnreadableError: their folder cannot be listed, or a manifest not be read.
    """
    facts: list[SnapshotFact] = []
    for step in _steps(run / "index"):
        folder = run / "index" / f"step-{step}"
        with passing_over_damage(), suppress(OSError, KeyError):  # being written, or just removed
            content = read_json(folder / MANIFEST)["content"]
            num_bytes = sum(file.stat().st_size for file in children(folder))
            facts.append(
                SnapshotFact(
                    step=step,
                    num_passages=int(content["num_passages"]),
                    dim=int(content["dim"]),
                    size=size(float(num_bytes)),
                    embedder=str(content["model_hash"])[:_SHORT],
                )
            )
    return facts


def _steps(folder: Path) -> list[int]:
    found = [re.fullmatch(r"step-([0-9]+)", one.name) for one in children(folder)]
    return sorted(int(match[1]) for match in found if match)


def _fingerprint(name: str, value: str) -> Fact:
    return Fact(name=name, value=value[:_SHORT], whole=value)


def _sources(run: Path) -> dict[str, Any]:
    """Return where the passages lie, relative to the run."""
    with passing_over_damage():
        return {f"folder of {name}": path for name, path in read_json(run / "sources.json").items()}
    return {}


def _seconds_so_far(run: Path) -> object:
    """Return how long an unfinished run had worked at its newest checkpoint, None: not known."""
    with passing_over_damage():
        return read_json(run / "seconds.json").get("seconds")
    return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _told(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
