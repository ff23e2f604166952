"""The longest inputs that a stage makes, against what its loaded parts can read."""

from collections.abc import Mapping

from realm.errors import ConfigError


def check_lengths(lengths: Mapping[str, tuple[int, int]]) -> None:
    """Refuse inputs that are longer than the positions of the model that is to read them.

    Args:
        lengths: setting -> (its value, the most that the loaded part allows), in wordpieces.

    Raises:
        ConfigError: one is too long; it would end training at the first long text.
    """
    for name, (asked, most) in lengths.items():
        if asked > most:
            raise ConfigError(
                f"found {name}={asked}, expected at most {most} wordpieces: the loaded model reads "
                f"no more; use `--set {name}={most}`, or start from another model"
            )
