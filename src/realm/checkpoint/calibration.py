"""`calibration.json` beside a model: the chance that an answer is right, and when to say none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from realm.checkpoint.sources import run_of
from realm.errors import ArtifactError
from realm.model.confidence import Calibrator, calibrator_from
from realm.storage import FORMAT_VERSION, read_json, write_json

CALIBRATION = "calibration.json"
"""In the run's folder, or in that of a model that was handed on."""
_KIND = "calibration"
_CARRIED = "carried_from"
"""Among the inputs of a calibration that was fitted to the same model in another folder or form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `realm calibrate` fitted to one model under one retriever."""

    model_fingerprint: str
    """Of the checkpoint whose answers it was fitted to."""
    retriever: str
    """Who found the passages: another one's scores mean something else."""
    num_passages: int
    """Passages read for each question."""
    calibrator: Calibrator
    min_probability: float
    """The default threshold: a best answer below it is not said."""
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was measured on questions that it was not fitted to."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Fingerprints of the questions and the passages; `carried_from`: of the model that it was
    fitted to, where that lies in another folder or form."""

    def mismatch(self, *, model_fingerprint: str, retriever: str) -> str | None:
        """Return why it does not speak for a model under a retriever; None: it does."""
        if self.model_fingerprint != model_fingerprint:
            return (
                f"its {CALIBRATION} belongs to another model ({self.model_fingerprint[:12]}, this "
                f"is {model_fingerprint[:12]})"
            )
        if self.retriever != retriever:
            return f"its {CALIBRATION} was fitted with the retriever {self.retriever}"
        return None

    def as_json(self) -> dict[str, Any]:
        """Return what stands in the file."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": _KIND,
            "model_fingerprint": self.model_fingerprint,
            "retriever": self.retriever,
            "num_passages": self.num_passages,
            "min_probability": self.min_probability,
            "calibrator": self.calibrator.as_json(),
            "figures": dict(self.figures),
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
        }


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write it into a run's folder, whole or not at all, over an earlier one; return the file.

    Raises:
        ArtifactError: it cannot be written.
    """
    path = folder / CALIBRATION
    try:
        write_json(path, calibration.as_json())
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}; free space or mend the permissions"
        ) from error
    return path


def load_calibration(folder: Path) -> Calibration | None:
    """Return the calibration of a run, of a checkpoint's run or of a model that was handed on.

    Args:
        folder: the run, one of its checkpoints, or any folder that holds the file itself.

    Returns:
        None where there is none.

    Raises:
        ArtifactError: it is damaged, or written by another version.
    """
    places = dict.fromkeys([folder / CALIBRATION, run_of(folder) / CALIBRATION])
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else _parse(read_json(found), found)


def carry_calibration(
    source: Path, target: Path, *, source_fingerprint: str, model_fingerprint: str
) -> str | None:
    """Copy a calibration to the same model in another folder or form; return why it was not.

    One that was carried before gives way to the source's of today; one that `realm calibrate`
    wrote for the target stays.

    Args:
        source: run or checkpoint.
        target: existing folder that gets the file.
        source_fingerprint: of the model as it lies in `source`; the calibration of another one is
            left behind.
        model_fingerprint: of the model as it lies in `target`.

    Returns:
        None: the source's speaks for the target now, or there is none.

    Raises:
        ArtifactError: one of the two is damaged, or cannot be written.
    """
    theirs = load_calibration(source)
    if theirs is None:
        return None
    if theirs.model_fingerprint != source_fingerprint:
        return (
            f"the run's {CALIBRATION} belongs to another model "
            f"({theirs.model_fingerprint[:12]}, this is {source_fingerprint[:12]}) and was left "
            "behind; run `realm calibrate` again"
        )
    carried = replace(
        theirs,
        model_fingerprint=model_fingerprint,
        inputs={**theirs.inputs, _CARRIED: source_fingerprint},
    )
    ours = load_calibration(target)
    if ours is None or _CARRIED in ours.inputs or ours == replace(carried, inputs=theirs.inputs):
        save_calibration(target, carried)
        return None
    return (
        f"{target} keeps a {CALIBRATION} of its own, which is another than the run's; remove that "
        "file and do this again to have the run's"
    )


def _parse(value: dict[str, Any], path: Path) -> Calibration:
    if (value.get("kind"), value.get("format_version")) != (_KIND, FORMAT_VERSION):
        raise ArtifactError(
            f"{path}: found kind {value.get('kind')!r}, version {value.get('format_version')!r}, "
            f"expected {_KIND!r}, {FORMAT_VERSION}; run `realm calibrate` again"
        )
    try:
        return Calibration(
            model_fingerprint=str(value["model_fingerprint"]),
            retriever=str(value["retriever"]),
            num_passages=int(value["num_passages"]),
            calibrator=calibrator_from(value["calibrator"]),
            min_probability=min(1.0, max(0.0, float(value["min_probability"]))),
            figures=dict(value["figures"]),
            settings=dict(value["settings"]),
            inputs=dict(value["inputs"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(
            f"{path} is damaged ({type(error).__name__}: {error}); run `realm calibrate` again"
        ) from None
