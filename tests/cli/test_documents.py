"""realm docs and realm ask --library as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import realm
from realm import mini

Run = Callable[..., Any]
QUESTION = "Who was born in the old house?"


@pytest.fixture(autouse=True)
def _ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_packed: Run) -> None:
    """Let a tiny model take the place of the one that ships."""
    make_packed(name="realm-mini")
    monkeypatch.setattr(mini, "HERE", tmp_path)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "town.md").write_text("# The town\n\nFermat was born in Toulouse.\n")
    (folder / "sub" / "street.txt").write_text("Euler lived in the old house.\nIn Basel.\n")
    (folder / "photo.jpg").write_bytes(b"x")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tmp_path / "notes.library"


def test_what_comes_next_can_be_pasted(call: Run, notes: Path, tmp_path: Path) -> None:
    added = call("docs", "add", tmp_path / "my [notes]", notes)
    assert f"--library '{tmp_path}/my [notes]'" in added.err


def test_add_list_ask_remove(call: Run, notes: Path, library: Path) -> None:
    added = call("docs", "add", library, notes)
    assert added.code == 0, added.err
    assert added.out == "2 added (2 passages embedded)\n"
    assert "not a .txt, .md or .jsonl file  photo.jpg" in added.err
    assert f"--library {library}" in added.err
    again = call("docs", "add", library, notes, "--json")
    assert json.loads(again.out)["unchanged"] == ["sub/street.txt", "town.md"]
    assert json.loads(again.out)["skipped"] == {"not a .txt, .md or .jsonl file": 1}
    listed = call("docs", "list", library)
    assert "sub/street.txt    street          40         1  " in listed.out
    assert listed.err == "2 documents, 2 passages\n"
    asked = call("ask", QUESTION, "--library", library, "--json")
    told = json.loads(asked.out)
    assert {answer["document"] for answer in told["answers"]} <= {"sub/street.txt", "town.md"}
    assert len(told["passages"]) == 2
    shown = call("ask", QUESTION, "--library", library)
    assert shown.out.startswith(QUESTION)
    assert f"{told['answers'][0]['document']}:{told['answers'][0]['line']}" in shown.out
    assert call("docs", "remove", library, "town.md").out == "1 removed\n"
    told = json.loads(call("docs", "list", library, "--json").out)
    assert [document["id"] for document in told["documents"]] == ["sub/street.txt"]
    assert told["num_passages"] == 1
    assert call("docs", "remove", library, "sub/street.txt").code == 0
    empty = call("ask", QUESTION, "--library", library)
    assert "No answer in these passages." in empty.out
    assert call("docs", "list", library).out == ""


def test_a_blank_file_is_left_out(call: Run, notes: Path, library: Path) -> None:
    (notes / "town.md").write_text(" \n")
    told = json.loads(call("docs", "add", library, notes, "--json").out)
    assert told["added"] == ["sub/street.txt"]
    assert told["skipped"]["no text"] == 1
    alone = call("docs", "add", library, notes / "town.md")
    assert alone.code == 2
    assert "found no file that can be read (1 no text); expected text in UTF-8" in alone.err
    assert call("docs", "list", library).err == "1 document, 1 passage\n"


def test_a_name_that_is_no_id_is_counted(call: Run, notes: Path, library: Path) -> None:
    (notes / "new\nline.txt").write_text("Gauss lived in Brunswick.")
    added = call("docs", "add", library, notes, "--json")
    assert len(json.loads(added.out)["added"]) == 2
    assert json.loads(added.out)["skipped"]["cannot be read"] == 1


def test_who_serves_or_watches_files_is_told_what_was_left_out(
    call: Run,
    notes: Path,
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = "not a .txt, .md or .jsonl file  photo.jpg"
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
    call("docs", "add", library, notes)
    with monkeypatch.context() as patch:
        patch.setattr("realm.library.watching.FolderWatcher.wait", lambda _: None)
        assert told in call("docs", "watch", library, notes).err
    if find_spec("mcp"):

        def serve(load: Run, **_: object) -> bool:
            load(lambda *_: None).close()
            return True

        monkeypatch.setattr("realm.adapters.mcp.serve", serve)
        assert told in call("mcp", "--docs", notes).err
    if find_spec("fastapi"):
        monkeypatch.setattr("realm.serving.server.serve", lambda _, bound: bound.close())
        assert told in call("serve", "--docs", notes, "--port", "0").err


def test_a_library_is_made_over_for_another_model(
    call: Run, notes: Path, library: Path, make_packed: Run
) -> None:
    other = make_packed(seed=5, name="other")
    call("docs", "add", library, notes)
    refused = call("docs", "add", library, notes, "--model", other)
    assert "was made with the model 'realm-mini'" in refused.message
    assert "realm docs reindex" in refused.message
    made = call("docs", "reindex", library, "--model", other)
    assert made.out == "2 replaced (2 passages embedded)\n"
    assert call("ask", QUESTION, "--library", library, "--model", other).code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("docs", "--json"), "No such option: --json. Look at `realm docs --help`"),
        (("docs", "add", "{library}"), "Missing argument"),
        (("docs", "add", "{library}", "{notes}/none"), "found no"),
        (("docs", "add", "{library}", "{notes}/photo.jpg"), "is of no kind that is read"),
        (("docs", "add", "{notes}", "{notes}/town.md"), "holds other files and no library"),
        (("docs", "add", "{library}", "{bad}"), "found no file that can be read (1 invalid UTF-8)"),
        (("docs", "add", "{library}", "{notes}", "{notes}"), "found 2 files that would be"),
        (("docs", "list", "{notes}"), "found no library at"),
        (("docs", "remove", "{notes}", "a"), "found no library at"),
        (("docs", "watch", "{library}", "{notes}/none"), "found no"),
        (("ask", "x", "--library", "{library}"), "found no library at"),
        (("ask", "x", "--library", "{library}", "--docs", "{notes}"), "--docs beside --library"),
    ],
)
def test_bad_input_is_one_sentence(
    call: Run, notes: Path, library: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff")
    filled = (part.format(library=library, notes=notes, bad=bad) for part in arguments)
    assert told in call(*filled).message


def test_an_unknown_id_and_a_library_as_docs(call: Run, notes: Path, library: Path) -> None:
    call("docs", "add", library, notes)
    told = call("docs", "remove", library, "x").message
    assert f"expected one such as 'sub/street.txt' (all of them: realm docs list {library})" in told
    assert f"expected --library {library}" in call("ask", "x", "--docs", library).message


def hear_ctrl_c() -> None:
    """Undo what a shell does to commands in the background, and with them to these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watch_follows_a_folder_until_it_is_stopped(
    call: Run, notes: Path, library: Path, tmp_path: Path
) -> None:
    source = str(Path(realm.__file__).parents[1])
    options = ("--every", "0.05", "--model", tmp_path / "realm-mini")
    with subprocess.Popen(
        [sys.executable, "-m", "realm", "docs", "watch", library, notes, *options],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "2 added (2 passages embedded)\n"
            (notes / "new.txt").write_text("Gauss lived in Brunswick.")
            assert process.stdout.readline() == "1 added (1 passage embedded)\n"
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"following {notes} (stop: Ctrl-C)" in "".join(err.splitlines())
    assert "Traceback" not in err
    assert len(json.loads(call("docs", "list", library, "--json").out)["documents"]) == 3
