"""Which parameters a builder embeds with next, told by what lies in the run's folder."""

from collections.abc import Collection
from pathlib import Path

from realm.errors import ArtifactError
from realm.index.snapshot import Snapshot, list_snapshots, snapshot_folder
from realm.refresh.parameters import Published, list_parameters
from realm.storage import MANIFEST, REQUEST, is_locked, read_json, remove, scratch_folder


def next_version(
    run: Path, *, finish_begun: bool = True, avoid: Collection[Published] = ()
) -> Published | None:
    """Return the parameters to embed with: those of a sweep that was begun, or the newest.

    None if there are none, or a snapshot of the newest ones is there.

    Args:
        run: the run's folder.
        finish_begun: a sweep that somebody has begun comes before newer parameters.
        avoid: taken only if there are no others that are newer than the newest snapshot.
    """
    snapshots = list_snapshots(run)
    newest_snapshot = snapshots[-1][0] if snapshots else -1
    useful = [
        one
        for one in list_parameters(run)
        if one.step > newest_snapshot
        or (one.step == newest_snapshot and not _is_of(snapshots[-1][1], one))
    ]
    useful = [one for one in useful if one not in avoid] or useful
    begun = (one for one in useful if finish_begun and _is_begun(run, one))
    return next(begun, useful[-1] if useful else None)


def run_settings(run: Path) -> dict[str, object]:
    """Return the refresh settings of a run that has started.

    Raises:
        ArtifactError: it has not, or does not refresh an index.
    """
    settings = read_json(run / REQUEST).get("settings", {}).get("refresh")
    if not isinstance(settings, dict):
        raise ArtifactError(
            f"{run} refreshes no index: nothing to follow; expected a run of `realm pretrain`, or "
            "of `realm finetune` with train_passages=true"
        )
    return settings


def clear_unfinished(folder: Path) -> None:
    """Remove a snapshot's folder that has no manifest: somebody copied it, or lost a part."""
    if folder.is_dir() and not (folder / MANIFEST).is_file() and not is_locked(folder):
        remove(folder)


def _is_begun(run: Path, published: Published) -> bool:
    scratch = scratch_folder(snapshot_folder(run, published.step))
    try:
        inputs = read_json(scratch / REQUEST)["inputs"]
    except (ArtifactError, KeyError):
        return False
    return inputs.get("embedder") == published.model_hash


def _is_of(folder: Path, published: Published) -> bool:
    try:
        return Snapshot.open(folder).model_hash == published.model_hash
    except ArtifactError:
        return False
