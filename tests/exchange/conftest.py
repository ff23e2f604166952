"""Checkpoints in the old layout and what the old code made of them: ours, and an outside set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.parts import Model
from realm.exchange.importing import import_weights
from realm.model.inputs import Inputs

PUBLISHED = Path(__file__).parent / "published"
OUTSIDE = Path(__file__).parents[3] / "shared" / "parity"
"""Another set, larger and made by somebody else; it does not come with the repository."""


class Recorded:
    """The arrays that the old code left in one folder; the two sets differ in some names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = next(path for path in folder.glob("*.npz"))
        with np.load(file, allow_pickle=False) as found:
            self.arrays = {name: found[name] for name in found.files}

    def has(self, *names: str) -> bool:
        return any(name in self.arrays for name in names)

    def array(self, *names: str) -> np.ndarray:
        return next(self.arrays[name] for name in names if name in self.arrays)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def any_of(self, *names: str) -> Tensor:
        return torch.from_numpy(self.array(*names))

    def inputs(self, prefix: str = "") -> Inputs:
        """Return what a tower reads; candidates are flattened to rows."""
        parts = [self[f"{prefix}{n}"] for n in ("input_ids", "token_type_ids", "attention_mask")]
        ids, segments, mask = (part.reshape(-1, part.shape[-1]) for part in parts)
        return Inputs(ids, segments, mask.bool())

    @property
    def gradient_norms(self) -> dict[str, float]:
        """Old name -> norm of the gradient; parameters without one are left out."""
        names = [str(name) for name in self.arrays["grad/names"]]
        norms = self.arrays["grad/norms"].tolist()
        return {n: norm for n, norm in zip(names, norms, strict=True) if not np.isnan(norm)}


Imported = Callable[[str], tuple[Model, Recorded]]


@pytest.fixture(scope="session", params=["ours", "outside"])
def root(request: pytest.FixtureRequest) -> Path:
    """The folder of a set of checkpoints."""
    if request.param == "outside" and not OUTSIDE.is_dir():
        pytest.skip("the outside parity set is not beside the repository (shared/parity)")
    return PUBLISHED if request.param == "ours" else OUTSIDE


@pytest.fixture(scope="session")
def run_of(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Import a checkpoint of the set, once."""
    folder = tmp_path_factory.mktemp("imported")
    vocabulary = root / "openqa" / "vocab.txt"

    def run(name: str) -> Path:
        out = folder / name
        import_weights(root / name, out, tokenizer=None if name == "openqa" else vocabulary)
        return out

    return run


@pytest.fixture(scope="session")
def recorded() -> Callable[[Path], Recorded]:
    """Open what the old code left in a folder."""
    return Recorded


@pytest.fixture(scope="session")
def imported(root: Path, run_of: Callable[[str], Path]) -> Imported:
    """Return the imported model of a folder, and what the old code made of it."""

    def load(name: str) -> tuple[Model, Recorded]:
        recorded = name.removesuffix("_legacy_bin")  # the same weights in another file
        return load_model(run_of(name)), Recorded(root / recorded)

    return load


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
