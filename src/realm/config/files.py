"""Settings of a stage from TOML files and --set key=value."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from realm.config.base import C, check, short
from realm.errors import ConfigError

SECTIONS = (
    *("split", "mask", "ict", "mlm", "index", "approximate"),
    *("pretrain", "finetune", "classify", "evaluate", "calibrate"),
)
"""Tables that a settings file may have, one for each stage."""


def load_config(
    cls: type[C],
    *,
    section: str,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> C:
    """Return settings of one stage: defaults, then `[section]` of a TOML file, then key=value.

    Args:
        cls: the stage's settings.
        section: name of its table.
        file: TOML file, None for none.
        overrides: key=value pairs; they win.
        defaults: what an imported model was published with; wins over the class's own defaults.

    Raises:
        ConfigError: unknown sections or keys, wrong types, impossible values; the message lists
            what exists.
    """
    table: dict[str, Any] = dict(defaults or {})
    if file is not None:
        table |= _read_section(file, section)
    for override in overrides:
        _assign(table, *parse_override(override))
    return check(cls, table, section=section)


def parse_override(override: str) -> tuple[list[str], object]:
    """Return (keys, value) of `--set a.b=value`.

    Raises:
        ConfigError: there is no "=".
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(
            f"--set {short(repr(override))}: expected key=value, e.g. --set batch_size=16"
        )
    return key.strip().split("."), _parse_value(text.strip())


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        ConfigError: it is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"found no config file {file}") from None
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror}; mend its permissions or its disk"
        ) from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, endless numbers
        raise ConfigError(f"{file} is not TOML: {error}") from None


def _read_section(file: Path, section: str) -> dict[str, Any]:
    found = read_toml(file)
    if unknown := sorted(found.keys() - {*SECTIONS, section}):
        raise ConfigError(
            f"{file} has no use for {short(str(unknown))}; there are tables {list(SECTIONS)}"
        )
    table = found.get(section, {})
    if not isinstance(table, dict):
        raise ConfigError(
            f"{file}: found {section} = {short(repr(table))}, expected a table [{section}]"
        )
    return cast("dict[str, Any]", table)


def _assign(table: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        inner = table.get(key)
        table[key] = dict(inner) if isinstance(inner, dict) else {}
        table = table[key]
    table[keys[-1]] = value


def _parse_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return None if text.lower() in {"none", "null"} else text
