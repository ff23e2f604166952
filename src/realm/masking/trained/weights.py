"""The file of the trained tagger: 8-bit tables, 16-bit matrices, its vocabulary and its labels."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from realm.errors import ConfigError
from realm.masking.trained.network import TaggerNetwork
from realm.tokenizer import WordpieceTokenizer

FORMAT = "1"
WEIGHTS = Path(__file__).parent / "weights.safetensors"
_SCALE = ".scale"
_VOCABULARY = "vocabulary"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWeights:
    """All that tagging needs."""

    network: TaggerNetwork
    """In 32 bits, ready for inference."""
    tokenizer: WordpieceTokenizer
    conventions: dict[str, list[str]]
    """Labels of each convention of annotation; tag 1 + 2 i begins label i, 2 + 2 i goes on."""


def save_weights(
    path: Path,
    network: TaggerNetwork,
    *,
    tokenizer: WordpieceTokenizer,
    conventions: dict[str, list[str]],
) -> None:
    """Write one safetensors file: tables of embeddings in 8 bits a row, the rest in 16 bits.

    Args:
        path: File to write.
        network: With the sizes that it has by default.
        tokenizer: Cuts words into the rows of the network's table.
        conventions: Labels by convention, in the order of the tags.
    """
    stored: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if name in {"words.pieces.weight", "words.affixes.weight"}:
            scale = value.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 127
            stored[name] = (value / scale).round().to(torch.int8)
            stored[name + _SCALE] = scale.half()
        else:
            stored[name] = value.half()
    text = "\n".join(tokenizer.vocabulary()).encode()
    stored[_VOCABULARY] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    save_file(stored, path, {"format": FORMAT, "conventions": json.dumps(conventions)})


def load_weights(path: Path = WEIGHTS) -> TrainedWeights:
    """Read a file that `save_weights` wrote.

    Raises:
        ConfigError: it is missing, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about.get("format") != FORMAT:
            raise ConfigError(
                f"{path} has format {about.get('format')!r}, expected {FORMAT!r}; "
                "reinstall realm-lm, or train the tagger again"
            )
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    tokens = bytes(stored.pop(_VOCABULARY).numpy().astype(np.uint8)).decode().split("\n")
    conventions: dict[str, list[str]] = json.loads(about["conventions"])
    network = TaggerNetwork(
        {name: 1 + 2 * len(labels) for name, labels in conventions.items()}, num_pieces=len(tokens)
    )
    state = {
        name: value.float() * stored[name + _SCALE].float()
        if value.dtype == torch.int8
        else value.float()
        for name, value in stored.items()
        if not name.endswith(_SCALE)
    }
    network.load_state_dict(state)
    return TrainedWeights(
        network=network.eval().requires_grad_(requires_grad=False),
        tokenizer=WordpieceTokenizer.from_vocabulary(tokens),
        conventions=conventions,
    )


def weights_fingerprint(path: Path = WEIGHTS) -> str:
    """Return the hash of the file; nothing is loaded.

    Raises:
        ConfigError: it is missing.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"cannot read the trained tagger {path}: {error}; "
        "reinstall realm-lm, or use the tagger rules"
    )
