"""realm-mini: a small fine-tuned model that ships in the package, to ask one's own files at once.

`realm-mini/` is what `realm pack` writes; MODEL_CARD.md says what it was trained on and how well it
does, LICENSE-WEIGHTS.md under which terms the weights may be used.
"""

from pathlib import Path

from realm.errors import ConfigError

NAME = "realm-mini"
HERE = Path(__file__).parent
_MANIFEST = "manifest.json"


def model_folder() -> Path:
    """Return where the weights lie, if they do."""
    return HERE / NAME


def has_default_model() -> bool:
    """Return whether this installation came with the weights."""
    return (model_folder() / _MANIFEST).is_file()


def default_model() -> Path:
    """Return the model that answers when none is named.

    Raises:
        ConfigError: this installation came without the weights.
    """
    if not has_default_model():
        raise ConfigError(
            f"found no weights of {NAME} in {model_folder()}, expected those that a release of "
            "realm-lm brings; install one, or name a fine-tuned run: --model RUN"
        )
    return model_folder()
