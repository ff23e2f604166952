"""A fine-tuned run -> a small folder that answers (`realm pack`): its weights in 8 bits.

The file's format is `checkpoint/packed.py`'s, because `load_model` opens such a folder like any
other checkpoint; what is left out of a run, and what is told about it, is decided here.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from realm.checkpoint.calibration import carry_calibration
from realm.checkpoint.checkpoints import TOKENIZER_FILE, find_checkpoint, load_model
from realm.checkpoint.defaults import handed_on
from realm.checkpoint.packed import PACKED, write_packed
from realm.checkpoint.parts import Model, flat_state, model_settings
from realm.storage import (
    MANIFEST,
    Request,
    is_done,
    publish,
    read_json,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What `pack_run` made, or found already made."""

    folder: Path
    size_bytes: int
    """Of all files in it."""
    source_bytes: int
    """Of the weights that were packed, as the run has them, whole or packed before."""
    already_done: bool
    calibration_left: str | None
    """Why the run's calibration did not come along; None: it did, or there is none."""


def pack_run(run: Path, out: Path, *, rebuild: bool = False) -> PackReport:
    """Write the towers and the reader of a fine-tuned run in 8 bits, for `--model`.

    No optimiser, no encoder, no index, no passages. The run's settings are told along, and how its
    passages were cut, so that other texts are cut alike (`realm ask --docs`). The run's
    calibration comes along if it was fitted to this checkpoint, also to a model packed before,
    unless that has been calibrated itself.

    Args:
        run: from `realm finetune`; or one of its checkpoints.
        out: folder to write.
        rebuild: replace a packed model that stands there.

    Returns:
        Where it stands, and its size in bytes.

    Raises:
        ArtifactError: no checkpoint there, or `out` cannot be written or is something else.
        ConfigError: the run has no embedder or no reader, or a parameter is no number.
    """
    checkpoint = find_checkpoint(run)
    manifest = read_json(checkpoint / MANIFEST)
    request = Request(
        kind="checkpoint",
        settings={**handed_on(manifest["settings"], run), "weights": "int8"},
        inputs={"checkpoint": str(manifest["fingerprint"])},
    )
    done = is_done(out, request, rebuild=rebuild)
    if not done:
        whole = load_model(checkpoint)
        model = Model(
            tokenizer=whole.tokenizer, towers=whole.need_towers().tied(), reader=whole.need_reader()
        )
        with publish(out, request, replace=rebuild) as scratch:
            _write(model, scratch)
    left = carry_calibration(  # also where it was done: one killed before, or calibrated since
        checkpoint,
        out,
        source_fingerprint=str(manifest["fingerprint"]),
        model_fingerprint=str(read_json(out / MANIFEST)["fingerprint"]),
    )
    return PackReport(
        folder=out,
        size_bytes=_size(out),
        source_bytes=_size(checkpoint, "*model.safetensors") + _size(checkpoint, PACKED),
        already_done=done,
        calibration_left=left,
    )


def _write(model: Model, scratch: Path) -> None:
    write_packed(flat_state(model), scratch / PACKED)
    described = json.dumps(model_settings(model), indent=2)
    (scratch / "model.json").write_text(described, encoding="utf-8")
    model.tokenizer.save(scratch / TOKENIZER_FILE)


def _size(folder: Path, pattern: str = "*") -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())
