"""Settings that a model brings along: what it was published with, how its passages were cut."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from realm.checkpoint.checkpoints import find_checkpoint
from realm.checkpoint.sources import passages_of, run_of
from realm.corpus.shards import read_manifest
from realm.storage import MANIFEST, passing_over_damage, read_json


def stage_defaults(run: Path, stage: str) -> dict[str, Any]:
    """Return the settings of a stage that stand in a run's checkpoint, for `load_config`.

    Empty for the runs of our own stages: what they were trained with is theirs, not the next's.

    Raises:
        ArtifactError: no checkpoint there.
    """
    settings = read_json(find_checkpoint(run) / MANIFEST).get("settings", {})
    return dict(cast("dict[str, Any]", settings.get("defaults", {}).get(stage, {})))


def handed_on(settings: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return a run's settings for its model in another folder, which has no passages beside it.

    How the run's passages were cut is told along, so that other texts are cut alike.

    Args:
        settings: of the run's checkpoint.
        run: the run, or one of its checkpoints.
    """
    told = dict(settings)
    with passing_over_damage():  # passages that were left behind: other texts are cut by default
        cut = read_manifest(passages_of(run_of(run))).config
        split = {"max_wordpieces": cut.max_wordpieces, "language": cut.language}
        told["defaults"] = {**settings.get("defaults", {}), "split": split}
    return told
