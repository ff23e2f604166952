"""A command line that cannot be parsed says what was probably meant."""

from pathlib import Path

import pytest
import typer

from realm.cli.guessing import MEANT
from realm.cli.main import build_app
from realm.mini import default_model
from tests.towns import Run


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["answer", "Who?"], "Did you mean 'ask'? Look at `realm --help`"),
        (["aks", "Who?"], "Did you mean 'ask'? Look at `realm --help`"),
        (["docs", "ls"], "Did you mean 'list'? Look at `realm docs --help`"),
        (["docs", "rm", "x"], "Did you mean 'remove'?"),
        (["docs", "frob"], "No such command 'frob'. Look at `realm docs --help`"),
        (["Who is it?"], "A question is asked with a verb: `realm ask "),
        (["--docs", "notes", "Who?"], "Options stand behind a verb, as in `realm ask "),
        (["ask"], "'question'. For example: `realm ask "),
        (["ask", "notes/", "Who?"], "(Who?). For example: `realm ask "),
        (["serve", "notes/"], "For example: `realm serve --docs notes/"),
        (["finetune", "q", "p", "--task", "clasify"], "'--task': 'clasify' is not one of 'answer'"),
        (["ask", "x", "--dcos", "y"], "No such option: --dcos (Possible options: --docs). Look"),
    ],
)
def test_a_guess_leads_on(call: Run, command: list[str], told: str) -> None:
    result = call(*command)
    assert result.code == 2
    assert told in result.message


def test_a_folder_alone_is_told_where_it_goes(call: Run, tmp_path: Path) -> None:
    assert "A verb comes first, as in `realm ask " in call(tmp_path).message


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ([], "Usage: realm [OPTIONS]"),
        (["help"], "Usage: realm [OPTIONS]"),
        (["help", "ask"], "Usage: realm ask"),
        (["help", "docs", "add"], "Usage: realm docs add"),
        (["docs"], "Usage: realm docs [OPTIONS]"),
        (["version"], "realm "),
    ],
)
def test_who_asks_for_help_gets_it(call: Run, command: list[str], shown: str) -> None:
    result = call(*command)
    assert (result.code, shown in result.out) == (0, True)


def test_what_is_meant_is_a_verb_and_what_is_tried_is_none() -> None:
    app = build_app()
    verbs = {
        "realm": {command.name for command in app.registered_commands} | {"docs"},
        "realm docs": {
            command.name
            for group in app.registered_groups
            if group.typer_instance
            for command in group.typer_instance.registered_commands
        },
    }
    for path, guesses in MEANT.items():
        assert set(guesses.values()) <= verbs[path]
        assert not set(guesses) & verbs[path]


@pytest.mark.parametrize(
    "verb", [("ask",), ("evaluate",), ("serve",), ("mcp",), ("docs", "add"), ("docs", "watch")]
)
def test_the_model_that_ships_can_be_named(
    verb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(build_app())
    for word in verb:
        command = command.commands[word]
    (model,) = (one for one in command.params if "--model" in one.opts)

    def named(value: str) -> Path | None:
        return model.process_value(typer.Context(command), value)

    assert named("realm-mini") is None
    assert named("runs/qa") == Path("runs/qa")
    (tmp_path / "realm-mini").mkdir()
    assert named("realm-mini") == Path("realm-mini"), "a folder of one's own goes first"


@pytest.mark.parametrize(("verb", "name"), [("finetune", "model"), ("average", "before")])
def test_what_goes_on_from_the_model_that_ships_may_name_it(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(build_app()).commands[verb]
    (run,) = (one for one in command.params if one.name == name)

    def named(value: str) -> Path:
        return run.process_value(typer.Context(command), value)

    assert named("realm-mini") == default_model()
    assert named("runs/qa") == Path("runs/qa")
    (tmp_path / "realm-mini").mkdir()
    assert named("realm-mini") == Path("realm-mini"), "a folder of one's own goes first"
