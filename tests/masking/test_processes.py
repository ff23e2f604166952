"""Masking by several processes: the same bytes; a worker that dies is told of."""

import os
from pathlib import Path
from typing import Any

import pytest

from realm.config import MaskConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.masking import examples as module
from realm.masking.examples import mask
from realm.storage import MANIFEST


@pytest.mark.parametrize("scheme", ["salient", "token", "span"])
def test_the_number_of_processes_changes_no_byte(
    store: PassageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: Any
) -> None:
    monkeypatch.setattr(module, "PASSAGES_PER_BATCH", 5)
    steps: list[tuple[int, int]] = []
    config = MaskConfig(scheme=scheme, min_sentence_wordpieces=4)
    alone = mask(store, tmp_path / "one", config=config)
    together = mask(
        store,
        tmp_path / "two",
        config=config,
        num_processes=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert together == alone
    for name in ("examples.arrow", MANIFEST):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert steps == [(min(n, len(store)), len(store)) for n in range(5, len(store) + 5, 5)]


def test_a_worker_that_dies_is_told_of_and_leaves_nothing(
    store: PassageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_mask_remembered", _die)
    with pytest.raises(ArtifactError, match="a worker process of mask died"):
        mask(store, tmp_path / "out", config=MaskConfig(), num_processes=2)
    assert not (tmp_path / "out").exists()


def test_less_than_one_process_is_refused(store: PassageStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found 0 worker processes"):
        mask(store, tmp_path / "out", config=MaskConfig(), num_processes=0)


def _die(rows: range) -> None:
    del rows
    os._exit(1)
