"""Options that several verbs share, and the settings that --set takes, for their help."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from realm.config import Config as Settings

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help=r"TOML file with a table for each verb, e.g. \[ict]; --set wins over it."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting (they stand below); may be repeated."
    ),
]
Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Replace what --out holds, whatever it was made from.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard events (extra: track).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Passages = Annotated[
    Path | None,
    typer.Option(
        "--passages",
        help="Answer from these passages (realm split) instead of the run's own; they are "
        "embedded once.",
    ),
]


def with_options(sets: list[str] | None, **options: str | None) -> list[str]:
    """Return --set's key=value pairs with those that have an option of their own, which wins.

    Args:
        sets: What --set said.
        **options: Value of each option, None where it was not given; `__` stands for a dot.
    """
    return [
        *(sets or []),
        *(
            f"{name.replace('__', '.')}={json.dumps(value, ensure_ascii=False)}"
            for name, value in options.items()
            if value is not None
        ),
    ]


def settings_help(cls: type[Settings]) -> str:
    """Return the settings of a stage with their defaults, as the end of its help."""
    told = ", ".join(_settings(cls()))
    return escape(f"Settings and their defaults, for --set and --config: {told}")


def _settings(settings: Settings, prefix: str = "") -> list[str]:
    told: list[str] = []
    for name in type(settings).model_fields:
        value: object = getattr(settings, name)
        if isinstance(value, Settings):
            told += _settings(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            told.append(f"{prefix}{name}={'none' if value is None else shown}")
    return told
