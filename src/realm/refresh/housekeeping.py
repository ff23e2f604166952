"""What of a run's index is removed, and when: old snapshots, parameters, patches, lost branches."""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from realm.checkpoint.checkpoints import list_checkpoints
from realm.errors import ArtifactError, UnreadableError
from realm.index.builder import EmbedderVersion
from realm.index.snapshot import Snapshot, list_snapshots
from realm.refresh.parameters import EMBEDDERS, list_parameters
from realm.refresh.patches import PATCHES, list_patches
from realm.storage import (
    MANIFEST,
    REQUEST,
    is_being_filled,
    is_locked,
    read_json,
    remove,
    scratch_folder,
)

KEPT_PARAMETERS = 2
"""Newest ones, kept whatever happens: a builder may be reading the last but one."""


def steps_to_resume_with(run: Path) -> set[int]:
    """Return the steps of the snapshots that a run's checkpoints name."""
    steps: set[int] = set()
    for checkpoint in list_checkpoints(run):
        try:
            values = read_json(checkpoint / "training.json")
        except ArtifactError:
            if (checkpoint / MANIFEST).is_file():
                raise
            continue  # the trainer has removed it at this moment
        steps.add(int(values.get("snapshot_step", -1)))
    return steps


def remove_unusable(folder: Path, version: EmbedderVersion, passages_fingerprint: str) -> None:
    """Remove what a killed run left in a snapshot's place, unless it is what would be built.

    Raises:
        ArtifactError: it cannot be removed.
        UnreadableError: it cannot be read, and may be whole.
    """
    if not folder.exists():
        return
    try:
        found = Snapshot.open(folder, verify=True)
        found.check_passages(passages_fingerprint)
    except UnreadableError:
        raise
    except ArtifactError:
        remove(folder)
        return
    if found.model_hash != version.model_hash or found.row_steps is not None:
        remove(folder)


def remove_what_is_old(run: Path, *, in_use: int, keep_snapshots: int) -> None:
    """Remove snapshots, parameters and patches that nobody needs any more, and what kills left.

    Kept are the snapshot in use, the newest ones, and those that checkpoints name; the newest two
    parameters and those of a sweep that was begun; patches as new as the snapshot in use.
    """
    snapshots = list_snapshots(run)
    needed = {in_use, *steps_to_resume_with(run)}
    needed |= {step for step, _ in snapshots[-keep_snapshots:]}
    for step, folder in snapshots:
        if step not in needed and step < in_use:
            _try(folder)
    published = list_parameters(run)
    for one in published[:-KEPT_PARAMETERS]:
        if one.step < in_use or not _is_begun(run, one.step):
            _try(one.folder)
    for step, folder in list_patches(run):
        if step < in_use:
            _try(folder)
    for name in ("index", EMBEDDERS, PATCHES):
        _remove_left_over(run / name, before=in_use)


def forget_after(run: Path, step: int, versions: Mapping[int, str]) -> None:
    """Remove what a run published after the step that it now goes on from.

    Its parameters will be others the second time; nobody may mix them up.
    """
    for one in list_parameters(run):
        if one.step > step or versions.get(one.step) != one.model_hash:
            _try(one.folder)
    for made, folder in [*list_snapshots(run), *list_patches(run)]:
        if made > step:
            _try(folder)
    for scratch in (run / "index").glob(".step-*.partial"):
        match = re.fullmatch(r"\.step-(\d+)\.partial", scratch.name)
        if match and int(match[1]) > step:
            _try(scratch)


def _remove_left_over(published: Path, *, before: int) -> None:
    """Remove what killed processes left half removed, or half written at an earlier step."""
    for doomed in published.glob(".*.removed"):
        shutil.rmtree(doomed, ignore_errors=True)
    for scratch in published.glob(".step-*.partial"):
        match = re.fullmatch(r"\.(step-(\d+)(?:\.[0-9a-f]+)?)\.partial", scratch.name)
        if match is None or int(match[2]) >= before:
            continue
        if not is_locked(published / match[1]) and not is_being_filled(scratch):
            _try(scratch)


def _is_begun(run: Path, step: int) -> bool:
    scratch = scratch_folder(run / "index" / f"step-{step}")
    return (scratch / REQUEST).is_file()


def _try(folder: Path) -> None:
    """Remove a folder unless somebody writes it; what cannot be removed is tried again later."""
    if not is_locked(folder):
        with suppress(ArtifactError):
            remove(folder)
