"""What the paper does with the index in fine-tuning, and what it leaves open (section 3.3)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.parts import tower_hash
from realm.checkpoint.run_records import read_metrics
from realm.config import FinetuneConfig, OptimizerConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.index.snapshot import list_snapshots
from realm.records import Question
from realm.training.finetune import finetune

QUESTIONS = [
    Question(id="1", question="in which year was fermat born", answers=("1607",)),
    Question(id="2", question="where was cantor born", answers=("Halle",)),
]
Tuned = Callable[..., tuple[Path, dict[str, bool]]]


@pytest.fixture
def tuned(store: PassageStore, make_start: Callable[..., dict[str, Path]], tmp_path: Path) -> Tuned:
    """Fine-tune for three steps; return the run, and which of its two towers have moved."""
    torch.set_num_threads(1)

    def tune(**changed: Any) -> tuple[Path, dict[str, bool]]:
        start = make_start(store)
        settings = {"steps": 3, "batch_size": 2, "num_passages": 2, "span_hidden": 16, "threads": 1}
        settings |= {"held_out": 0.0, "optimizer": OptimizerConfig(learning_rate=1e-3)}
        finetune(
            QUESTIONS,
            store,
            tmp_path / "run",
            run=start["embedder"],
            encoder=start["encoder"],
            config=FinetuneConfig(**settings, **changed),
        )
        before, after = (
            load_model(path).need_towers() for path in (start["embedder"], tmp_path / "run")
        )
        moved = {
            name: tower_hash(getattr(after, name)) != tower_hash(getattr(before, name))
            for name in ("query", "passage")
        }
        return tmp_path / "run", moved

    return tune


def test_by_default_the_index_is_built_once_and_embed_doc_is_not_updated(tuned: Tuned) -> None:
    """Section 3.3: "For fine-tuning, we just build the MIPS index once [...] for simplicity".

    "Note that we still fine-tune Embed_input".
    """
    run, moved = tuned()
    assert moved == {"query": True, "passage": False}
    assert [step for step, _ in list_snapshots(run)] == [0]
    assert not any("index/refreshed" in line for line in read_metrics(run))


def test_refreshes_can_be_used_for_fine_tuning_too(tuned: Tuned) -> None:
    """Section 3.3: "asynchronous refreshes can be used for both pre-training and fine-tuning"."""
    run, moved = tuned(train_passages=True, refresh=RefreshConfig(mode="sync", every_steps=1))
    assert moved == {"query": True, "passage": True}
    refreshed = [line["index/refreshed"] for line in read_metrics(run) if "loss" in line]
    assert refreshed == [1, 1, 1]
    assert list_snapshots(run)[-1][0] == 3
