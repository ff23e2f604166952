"""realm ask --docs and realm pack as a user calls them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm import mini
from realm.checkpoint.calibration import Calibration, save_calibration
from realm.model.confidence import Calibrator

Run = Callable[..., Any]
QUESTION = "Who was born in the old house?"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "town.md").write_text("# The town\n\nFermat was born in Toulouse.\n")
    (folder / "sub" / "street.txt").write_text("Euler lived in the old house.\nIn Basel.\n")
    (folder / "photo.jpg").write_bytes(b"x")
    return folder


@pytest.fixture
def model(make_packed: Callable[..., Path]) -> Path:
    return make_packed()


def test_answers_show_file_and_line_and_what_was_left_out_once(
    call: Run, docs: Path, model: Path
) -> None:
    first = call("ask", QUESTION, "--docs", docs, "--model", model)
    assert first.code == 0, first.err
    assert first.out.startswith(QUESTION)
    places = re.findall(r"^  \d\. .*  p=\d\.\d+   (\S+) \(", first.out, re.MULTILINE)
    assert len(places) == 3
    assert set(places) <= {"town.md:1", "town.md:3", "sub/street.txt:1", "sub/street.txt:2"}
    assert "not a .txt, .md or .jsonl file  photo.jpg\n" in first.err
    second = call("ask", QUESTION, "--docs", docs, "--model", model)
    assert (second.out, second.err) == (first.out, "")


def test_nothing_that_an_answer_does_not_need_is_imported(
    call: Run, docs: Path, model: Path
) -> None:
    """What `benchmarks/start_up.py` measures, where time does not count."""
    asked = ["ask", QUESTION, "--docs", str(docs), "--model", str(model)]
    assert call(*asked).code == 0
    others = "transformers sentence_transformers sklearn spacy faiss matplotlib fastapi mcp"
    own = "training refresh exchange serving study planning masking evaluation reporting"
    code = (
        f"import sys; sys.argv = ['realm', *{asked!r}]\n"
        "from realm.cli.main import run\n"
        "try: run()\n"
        "except SystemExit as ended: assert not ended.code\n"
        f"unneeded = [*{others.split()!r}, *('realm.' + name for name in {own.split()!r})]\n"
        "print('imported:', *(name for name in unneeded if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "imported:"


def test_json_names_file_and_line(call: Run, docs: Path, model: Path) -> None:
    asked = call("ask", QUESTION, "--docs", docs, "--model", model, "--json", "--answers", "2")
    told = json.loads(asked.out)
    assert len(told["answers"]) == 2
    for answer in told["answers"]:
        text = (docs / answer["file"]).read_text()
        assert text[answer["start"] : answer["end"]] == answer["text"]
        assert answer["line"] == text.count("\n", 0, answer["start"]) + 1


def test_the_same_text_in_other_files_is_named(
    call: Run, docs: Path, model: Path, tmp_path: Path
) -> None:
    """Of a folder and of a library, for people and for programs; nothing where there is none."""
    library = tmp_path / "notes.library"
    shutil.copyfile(docs / "town.md", docs / "sub" / "town.md")
    assert call("docs", "add", library, docs, "--model", model).code == 0
    for option, folder in (("--docs", docs), ("--library", library)):
        asked = ["ask", QUESTION, option, folder, "--model", model, "--answers", "200"]
        shown = call(*asked).out
        told = json.loads(call(*asked, "--json").out)
        others = {answer["file"]: answer["same_text"] for answer in told["answers"]}
        assert others.pop("sub/street.txt") == []
        ((first, (other,)),) = others.items()
        assert {first, other["file"]} == {"town.md", "sub/town.md"}
        assert "in: sub/street.txt" not in shown
        assert f"     also in: {other['file']}:{other['line']}\n" in shown


def test_a_single_file_and_a_cache_elsewhere(
    call: Run, docs: Path, model: Path, tmp_path: Path
) -> None:
    file = docs / "town.md"
    asked = call("ask", QUESTION, "--docs", file, "--model", model, "--cache", tmp_path / "kept")
    assert asked.code == 0, asked.err
    assert "town.md:3" in asked.out
    assert list((tmp_path / "kept" / "folders").iterdir())
    assert not (tmp_path / "cache").exists()


def test_the_model_that_ships_is_the_default(
    call: Run,
    docs: Path,
    make_packed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_packed(name="realm-mini")
    monkeypatch.setattr(mini, "HERE", tmp_path)
    assert call("ask", QUESTION, "--docs", docs).code == 0
    assert call("ask", QUESTION, "--docs", docs, "--model", "realm-mini").code == 0
    (passages,) = (tmp_path / "cache" / "folders").glob("*/passages-*")
    assert call("ask", QUESTION, "--passages", passages).code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "found nothing to answer from; expected --docs FOLDER"),
        (("--docs", "{docs}", "--passages", "x"), "found --docs beside --passages"),
        (("--cache", "x", "--model", "{model}"), "found --cache without --docs"),
        (
            ("--docs", "{docs}/gone", "--model", "{model}"),
            "found no file or folder {docs}/gone; exp",
        ),
        (("--docs", "{docs}/photo.jpg", "--model", "{model}"), "is of no kind that is read"),
        (("--docs", "{docs}", "--model", "{docs}"), "found no checkpoint in {docs}"),
        (("--docs", "{docs}"), "found no weights of realm-mini"),
    ],
)
def test_what_cannot_be_asked_is_told(
    call: Run,
    docs: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.setattr(mini, "HERE", tmp_path)
    given = [option.format(docs=docs, model=model) for option in options]
    assert told.format(docs=docs) in call("ask", QUESTION, *given).message


def test_a_run_is_packed_and_asked(call: Run, model: Path, docs: Path, tmp_path: Path) -> None:
    whole = model.with_name("packed-whole")
    packed = call("pack", whole, "--out", tmp_path / "small")
    assert re.match(r"0\.\d MB in .*small \(the run's weights: 0\.\d MB\)\n", packed.out)
    assert "next: realm ask" in packed.err
    again = call("pack", whole, "--out", tmp_path / "small", "--quiet")
    assert again.out.startswith("already done: ")
    assert again.err == ""
    assert call("ask", QUESTION, "--docs", docs, "--model", tmp_path / "small").code == 0


def test_pack_says_that_it_left_another_models_calibration_behind(
    call: Run, model: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(model.with_name("packed-whole"), tmp_path / "whole")
    nothing = Calibrator(names=(), means=(), scales=(), weights=(), bias=0.0)
    other = Calibration(
        model_fingerprint="cafe" * 16,
        retriever="dense",
        num_passages=5,
        calibrator=nothing,
        min_probability=0.5,
    )
    save_calibration(whole, other)
    packed = call("pack", whole, "--out", tmp_path / "small", "--quiet")
    assert packed.code == 0
    assert "belongs to another model (cafecafecafe, this is" in packed.err
    assert len(packed.err.splitlines()) == 1
    assert not (tmp_path / "small" / "calibration.json").exists()


def test_a_run_of_claims_refuses_a_number_of_answers(
    call: Run, make_packed: Callable[..., Path]
) -> None:
    claims = make_packed(name="claims", task="classify")
    told = call("ask", "Fermat was a lawyer.", "--model", claims, "--answers", "2").message
    assert f"{claims} classifies claims: found --answers, expected none" in told
    told = call("ask", "A.", "--model", claims, "--answers", "2", "--min-probability", "0").message
    assert "found --answers and --min-probability, expected none" in told
