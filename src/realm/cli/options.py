"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with a section for this stage.", dir_okay=False),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, e.g. --set batch_size=16; may be repeated."),
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Replace what --out holds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No lines while training.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard events (extra: track).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Passages = Annotated[
    Path | None,
    typer.Option("--passages", help="Answer from these passages instead of the run's own."),
]
