"""realm doctor: is this installation fit for use, and what is missing?"""

from typing import TYPE_CHECKING

import typer

from realm.cli import options

if TYPE_CHECKING:
    from realm.doctor import Checkup

BROKEN = 1
TITLES = {
    "packages": "Packages",
    "machine": "Machine",
    "models": "Models",
    "extras": "Extras",
    "cache": "Cache",
}
STYLES = {"good": "green", "missing": "yellow", "broken": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor", rich_help_panel="Start here")(doctor)


def doctor(as_json: options.AsJson = False) -> None:
    """Say what this installation has, what is missing or broken, and how to get it.

    Exit code 0 where it can be used, 1 where something that is needed is broken.

    Example: realm doctor
    """
    from realm.doctor import check_up

    found = check_up()
    if as_json:
        options.print_json(found.as_json())
    else:
        _show(found)
    if not found.is_usable:
        raise typer.Exit(BROKEN)


def _show(found: "Checkup") -> None:
    from rich.markup import escape

    from realm.cli import display

    width = max(len(one.name) for one in found.findings if one.group != "cache")
    for group, title in TITLES.items():
        rows = [one for one in found.findings if one.group == group]
        if not rows:
            continue
        display.out.print(f"[bold]{title}[/]")
        for one in rows:
            mark = f"[{STYLES[one.state]}]{one.state:<7}[/]"
            display.out.print(f"  {mark}  {escape(one.name):<{width}}  {escape(one.found)}")
            if one.advice:
                display.out.print(f"  {'':<7}  {'':<{width}}  [dim]{escape(one.advice)}[/]")
        display.out.print()
    broken = [one.name for one in found.findings if one.state == "broken"]
    told = f"broken: {', '.join(broken)}" if broken else "fit for use"
    display.out.print(told, style="bold red" if broken else "bold green", markup=False)
