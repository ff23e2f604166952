"""A checkpoint: parameters, tokenizer, and everything that a resume needs, in one folder.

step-1200/
    model.safetensors     embedder.query.*, embedder.passage.* (if untied), encoder.*, reader.*,
                          classifier.* (packed.safetensors instead, in a packed model: packed.py)
    model.json            how to build those modules
    tokenizer.json
    training.safetensors  optimizer state (absent in an exported model)
    training.json         step (which decides the data and every random number), snapshot in use
    manifest.json         checksum of each file, written last
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from realm.checkpoint.packed import PACKED, read_packed
from realm.checkpoint.parts import Model, build_part, flat_state, model_settings
from realm.device import CPU
from realm.errors import ArtifactError, RealmError
from realm.storage import (
    EXTRA,
    MANIFEST,
    Request,
    check_files,
    children,
    mend,
    open_folder,
    publish,
    read_json,
    unreadable,
    write_json,
)
from realm.tokenizer import WordpieceTokenizer

CHECKPOINTS = "checkpoints"
WEIGHTS = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
MODEL_FILES = (WEIGHTS, "model.json", TOKENIZER_FILE)
TRAINING_FILES = ("training.safetensors", "training.json")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What an interrupted run needs to go on as if nothing had happened."""

    step: int
    tensors: Mapping[str, Tensor]
    """Optimizer moments, flat. No random state: it follows from seed and step."""
    values: Mapping[str, Any]
    """What the stage itself needs, e.g. which snapshot is in use."""


def save_checkpoint(
    folder: Path,
    model: Model,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    state: TrainingState | None = None,
    content: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Publish a checkpoint folder.

    Args:
        folder: where; must not exist.
        model: parts to keep.
        settings: the run's resolved settings.
        inputs: fingerprints of what the run was made from.
        state: what a resume needs; None for a model that is not trained further.
        content: what else its manifest tells.
        replace: a checkpoint may stand there, until the new one is whole.
    """
    request = Request(kind="checkpoint", settings=settings, inputs=inputs)
    with publish(folder, request, replace=replace) as scratch:
        _write(flat_state(model), scratch / WEIGHTS)
        described = json.dumps(model_settings(model), indent=2)
        (scratch / "model.json").write_text(described, encoding="utf-8")
        model.tokenizer.save(scratch / TOKENIZER_FILE)
        if state is not None:
            tensors = {n: value.to(CPU).contiguous() for n, value in state.tensors.items()}
            _write(tensors, scratch / "training.safetensors")
            training = {"step": state.step, **state.values}
            (scratch / "training.json").write_text(json.dumps(training), encoding="utf-8")
        if content is not None:
            write_json(scratch / EXTRA, content)


def load_model(folder: Path, *, quick: bool = False) -> Model:
    """Return the parts of a checkpoint, in evaluation mode.

    Args:
        folder: a checkpoint, a packed one too, or a run folder (its newest checkpoint is taken).
        quick: for answering alone: without importing transformers, where that can be.

    Raises:
        ArtifactError: no checkpoint there, or a damaged one.
    """
    folder = find_checkpoint(folder)
    is_packed = (folder / PACKED).is_file()
    _check_files(folder, (PACKED, *MODEL_FILES[1:]) if is_packed else MODEL_FILES)
    described = read_json(folder / "model.json")
    weights = read_packed(folder / PACKED) if is_packed else _load(folder / WEIGHTS)
    try:
        parts = {
            name: build_part(name, told, weights, quick=quick) for name, told in described.items()
        }
    except RealmError:
        raise
    except Exception as error:  # whatever settings lead to that fit no model, or no weights
        raise ArtifactError(
            f"{folder} is damaged: model.json and the weights make no model "
            f"({type(error).__name__}: {str(error)[:2_000]}); copy the folder again"
        ) from error
    if "embedder" in parts:
        parts["towers"] = parts.pop("embedder")
    return Model(tokenizer=WordpieceTokenizer.load(folder), **parts)


def load_state(folder: Path) -> TrainingState:
    """Return what a resume needs from a checkpoint folder.

    Raises:
        ArtifactError: it is damaged, or holds a model that is not trained further.
    """
    _check_files(folder, TRAINING_FILES)
    values = read_json(folder / "training.json")
    step = values.pop("step", None)
    if not isinstance(step, int) or step < 0:
        raise ArtifactError(
            f"{folder / 'training.json'} is damaged: found no step; use an older checkpoint"
        )
    return TrainingState(step=step, tensors=_load(folder / "training.safetensors"), values=values)


def find_checkpoint(folder: Path) -> Path:
    """Return `folder` if it is a checkpoint, or the newest one of a run.

    Raises:
        ArtifactError: there is none.
    """
    if (folder / "model.json").is_file():
        return folder
    if not folder.exists():
        mend(folder)  # somebody was killed while replacing it
    if not folder.is_dir():
        raise ArtifactError(f"found no folder {folder}; expected a run, or one of its checkpoints")
    found = list_checkpoints(folder)
    if not found:
        raise ArtifactError(
            f"found no checkpoint in {folder}; expected a run with {CHECKPOINTS}/step-N, made by "
            "`realm ict`, mlm, pretrain or finetune (one that was stopped resumes)"
        )
    return found[-1]


def list_checkpoints(run: Path) -> list[Path]:
    """Return the finished checkpoints of a run, oldest first.

    Raises:
        UnreadableError: the folder that holds them cannot be listed.
    """
    numbered = [
        (int(match[1]), path)
        for path in children(run / CHECKPOINTS)
        if (match := re.fullmatch(r"step-(\d+)", path.name)) and (path / MANIFEST).is_file()
    ]
    return [path for _, path in sorted(numbered)]


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where a run keeps its checkpoint of this step."""
    return run / CHECKPOINTS / f"step-{step}"


def remove_old_checkpoints(run: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of a run."""
    for old in list_checkpoints(run)[:-keep]:
        (old / MANIFEST).unlink()  # first: one that is half removed must not look finished
    for folder in (run / CHECKPOINTS).glob("step-*"):
        if not (folder / MANIFEST).is_file():
            shutil.rmtree(folder)


def _check_files(folder: Path, names: Sequence[str]) -> None:
    """Compare these files with the checksums of the manifest."""
    manifest = open_folder(folder, "checkpoint")
    for name in names:
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; expected a checkpoint with {', '.join(names)}")
    remedy = f"remove {folder}, and the checkpoint before it is used"
    check_files(folder, manifest, names=names, remedy=remedy)


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # what the library makes of a full disk
        raise OSError(str(error)) from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        raise ArtifactError(f"{path} is damaged ({error}); use an older checkpoint") from error
