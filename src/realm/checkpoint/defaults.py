"""Settings that a checkpoint brings along: what an imported one was published with."""

from pathlib import Path
from typing import Any, cast

from realm.checkpoint.checkpoints import find_checkpoint
from realm.storage import MANIFEST, read_json


def stage_defaults(run: Path, stage: str) -> dict[str, Any]:
    """Return the settings of a stage that stand in a run's checkpoint, for `load_config`.

    Empty for the runs of our own stages: what they were trained with is theirs, not the next's.

    Raises:
        ArtifactError: no checkpoint there.
    """
    settings = read_json(find_checkpoint(run) / MANIFEST).get("settings", {})
    return dict(cast("dict[str, Any]", settings.get("defaults", {}).get(stage, {})))
