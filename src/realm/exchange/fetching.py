"""Where the files of a published checkpoint are: a folder, or the hub when that was asked for."""

from contextlib import suppress
from pathlib import Path

from realm.errors import ConfigError

FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "block_records.npy",
]


def find_source(source: str, *, download: bool = False) -> Path:
    """Return the folder that `source` names; with `download` also a hub id's.

    Only data is fetched, through huggingface_hub and into its cache: weights, settings,
    vocabulary, passages. No code, and nothing unless asked.

    Raises:
        ConfigError: there is no such folder, or the hub cannot be reached.
    """
    folder = Path(source)
    with suppress(RuntimeError):  # "~somebody", a user whom this machine does not know
        folder = folder.expanduser()
    if folder.is_dir():
        return folder
    is_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if not download:
        ask = "; pass --download to fetch it from the Hugging Face hub" if is_hub_id else ""
        raise ConfigError(f"found no folder {source}, expected one with config.json{ask}")
    if not is_hub_id:
        raise ConfigError(
            f"found {source!r}, expected a hub id for --download, such as "
            "google/realm-orqa-nq-openqa"
        )
    from huggingface_hub import snapshot_download  # slow to import

    try:
        return Path(snapshot_download(source, allow_patterns=FILES))
    except Exception as error:
        told = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"could not fetch {source} from the hub ({type(error).__name__}: {told}); "
            "download it where the hub can be reached, and pass its folder"
        ) from error
