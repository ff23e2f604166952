"""What ties a model to passages: where they lie (relative to the run), and their vocabulary."""

import os
from pathlib import Path

from realm.checkpoint.checkpoints import CHECKPOINTS, find_checkpoint
from realm.checkpoint.parts import Model
from realm.corpus.store import Passages, PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.storage import MANIFEST, read_json, write_json

SOURCES = "sources.json"
ANSWER = "answer"
CLASSIFY = "classify"


def write_sources(run: Path, store: PassageStore) -> None:
    """Note in a run's folder where its passages are."""
    passages = os.path.relpath(store.folder.resolve(), run.resolve())
    write_json(run / SOURCES, {"passages": passages})


def passages_of(run: Path) -> Path:
    """Return the passages folder that a run was trained with.

    Raises:
        ArtifactError: the run does not say, or they were moved.
    """
    known = run / SOURCES
    if not known.is_file():
        raise ArtifactError(f"{run} does not say which passages it uses; pass --passages FOLDER")
    told = read_json(known).get("passages")
    try:
        folder = (run.resolve() / str(told)).resolve()
        is_there = isinstance(told, str) and folder.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        folder, is_there = known, False
    if not is_there:
        raise ArtifactError(
            f"{run} was trained with passages in {folder}, which is gone; pass --passages FOLDER"
        )
    return folder


def check_vocabulary(model: Model, store: Passages) -> None:
    """Refuse passages whose wordpieces mean something else to the model.

    Raises:
        ConfigError: another tokenizer.
    """
    if model.tokenizer is store.tokenizer:
        return
    if model.tokenizer.fingerprint != store.tokenizer.fingerprint:
        raise ConfigError(
            f"the passages in {store.folder} were cut with another tokenizer than the model's; "
            "run `realm split ... --tokenizer` with the folder of the model's checkpoint"
        )


def task_of(run: Path) -> str:
    """Return what a run, or checkpoint, is for: ANSWER questions or CLASSIFY claims.

    Raises:
        ArtifactError: there is no checkpoint.
    """
    settings = read_json(find_checkpoint(run) / MANIFEST).get("settings", {})
    return str(settings.get("task", ANSWER))


def run_of(folder: Path) -> Path:
    """Return the run that a checkpoint belongs to; a run is its own."""
    absolute = folder.resolve()
    if (absolute / "model.json").is_file() and absolute.parent.name == CHECKPOINTS:
        return absolute.parent.parent
    return folder
