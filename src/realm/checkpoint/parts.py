"""The trained parts of a run: embedder, encoder, reader, classifier; how each is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from realm.checkpoint.pretrained import hash_tensors
from realm.device import CPU
from realm.errors import ConfigError
from realm.model.bert import QUICK
from realm.model.classifier import Classifier, build_classifier
from realm.model.embedder import Embedder, Towers, build_towers
from realm.model.encoder import Encoder, build_encoder
from realm.model.reader import Reader, build_reader
from realm.tokenizer import WordpieceTokenizer

P = TypeVar("P", bound=nn.Module)
_BUILDERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "embedder": build_towers,
    "encoder": build_encoder,
    "reader": build_reader,
    "classifier": build_classifier,
}
_BY_FINETUNE = "`realm finetune {} --model RUN --out {}`"


@dataclass(frozen=True, kw_only=True)
class Model:
    """The trained parts of a run; a stage that does not train a part leaves it out."""

    tokenizer: WordpieceTokenizer
    towers: Towers | None = None
    encoder: Encoder | None = None
    reader: Reader | None = None
    classifier: Classifier | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that are there, by name."""
        parts = {
            "embedder": self.towers,
            "encoder": self.encoder,
            "reader": self.reader,
            "classifier": self.classifier,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def to(self, device: torch.device) -> "Model":
        """Move the parts to a device; return the model itself."""
        for part in self.modules.values():
            part.to(device)
        return self

    def need_towers(self) -> Towers:
        """Return the embedder's towers.

        Raises:
            ConfigError: the run has none.
        """
        return self._needed(
            self.towers, "embedder", "`realm ict`, `realm pretrain` or `realm finetune`"
        )

    def need_encoder(self) -> Encoder:
        """Return the knowledge-augmented encoder.

        Raises:
            ConfigError: the run has none.
        """
        return self._needed(self.encoder, "encoder", "`realm pretrain` or `realm mlm`")

    def need_reader(self) -> Reader:
        """Return the span reader.

        Raises:
            ConfigError: the run has none.
        """
        return self._needed(
            self.reader, "reader", _BY_FINETUNE.format("QUESTIONS PASSAGES", "QA_RUN")
        )

    def need_classifier(self) -> Classifier:
        """Return the classifier of claims.

        Raises:
            ConfigError: the run has none.
        """
        return self._needed(
            self.classifier,
            "classifier",
            _BY_FINETUNE.format("CLAIMS PASSAGES --task classify", "CLAIMS_RUN"),
        )

    def _needed(self, part: P | None, name: str, made_by: str) -> P:
        if part is None:
            raise ConfigError(
                f"this run has no {name} (found: {', '.join(self.modules) or 'nothing'}); expected "
                f"one made by {made_by}"
            )
        return part


def build_part(
    name: str, settings: dict[str, Any], weights: Mapping[str, Tensor], *, quick: bool
) -> Any:  # noqa: ANN401 - each part has a class of its own
    """Return a part as model.json describes it, with its weights, in evaluation mode.

    Args:
        name: embedder, encoder, reader or classifier.
        settings: its entry in model.json.
        weights: of all parts, each name led by its part's.
        quick: for inference alone: the quicker twin of BERT, over the very tensors of `weights`.

    Raises:
        ValueError: it is larger than its weights. Other settings and weights that fit no model
            raise whatever they lead to.
    """
    own = {
        key.removeprefix(f"{name}."): value
        for key, value in weights.items()
        if key.startswith(f"{name}.")
    }
    _check_sizes(settings["bert"], own)
    settings["bert"][QUICK] = quick
    part = _BUILDERS[name](settings)
    if name == "embedder" and settings["share_towers"]:
        own |= {k.replace("query.", "passage.", 1): v for k, v in own.items()}
    part.load_state_dict(own, assign=quick)
    return part.eval()


def _check_sizes(bert: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse a model that is larger than its weights before memory is taken for it.

    Raises:
        ValueError: it is.
    """
    held = sum(value.numel() for value in weights.values())
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings")
    widest = max(bert.get(name, 1) for name in sizes)
    if widest * bert.get("hidden_size", 1) > held or bert.get("num_hidden_layers", 1) > len(
        weights
    ):
        raise ValueError(f"found {held:,} weights, expected more for a BERT of these sizes")


def tower_hash(tower: Embedder) -> str:
    """Return a hash of a tower's parameters: which embedder a snapshot was built with."""
    return hash_tensors(dict(tower.state_dict()))


def model_settings(model: Model) -> dict[str, Any]:
    """Return what model.json says: how to build each part."""
    return {name: part.settings for name, part in model.modules.items()}


def flat_state(model: Model) -> dict[str, Tensor]:
    """Return the parameters of all parts by name, in 32 bits; those of a shared tower once."""
    state: dict[str, Tensor] = {}
    for name, part in model.modules.items():
        for key, value in part.state_dict().items():
            if isinstance(part, Towers) and part.shared and key.startswith("passage."):
                continue
            state[f"{name}.{key}"] = value.detach().to(CPU, torch.float32).contiguous()
    return state
