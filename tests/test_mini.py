"""The model that ships: found in the package, or missing with a word on what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm import mini
from realm.checkpoint.checkpoints import load_model
from realm.errors import ConfigError


def test_without_the_weights_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mini, "HERE", tmp_path)
    assert not mini.has_default_model()
    with pytest.raises(ConfigError, match=r"found no weights of realm-mini .* --model RUN"):
        mini.default_model()


def test_a_packed_model_in_its_place_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_packed: Callable[..., Any]
) -> None:
    monkeypatch.setattr(mini, "HERE", tmp_path)
    make_packed(name="realm-mini")
    assert mini.has_default_model()
    load_model(mini.default_model()).need_reader()


def test_what_ships_is_small_whole_and_described() -> None:
    folder = mini.default_model()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 48_000_000
    model = load_model(folder)
    assert model.towers is not None
    assert model.reader is not None
    assert model.encoder is None
    for page in ("MODEL_CARD.md", "LICENSE-WEIGHTS.md"):
        assert (mini.HERE / page).read_text(encoding="utf-8").strip()
