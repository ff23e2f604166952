"""Parameters of Embed_doc that a trainer has published for its builders (section 3.3).

embedders/step-500/     a checkpoint of one tower: any verb that takes a model takes it
    model.safetensors   Embed_doc
    training.safetensors  demand: which passages were retrieved, how far their scores had drifted
    training.json       step, hash of the parameters, settings of the index
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realm.checkpoint.checkpoints import TrainingState, load_model, load_state, save_checkpoint
from realm.checkpoint.parts import Model
from realm.config import IndexConfig
from realm.device import CPU
from realm.errors import ArtifactError
from realm.index.builder import EmbedderVersion
from realm.model.embedder import Embedder, Towers
from realm.refresh.priority import Demand
from realm.storage import MANIFEST, children, read_json, remove
from realm.tokenizer import WordpieceTokenizer

EMBEDDERS = "embedders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Parameters that lie ready."""

    step: int
    folder: Path
    model_hash: str

    @property
    def version(self) -> EmbedderVersion:
        """What a snapshot made with them is called."""
        return EmbedderVersion(model_hash=self.model_hash, step=self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Parameters in memory."""

    published: Published
    tower: Embedder
    index: IndexConfig
    demand: Demand


def publish_parameters(
    run: Path,
    tower: Embedder,
    *,
    version: EmbedderVersion,
    tokenizer: WordpieceTokenizer,
    index: IndexConfig,
    passages_fingerprint: str,
    demand: Demand,
) -> Published:
    """Publish parameters for the builders; what an abandoned run left at this step goes.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    folder = run / EMBEDDERS / f"step-{version.step}"
    if folder.exists():
        remove(folder)
    values = {"model_hash": version.model_hash, "index": index.as_dict()}
    save_checkpoint(
        folder,
        Model(tokenizer=tokenizer, towers=Towers(tower)),
        settings={"stage": "refresh", "step": version.step},
        inputs={"passages": passages_fingerprint},
        state=TrainingState(step=version.step, tensors=_tensors(demand), values=values),
    )
    return Published(step=version.step, folder=folder, model_hash=version.model_hash)


def list_parameters(run: Path) -> list[Published]:
    """Return what is published, oldest first; what is gone by now, or damaged, is left out.

    Raises:
        UnreadableError: their folder cannot be listed.
    """
    found: list[Published] = []
    for folder in children(run / EMBEDDERS):
        match = re.fullmatch(r"step-(\d+)", folder.name)
        if not match or not (folder / MANIFEST).is_file():
            continue
        try:
            model_hash = str(read_json(folder / "training.json").get("model_hash"))
        except ArtifactError:
            continue  # removed meanwhile, or damaged: the next ones will do
        found.append(Published(step=int(match[1]), folder=folder, model_hash=model_hash))
    return sorted(found, key=lambda one: one.step)


def load_parameters(published: Published, device: torch.device = CPU) -> Loaded:
    """Read published parameters, checksums compared; the tower comes on a device.

    Raises:
        ArtifactError: they are damaged, or were removed meanwhile.
    """
    model = load_model(published.folder)
    state = load_state(published.folder)
    try:
        return Loaded(
            published=published,
            tower=model.need_towers().passage.to(device),
            index=IndexConfig.model_validate(state.values["index"]),
            demand=_demand(state.tensors),
        )
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{published.folder} was not written by this release ({error!r}); use the same one "
            "for trainer and builders"
        ) from None


def _tensors(demand: Demand) -> dict[str, Tensor]:
    return {"rows": demand.rows, "retrievals": demand.retrievals, "drift": demand.drift}


def _demand(tensors: Any) -> Demand:  # noqa: ANN401
    return Demand(
        rows=tensors["rows"].to(torch.int64),
        retrievals=tensors["retrievals"],
        drift=tensors["drift"],
    )
