"""What the tests of the refresh share: a run's settings, parameters that learn, published ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion
from realm.masking.store import ExampleStore
from realm.model.embedder import Embedder, Towers
from realm.refresh.parameters import Published, publish_parameters
from realm.refresh.priority import Demand, nothing_retrieved
from realm.storage import write_json

INDEX = IndexConfig(autocast="none", passage_wordpieces=64, shard_rows=5, batch_tokens=256)
Publish = Callable[..., Published]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def index_config() -> IndexConfig:
    return INDEX


@pytest.fixture
def tower(make_towers: Callable[..., Towers]) -> Embedder:
    return make_towers().passage


@pytest.fixture
def learn() -> Callable[[Embedder], None]:
    """Change a tower as a step does."""

    def change(tower: Embedder) -> None:
        with torch.no_grad():
            tower.projection.weight.add_(0.01)

    return change


@pytest.fixture
def started(tmp_path: Path, store: PassageStore) -> Callable[..., Path]:
    """Write the folder of a run that has started, with these refresh settings."""

    def start(name: str = "run", **refresh: object) -> Path:
        run = tmp_path / name
        run.mkdir()
        settings = {"mode": "async", "order": "sweep", **refresh}
        request = {
            "kind": "run",
            "settings": {"stage": "pretrain", "refresh": settings},
            "inputs": {"passages": store.fingerprint},
        }
        write_json(run / "request.json", request)
        write_json(run / "sources.json", {"passages": str(store.folder)})
        return run

    return start


@pytest.fixture
def publish(store: PassageStore) -> Publish:
    """Publish a tower's parameters as a trainer does."""

    def publish_it(
        run: Path, tower: Embedder, step: int, demand: Demand | None = None
    ) -> Published:
        return publish_parameters(
            run,
            tower,
            version=EmbedderVersion(model_hash=tower_hash(tower), step=step),
            tokenizer=store.tokenizer,
            index=INDEX,
            passages_fingerprint=store.fingerprint,
            demand=demand or nothing_retrieved(),
        )

    return publish_it


@pytest.fixture(scope="session")
def examples(store: PassageStore, make_examples: Callable[..., ExampleStore]) -> ExampleStore:
    return make_examples(store)


@pytest.fixture(scope="session")
def start(store: PassageStore, make_start: Callable[..., dict[str, Path]]) -> dict[str, Path]:
    return make_start(store)


@pytest.fixture
def flip() -> Callable[[Path], None]:
    """Flip one bit of a file."""

    def flip_bit(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return flip_bit
