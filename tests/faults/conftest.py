"""The world with every kind of file; the library that the tests of its room share."""

import pytest

from tests.faults.pipeline import make_everything
from tests.library.conftest import documents, indexer, library, model, tuned
from tests.towns import World

__all__ = ["documents", "indexer", "library", "model", "tuned"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return the world with every kind of file; whoever damages it puts it back."""
    return make_everything(tmp_path_factory.mktemp("made") / "world")
