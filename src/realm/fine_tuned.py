"""A fine-tuned run opened to answer questions, before it is told from which passages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from realm.checkpoint.calibration import Calibration, load_calibration
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import run_of
from realm.device import AUTO, choose_device, has_quick_bfloat16
from realm.errors import ArtifactError
from realm.storage import MANIFEST, open_folder

Autocast = Literal["auto", "bfloat16", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringLengths:
    """Longest inputs in wordpieces, as the reader was trained."""

    question: int = 64
    joint: int = 352
    num_passages: int = 5
    """Passages read for each question, unless the caller says otherwise (paper: 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """A model that retrieves and reads, with all that it was trained and calibrated with."""

    model: Model
    run: Path
    """The run that the checkpoint belongs to."""
    checkpoint: Path
    lengths: AnsweringLengths = field(default_factory=AnsweringLengths)
    fingerprint: str = ""
    """Hash of the checkpoint's content."""
    calibration: Calibration | None = None
    lexical_weight: float | None = None
    """Of BM25 beside the dense score; None: it retrieves by the dense score alone."""
    autocast: Literal["bfloat16", "none"] = "none"
    """Of the reader's matrix products."""

    @classmethod
    def load(cls, run: Path, *, device: str = AUTO, autocast: Autocast = "none") -> "FineTuned":
        """Open a run of `realm finetune`, one of its checkpoints, or a packed model.

        Args:
            run: the run.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            autocast: of the reader's matrix products; auto: 16 bits where that is quicker.

        Raises:
            ArtifactError: a folder or `calibration.json` is missing or damaged.
            ConfigError: the run has no reader.
        """
        checkpoint = find_checkpoint(run)
        calibration = load_calibration(run)
        where = choose_device(device)
        model = load_model(checkpoint, quick=True).to(where)
        model.need_reader()
        manifest = open_folder(checkpoint, "checkpoint")
        if autocast == "auto":
            autocast = "bfloat16" if has_quick_bfloat16(where) else "none"
        lengths, lexical_weight = _read_settings(manifest["settings"], checkpoint / MANIFEST)
        return cls(
            model=model,
            run=run_of(run),
            checkpoint=checkpoint,
            lengths=lengths,
            fingerprint=manifest["fingerprint"],
            calibration=calibration,
            lexical_weight=lexical_weight,
            autocast=autocast,
        )

    @property
    def name(self) -> str:
        """What people call it: the run's folder."""
        return self.run.name


def _read_settings(
    settings: dict[str, Any], manifest: Path
) -> tuple[AnsweringLengths, float | None]:
    """Return what a model was fine-tuned to read, and the weight of BM25 beside its own score."""
    try:
        lengths = AnsweringLengths(
            question=int(settings["question_wordpieces"]),
            joint=int(settings["joint_wordpieces"]),
            num_passages=_num_passages(settings),
        )
        is_hybrid = settings.get("retriever") == "hybrid"
        weight = float(settings["lexical_weight"]) if is_hybrid else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtifactError(
            f"{manifest} has no settings of a fine-tuned run ({type(error).__name__}: {error}); "
            "expected one made by `realm finetune`, whole: copy or make it again"
        ) from None
    return lengths, weight


def _num_passages(settings: dict[str, Any]) -> int:
    """Return how many passages an imported model was published to read; the paper's otherwise."""
    published = settings.get("defaults", {}).get("evaluate", {})
    return int(published.get("num_passages", AnsweringLengths().num_passages))
