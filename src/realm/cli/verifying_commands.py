"""realm verify: are the files on disk those that were written?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import options
from realm.readable import counted

if TYPE_CHECKING:
    from realm.storage import Verification

MEBIBYTE = 1 << 20
MOST_NAMED = 20
"""Damaged files named for a person; --json names all."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify", rich_help_panel="Data")(verify)


def verify(
    places: Annotated[
        list[Path],
        typer.Argument(help="Runs, passages, indexes, libraries, models, or a folder of them."),
    ],
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Read all files that realm wrote below some folders, and say which are not as written.

    A folder of more than 1 GiB is not read through whenever it is opened; this does it. Nothing is
    changed. Exit code 0 where all is whole, 2 where a file is damaged, gone or cannot be read.

    Example: realm verify runs/ passages/
    """
    from realm import storage
    from realm.cli import display
    from realm.errors import DamagedError

    with display.progress("reading", "MiB", quiet=quiet) as advance:

        def tell(read: int, total: int) -> None:
            advance(read // MEBIBYTE, total // MEBIBYTE)

        found = [storage.verify(place, progress=tell) for place in places]
    if as_json:
        options.print_json({"places": [one.as_json() for one in found]})
    else:
        for one in found:
            display.out.print(_told(one), markup=False)
            for file in one.bad[:MOST_NAMED]:
                display.out.print(f"  {file.problem}", markup=False)
    bad = [file for one in found for file in one.bad]
    if bad:
        more = f" and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
        told = "; ".join(str(file.path) for file in bad[:MOST_NAMED])
        total = sum(len(one.files) for one in found)
        raise DamagedError(
            f"{len(bad):,} of {counted(total, 'file')} not as written: {told}{more}. Make their "
            "folders again, or take them from a copy"
        )


def _told(found: "Verification") -> str:
    """Return one line on a place."""
    whole, unknown = found.of("whole"), len(found.of("unknown"))
    size = sum(file.size for file in whole) / 1e6
    told = f"{found.place}: {counted(len(whole), 'file')} whole, {size:,.1f} MB"
    if found.bad:
        told += f"; {len(found.bad):,} damaged or unreadable"
    return told + (f"; {unknown:,} without a checksum, such as logs" if unknown else "")
