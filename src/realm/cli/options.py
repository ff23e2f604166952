"""Options that several verbs share, and the settings that --set takes, for their help."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from realm.errors import ConfigError
from realm.mini import NAME
from realm.readable import visible

if TYPE_CHECKING:
    from realm import config

TRAINING = "Training"
"""Heading of the verbs that train, and of the index, in the list of all."""
Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
PassagesArgument = Annotated[Path, typer.Argument(help="Passages, from realm split.")]
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
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No bars, no hints, no line for each step.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard events (extra: track).")
]


def or_realm_mini(model: Path | None) -> Path | None:
    """Return the run named; None, which is realm-mini, for its name where no such folder lies."""
    is_meant = model is not None and model == Path(NAME) and not model.exists()
    return None if is_meant else model


def run_of_name(run: Path) -> Path:
    """Return the run named, a folder; realm-mini's for its name where no such folder lies.

    Raises:
        ConfigError: its weights are not in this installation.
    """
    from realm.mini import default_model

    return run if or_realm_mini(run) is not None else default_model()


DEVICES = ("auto", "cpu", "cuda")
Device = Annotated[
    str,
    typer.Option(
        help="auto (a GPU if there is one), cpu, cuda or cuda:NUMBER.",
        autocompletion=lambda: list(DEVICES),
    ),
]
Processes = Annotated[int, typer.Option(help="Worker processes; the output is the same.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")
]
Passages = Annotated[
    Path | None,
    typer.Option(
        "--passages",
        help="Answer from these passages (realm split) instead of the run's own; they are "
        "embedded once.",
    ),
]
MinProbability = Annotated[
    float | None,
    typer.Option(
        "--min-probability",
        min=0.0,
        max=1.0,
        help='Less probable answers become "no answer" (0: none does); without, the threshold of '
        "the run's calibration.",
    ),
]


RANKED_VERBS = ("ict", "mlm", "pretrain", "finetune", "index")
"""What `torchrun` may start several times for one run."""


def print_json(value: object, **more: object) -> None:
    """Print one JSON object on stdout: what --json promises of every verb.

    Args:
        value: a mapping or a record; paths become texts, numbers that JSON has not become null.
        **more: entries beside it.
    """
    told = _plain(value) | {name: _plain(one) for name, one in more.items()}
    text = json.dumps(told, ensure_ascii=False, allow_nan=False)
    typer.echo(visible(text))


def rank() -> int:
    """Return which of `torchrun`'s processes this is; 0 without it."""
    told = os.environ.get("RANK", "")
    return int(told) if told.isdecimal() else 0


def world_size() -> int:
    """Return how many processes `torchrun` started; 1 without it."""
    told = os.environ.get("WORLD_SIZE", "")
    return max(1, int(told)) if told.isdecimal() else 1


def check_ranks(verb: str) -> None:
    """Refuse a verb whose processes would each do all of the work, into one folder.

    Args:
        verb: what stands first on the command line.

    Raises:
        ConfigError: `torchrun` started several.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1" and verb not in RANKED_VERBS and not verb.startswith("-"):
        raise ConfigError(
            f"`realm {verb}` runs as one process, found WORLD_SIZE={world}: torchrun started "
            f"several. Start it without torchrun ({', '.join(RANKED_VERBS)} share their work)"
        )


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


def settings_help(verb: str) -> str | None:
    """Return a verb's settings with their defaults, as the end of its help.

    None where another verb was called: settings take longer to import than all the rest.
    """
    if verb not in sys.argv:
        return None
    from rich.markup import escape

    from realm import config

    told = _told(getattr(config, f"{verb.capitalize()}Config"))
    if verb == "finetune":
        told += f". With --task classify: {_told(config.ClassifyConfig)}"
    return escape(f"Settings and their defaults, for --set and --config: {told}")


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a report holds
    """Return a value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        return {str(name): _plain(one) for name, one in entries.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("Sequence[object]", value)]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _told(cls: "type[config.Config]") -> str:
    return ", ".join(_settings(cls()))


def _settings(settings: Any, prefix: str = "") -> list[str]:  # noqa: ANN401 - a table of any stage
    told: list[str] = []
    for name in type(settings).model_fields:
        value: Any = getattr(settings, name)
        if hasattr(value, "model_dump"):
            told += _settings(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            told.append(f"{prefix}{name}={'none' if value is None else shown}")
    return told
