"""What is wrong ends with exit code 2 and one message; what was made before stays as it was."""

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realm.storage import read_json, write_json

Run = Callable[..., Any]
World = Any

FEW = ("--set", "steps=1", "--set", "batch_size=2", "--set", "threads=1", "--quiet")


@pytest.fixture(autouse=True)
def _nothing_is_lost(world: World) -> Iterator[None]:
    """Look after each test that everything that was made before stands as it did."""
    before = world.stats(world.folder)
    yield
    assert world.stats(world.folder) == before


@pytest.fixture
def split(world: World, call: Run, tmp_path: Path) -> Callable[..., Any]:
    """Run `realm split` on one file with these bytes."""

    def split(content: bytes, *options: str, name: str = "bad.jsonl") -> Any:
        (tmp_path / name).write_bytes(content)
        command = ("split", tmp_path / name, "--tokenizer", world / "vocab.txt")
        return call(*command, "--out", tmp_path / "out", *options)

    return split


@pytest.fixture
def refuses(world: World, call: Run, tmp_path: Path) -> Callable[..., None]:
    """Check that a command fails with a message that has all these parts, and makes no folder."""

    def refuses(*command: object, told: tuple[str, ...]) -> None:
        before = world.visible(tmp_path)
        result = call(*command)
        assert result.out == ""
        message = result.message
        assert [part for part in told if part not in message] == [], message
        assert len(message) < 1_500
        assert world.visible(tmp_path) == before

    return refuses


def articles_of(world: World) -> list[bytes]:
    return (world / "articles.jsonl").read_bytes().splitlines(keepends=True)


# Corpora


def test_a_missing_file(world: World, refuses: Run, tmp_path: Path) -> None:
    for name in ("gone.jsonl", "gone"):
        command = ("split", tmp_path / name, "--tokenizer", world / "vocab.txt")
        told = (f"found no {tmp_path / name}", "expected JSON lines with id, title and text")
        refuses(*command, "--out", tmp_path / "out", told=told)


def test_a_file_of_no_kind_that_is_read(split: Run) -> None:
    assert "bad.docx is of no kind that is read; expected" in split(b"x", name="bad.docx").message


def test_a_truncated_archive(world: World, split: Run, tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(articles_of(world)))
    told = split(whole[: len(whole) // 2], name="cut.jsonl.gz").message
    assert "cut.jsonl.gz is truncated" in told
    assert "expected a whole gzip file. Fetch it again" in told
    assert world.visible(tmp_path) == ["cut.jsonl.gz"]


BAD_LINES = {
    "invalid UTF-8": (b'{"text": "\xff\xfe"}\n', "found byte 0xff at column 11, expected UTF-8"),
    "no text": (b'{"title": "A"}\n', "found the fields ['title'], expected a string in 'text'"),
    "bad JSON": (b'{"text": \n', "expected one object such as"),
    "wrong type": (b"[1]\n", "found [1], expected one object such as"),
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_is_left_out_and_counted(world: World, split: Run, reason: str) -> None:
    first, second, *_ = articles_of(world)
    result = split(first + BAD_LINES[reason][0] + second)
    assert result.code == 0
    assert result.out.startswith("2 articles, ")
    assert f"left out 1:\n         1  {reason}  bad.jsonl:2\n" in result.err


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_stops_where_that_is_asked_for(
    world: World, split: Run, tmp_path: Path, reason: str
) -> None:
    first, second, *_ = articles_of(world)
    line, told = BAD_LINES[reason]
    message = split(first + line + second, "--on-error", "fail").message
    assert message.startswith(f"bad.jsonl:2: {reason}: found ")
    assert told in message
    assert "mend it, or pass --on-error skip" in message
    assert world.visible(tmp_path) == ["bad.jsonl"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"title": "A"}\n', b'{"text": "  "}\n'])
def test_an_empty_corpus(world: World, split: Run, tmp_path: Path, content: bytes) -> None:
    assert "found no article in bad.jsonl" in split(content).message
    assert world.visible(tmp_path) == ["bad.jsonl"]


def test_one_passage_can_be_asked_but_not_trained_on(
    world: World, call: Run, refuses: Run, split: Run, tmp_path: Path
) -> None:
    assert split(articles_of(world)[0]).out.startswith("1 article, 1 passage, ")
    one = tmp_path / "out"
    assert call("mask", one, "--out", tmp_path / "examples").code == 0
    told = ("has 1 passage of two or more sentences", "needs at least 2", "Add articles")
    refuses("ict", one, "--init", "scratch:1x32", "--out", tmp_path / "ict", *FEW, told=told)
    told = ("num_candidates=8 needs at least 8 passages", "found 1", "--set num_candidates=N")
    command = ("pretrain", tmp_path / "examples", one, "--embedder", world / "ict")
    command = (*command, "--encoder", world / "mlm", "--out", tmp_path / "pretrain")
    refuses(*command, *FEW, told=told)
    shutil.copytree(world / "qa", tmp_path / "qa")
    assert call("ask", "Who was it?", "--model", tmp_path / "qa", "--passages", one).code == 0


# Questions and sentences


@pytest.mark.parametrize("question", ["", "   ", "\t\n", "☃"])
def test_an_empty_question(world: World, refuses: Run, question: str) -> None:
    told = ("found no word that the model knows", "expected some words")
    refuses("ask", question, "--model", world / "qa", told=told)


def test_a_question_of_5000_characters(world: World, refuses: Run) -> None:
    told = ("has 2500 wordpieces (5,000 characters), expected at most 62; shorten it",)
    refuses("ask", "a " * 2_500, "--model", world / "qa", told=told)


@pytest.mark.parametrize(
    ("sentence", "options", "told"),
    [
        ("The town was", [], ("found no [MASK]", "expected at least one, e.g.")),
        ("The [mask] was", [], ("found no [MASK]", "expected at least one, e.g.")),
        ("[MASK]", [], ("found nothing but [MASK]", "expected a sentence around it")),
        ("A [MASK] " + "a " * 400, [], ("found 402 wordpieces", "at most 94", "Shorten")),
        ("A [MASK].", ["--answer", "a", "--answer", "b"], ("found 2 answers for 1 blank in",)),
        ("A [MASK].", ["--answer", ""], ("found answer ''", "expected at least one word")),
        ("A [MASK].", ["--candidates", "500"], ("expected 2 to 81", "set it with --candidates")),
        ("A [MASK].", ["--candidates", "1"], ("'--candidates'", "Look at `realm explain --help`")),
    ],
)
def test_a_sentence_that_cannot_be_explained(
    world: World, refuses: Run, sentence: str, options: list[str], told: tuple[str, ...]
) -> None:
    refuses("explain", sentence, "--model", world / "pretrain", *options, told=told)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ((), "found no sentence, expected a text with [MASK]"),
        (("A [MASK].", "--out", "table.md"), "found --out without --sentences"),
        (("A [MASK].", "--sentences", "s.jsonl"), "found --sentences beside SENTENCE or --answer"),
        (("--answer", "a", "--sentences", "s.jsonl"), "expected one of them"),
        (("--sentences", "gone.jsonl"), "found no file gone.jsonl, expected sentences"),
    ],
)
def test_sentences_that_cannot_be_explained(
    world: World, refuses: Run, command: tuple[str, ...], told: str
) -> None:
    refuses("explain", *command, "--model", world / "pretrain", told=(told,))


BAD_QUESTIONS = {
    "": "found no line, expected one question a line like {",
    "\n\n": "found no line, expected one question a line like {",
    "who?\n": ":1: found no JSON",
    '{"question": "who"}\n': ":1: found no answers among keys ['question'], expected `answers`",
    '{"question": "who", "answers": []}\n': ":1: found no answers",
    '{"question": " ", "answers": ["he"]}\n': ":1: found ' ' as question, expected a text",
    '{"question": "who", "answers": [1]}\n': ":1: found 1 in answers, expected strings",
    '{"question": "a", "answers": ["b"]}\n[1]\n': ":2: found a JSON list, expected an object",
    '{"question": "who", "answer_patterns": ["("]}\n': ":1: found answer pattern '(', expected",
}


@pytest.mark.parametrize("content", BAD_QUESTIONS)
def test_questions_that_are_none(world: World, refuses: Run, tmp_path: Path, content: str) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(content, encoding="utf-8")
    told = (str(asked), BAD_QUESTIONS[content])
    refuses(*world.command("finetune", tmp_path / "qa", questions=asked), told=told)
    refuses("evaluate", asked, "--model", world / "qa", told=told)


def test_questions_none_of_which_can_be_answered(
    world: World, refuses: Run, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.jsonl"
    world.write_lines(asked, [{"question": "a " * 3_000, "answers": ["b"]}])
    told = ("none of 1 question could be answered", "expected at most 62; shorten it")
    refuses("evaluate", asked, "--model", world / "qa", told=told)


# Settings


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("stepz=3", ("[ict] there is no setting 'stepz'", "there are [", "'steps'")),
        ("optimizer.rate=1", ("no setting 'optimizer.rate'", "'learning_rate'")),
        ("steps=many", ("[ict] steps: found 'many'", "should be a valid integer")),
        ("steps=0", ("[ict] steps: found 0", "greater than or equal to 1")),
        ("seed=1.5", ("[ict] seed: found 1.5",)),
        ("optimizer=3", ("[ict] optimizer: found 3",)),
        ("steps.deep=3", ("[ict] steps: found {'deep': 3}",)),
        ("optimizer.learning_rate=nan", ("optimizer.learning_rate", "finite")),
        ("steps", ("--set 'steps'", "expected key=value, e.g. --set batch_size=16")),
        ("pooling=max", ("[ict] pooling: found 'max'", "'pooler' or 'mean'")),
    ],
)
def test_a_setting_that_is_wrong(
    world: World, refuses: Run, tmp_path: Path, setting: str, told: tuple[str, ...]
) -> None:
    refuses(*world.command("ict", tmp_path / "out"), "--set", setting, told=told)


def test_a_negative_seed(world: World, refuses: Run, tmp_path: Path) -> None:
    command = ("align", world / "examples", "--model", world / "pretrain", "--seed", "-1")
    refuses(*command, "--out", tmp_path / "out", told=("greater than or equal to 0",))
    told = ("[evaluate] seed: found -1", "greater than or equal to 0")
    command = ("evaluate", world / "questions.jsonl", "--model", world / "qa")
    refuses(*command, "--set", "seed=-1", told=told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[ict]\nstepz = 3\n", ("[ict] there is no setting 'stepz'", "there are [")),
        ("[ict.optimizer]\nrate = 3\n", ("no setting 'optimizer.rate'", "'learning_rate'")),
        ("[icct]\nsteps = 3\n", ("has no use for ['icct']", "there are tables ['split'")),
        ("steps = 3\n", ("has no use for ['steps']", "there are tables ['split'")),
        ("ict = 3\n", ("found ict = 3, expected a table [ict]",)),
        ("[ict]\nsteps = 'many'\n", ("[ict] steps: found 'many'",)),
        ("[ict]\nsteps = true\noptimizer = 'fast'\n", ("optimizer: found 'fast'",)),
        ("this is no TOML\n", ("is not TOML", "at line 1")),
        ("[ict]\nsteps = 3\nsteps = 4\n", ("is not TOML", "at line 3")),
    ],
)
def test_a_settings_file_that_is_wrong(
    world: World, refuses: Run, tmp_path: Path, content: str, told: tuple[str, ...]
) -> None:
    (tmp_path / "bad.toml").write_text(content, encoding="utf-8")
    command = [*world.command("ict", tmp_path / "out")[:-1], tmp_path / "bad.toml"]
    refuses(*command, told=told)


def test_a_settings_file_that_cannot_be_read(world: World, refuses: Run, tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, told in (
        ("gone.toml", "found no config file"),
        ("", "Is a directory"),
        ("binary.toml", "is not TOML"),
    ):
        command = [*world.command("ict", tmp_path / "out")[:-1], tmp_path / name]
        refuses(*command, told=(told, str(tmp_path / name)))


@pytest.mark.parametrize(
    ("init", "told"),
    [
        ("gone", ("found no encoder 'gone'", "expected minilm, scratch:LAYERSxWIDTH, a folder")),
        ("scratch:1x", ("expected scratch:LAYERSxWIDTH, e.g. scratch:2x128",)),
        ("scratch:0x32", ("expected scratch:LAYERSxWIDTH, e.g. scratch:2x128",)),
        ("scratch:1x100", ("width 100 must be a multiple of 32",)),
        ('a"b\\c', ("found no encoder",)),
    ],
)
def test_an_encoder_that_is_none(
    world: World, refuses: Run, tmp_path: Path, init: str, told: tuple[str, ...]
) -> None:
    refuses("ict", world / "passages", "--init", init, "--out", tmp_path / "out", told=told)


@pytest.mark.parametrize(
    ("tagger", "told"),
    [
        ("nope", ("found no tagger 'nope'", "expected rules, trained, spacy:PIPELINE, hf:MODEL")),
        ("trained:news", ("found no convention 'news'", "expected one of wiki, web, social")),
        ("rules:more", ("found no tagger 'rules:more'",)),
        ('a"b\\c', ("found no tagger",)),
        ("spacy:gone", ("spacy:gone",)),
        ("jsonl:/gone.jsonl", ("found no file /gone.jsonl", "expected lines like")),
    ],
)
def test_a_tagger_that_is_none(
    world: World, refuses: Run, tmp_path: Path, tagger: str, told: tuple[str, ...]
) -> None:
    command = world.command("mask", tmp_path / "out")
    refuses(*command, "--tagger", tagger, told=told)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bad", (":1: found no JSON", 'expected {"id": "12#0"')),
        ('{"id": "town-0#0", "spans": [[3, 1, "X"]]}', (":1: found span [3, 1,", "0 <= start")),
        ('{"id": "town-0#0", "spans": [[0, 6000, "X"]]}', (":1: found span 0..6000", "expected")),
        ('{"id": "gone#0", "spans": [[0, 6, "X"]]}', ("found nothing to mask", "expected at")),
    ],
)
def test_spans_that_are_none(
    world: World, refuses: Run, tmp_path: Path, line: str, told: tuple[str, ...]
) -> None:
    (tmp_path / "tags.jsonl").write_text(line + "\n", encoding="utf-8")
    command = world.command("mask", tmp_path / "out")
    refuses(*command, "--tagger", f"jsonl:{tmp_path / 'tags.jsonl'}", told=told)


def test_more_candidates_than_passages(world: World, refuses: Run, tmp_path: Path) -> None:
    told = ("num_candidates=500 needs at least 500 passages", "found 80", "lower it with")
    command = world.command("pretrain", tmp_path / "out")
    refuses(*command, "--set", "num_candidates=500", told=told)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["nope"], ("No such command 'nope'", "Look at `realm --help`")),
        (["split"], ("Missing argument 'INPUT'", "Look at `realm split --help`")),
        (["ict", "x"], ("Missing option '--out'", "Look at `realm ict --help`")),
        (["mask", "x", "--out", "y", "--scheme", "z"], ("'--scheme'", "'salient'")),
        (["split", "x", "--out", "y", "--processes", "two"], ("'--processes'", "integer")),
        (["ask", "x", "--model", "y", "--fast"], ("No such option: --fast",)),
        (["ask", "a", "b", "--model", "y"], ("unexpected extra argument",)),
    ],
)
def test_a_command_that_cannot_be_parsed(
    refuses: Run, command: list[str], told: tuple[str, ...]
) -> None:
    refuses(*command, told=told)


# Folders


def test_another_corpus_is_answered_from_once_it_is_embedded(
    world: World, call: Run, tmp_path: Path
) -> None:
    shutil.copytree(world / "qa", tmp_path / "qa")
    for verb in (("ask", "Who was it?"), ("evaluate", world / "questions.jsonl")):
        command = (*verb, "--model", tmp_path / "qa", "--passages", world / "other", "--json")
        assert json.loads(call(*command).out)
    (made,) = (tmp_path / "qa" / "other-passages").iterdir()
    assert made.joinpath("manifest.json").is_file()


def test_an_unfinished_run_of_another_corpus_is_not_resumed(
    world: World, call: Run, refuses: Run, tmp_path: Path
) -> None:
    run = tmp_path / "ict"
    shutil.copytree(world / "ict", run)
    (run / "manifest.json").unlink()
    before = world.stats(run)
    told = ("holds an unfinished run with other inputs.passages", "to resume", "--rebuild")
    refuses(*world.command("ict", run, passages=world / "other"), told=told)
    told = ("holds an unfinished run with other settings.seed", "with the same settings to resume")
    refuses(*world.command("ict", run), "--set", "seed=1", told=told)
    assert world.stats(run) == before
    assert "resumed from 4" in call(*world.command("ict", run)).out


def test_an_index_of_another_corpus_is_not_overwritten(
    world: World, refuses: Run, tmp_path: Path
) -> None:
    shutil.copytree(world / "index", tmp_path / "index")
    before = world.stats(tmp_path)
    told = ("was made from other input passages", "choose another --out, or pass --rebuild")
    command = world.command("index", tmp_path / "index", passages=world / "other")
    refuses(*command, told=told)
    assert world.stats(tmp_path) == before


def test_examples_of_another_corpus(world: World, call: Run, refuses: Run, tmp_path: Path) -> None:
    assert call("mask", world / "other", "--out", tmp_path / "examples").code == 0
    command = ("mlm", world / "passages", "--init", "scratch:1x32", "--out", tmp_path / "out")
    told = ("was masked from other passages than", "run `realm mask` on these")
    refuses(*command, "--examples", tmp_path / "examples", *FEW, told=told)


def test_a_folder_of_another_format_version(
    world: World, call: Run, refuses: Run, tmp_path: Path
) -> None:
    for name, command in (
        ("other", ("mask", tmp_path / "other", "--out", tmp_path / "out")),
        ("qa/checkpoints/step-4", ("ask", "Who was it?", "--model", tmp_path / "qa")),
        ("pretrain/checkpoints/step-4", ("explain", "A [MASK].", "--model", tmp_path / "pretrain")),
    ):
        first = name.split("/")[0]
        shutil.copytree(world / first, tmp_path / first)
        manifest = tmp_path / name / "manifest.json"
        write_json(manifest, read_json(manifest) | {"format_version": 7})
        refuses(*command, told=(f"{tmp_path / name} has format version 7", "reads 1", "make it ag"))
    command = world.command("split", tmp_path / "other", articles=world / "other.jsonl")
    refuses(*command, told=("has format version 7",))
    assert call(*command, "--rebuild").code == 0


WRONG_KINDS = (
    ("mask examples --out OUT", "holds 'examples', expected 'passages'; are two arguments"),
    ("mask ict --out OUT", "holds 'run', expected 'passages'"),
    ("mask gone --out OUT", "folder gone; expected a published passages folder (of realm split)"),
    ("mask articles.jsonl --out OUT", "found the file articles.jsonl; expected a published passag"),
    ("pretrain articles.jsonl passages --embedder ict --encoder mlm --out OUT", "(of realm mask)"),
    ("ict examples --init scratch:1x32 --out OUT", "holds 'examples', expected 'passages'"),
    ("ict passages --init scratch:1x32 --out examples", "'run' or nothing; choose another --out"),
    ("ict passages --init scratch:1x32 --out passages --rebuild", "holds 'passages', expected"),
    ("pretrain passages examples --embedder ict --encoder mlm --out OUT", "wrong order"),
    ("pretrain examples passages --embedder mlm --encoder ict --out OUT", "has no embedder"),
    ("pretrain examples passages --embedder gone --encoder mlm --out OUT", "found no folder gone"),
    ("index passages ict --out OUT", "found no checkpoint in passages; expected a run"),
    ("index mlm passages --out OUT", "has no embedder (found: encoder); expected one made by"),
    ("finetune questions.jsonl passages --model mlm --out OUT", "has no embedder"),
    ("finetune questions.jsonl passages --model ict --out OUT", "has no encoder"),
    ("finetune passages questions.jsonl --model pretrain --out OUT", "found no file passages"),
    ("finetune articles.jsonl passages --model pretrain --out OUT", "articles.jsonl:1: found keys"),
    ("ask who --model passages", "found no checkpoint in passages; expected a run"),
    ("ask who --model gone", "found no folder gone; expected a run"),
    ("ask who --model ict", "has no reader (found: embedder); expected one made by `realm fine"),
    ("ask who --model pretrain", "has no reader (found: embedder, encoder)"),
    ("ask who --model qa --passages examples", "holds 'examples', expected 'passages'"),
    ("align examples --out OUT --model ict", "has no encoder (found: embedder)"),
    ("align passages --out OUT --model pretrain", "holds 'passages', expected 'examples'"),
    ("align examples --passages ict --out OUT --model pretrain", "expected 'passages'"),
    ("explain a[MASK] --model ict", "has no encoder (found: embedder); expected one made by"),
    ("explain a[MASK] --model qa", "has no encoder (found: embedder, reader)"),
    ("explain a[MASK] --model mlm", "has no embedder (found: encoder)"),
    ("evaluate articles.jsonl --model qa", "articles.jsonl:1: found keys"),
    ("evaluate questions.jsonl --model qa --out passages", "is a directory"),
)


@pytest.mark.parametrize(("command", "told"), WRONG_KINDS)
def test_a_folder_of_the_wrong_kind(
    world: World,
    refuses: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    told: str,
) -> None:
    monkeypatch.chdir(world.folder)
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command.split()]
    refuses(*words, told=(told,))


@pytest.mark.parametrize("verb", ["split", "mask", "ict", "index", "finetune"])
def test_an_out_folder_that_is_not_ours_is_left_alone(
    world: World, refuses: Run, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all I have", encoding="utf-8")
    (tmp_path / "file").write_text("mine, too", encoding="utf-8")
    before = world.stats(tmp_path)
    for name in ("mine", "file"):
        told = (f"{tmp_path / name} exists and is not a folder that realm finished",)
        command = world.command(verb, tmp_path / name)
        refuses(*command, told=(*told, "choose another --out"))
        refuses(*command, "--rebuild", told=(*told, "choose another --out"))
    refuses(*world.command(verb, tmp_path / "file" / "in"), told=("Not a directory",))
    assert world.stats(tmp_path) == before


def test_an_empty_out_folder_is_filled(world: World, call: Run, tmp_path: Path) -> None:
    assert call(*world.command("split", tmp_path)).code == 0


# Disks


@pytest.mark.parametrize("verb", ["split", "mask", "ict", "index", "pretrain", "finetune"])
@pytest.mark.parametrize("good", [0, 3])
def test_a_full_disk_loses_nothing(
    world: World, call: Run, tmp_path: Path, verb: str, good: int
) -> None:
    """The disk is full from the fourth fsync on, or from the first."""
    synced: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(handle)
        if len(synced) > good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    command = world.command(verb, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        told = call(*command).message
    assert "No space left on device" in told
    assert "ree space" in told
    assert not list(tmp_path.rglob("out/manifest.json"))
    result = call(*command)
    assert result.code == 0, result.err
    assert call(*command).out.startswith("already done: ")


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_loses_nothing(
    world: World, call: Run, tmp_path: Path
) -> None:
    """The library that writes the weights has an error of its own for it."""
    from safetensors import SafetensorError

    from realm.checkpoint import checkpoints

    real, written = checkpoints.save_file, list[Path]()

    def save_file(tensors: dict[str, Any], path: Path) -> None:
        written.append(path)
        if len(written) > 2:  # step 2 has model and optimizer, step 4 has neither
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(tensors, path)

    command = world.command("ict", tmp_path / "ict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save_file", save_file)
        told = call(*command).message
    assert "No space left on device" in told
    assert "Free space" in told
    assert world.visible(tmp_path / "ict" / "checkpoints") == ["step-2"]
    assert "resumed from 2" in call(*command).out
    ended = [run / "checkpoints" / "step-4" for run in (tmp_path / "ict", world / "ict")]
    once, twice = ((path / "model.safetensors").read_bytes() for path in ended)
    assert once == twice


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 48 KiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(mounted)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small disk; the test above simulates one")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=False)


@pytest.mark.parametrize("verb", ["split", "mask", "ict", "pretrain", "finetune"])
def test_a_small_disk_loses_nothing_and_a_larger_one_goes_on(
    world: World, call: Run, disk: Path, verb: str
) -> None:
    (disk / "mine").write_bytes(bytes(20_000))
    command = world.command(verb, disk / "out")
    told = call(*command).message
    assert "No space left on device" in told
    assert "Free space" in told
    assert not (disk / "out" / "manifest.json").exists()
    assert (disk / "mine").read_bytes() == bytes(20_000)
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    result = call(*command)
    assert result.code == 0, result.err


def test_a_report_that_cannot_be_written_is_still_printed(
    world: World, call: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    command = ("evaluate", world / "questions.jsonl", "--model", world / "qa", "--set", "limit=2")
    result = call(*command, "--out", tmp_path / "file" / "report.json")
    assert "cannot write the report" in result.message
    assert "exact_match" in result.out
    assert world.visible(tmp_path) == ["file"]


@pytest.mark.parametrize("verb", ["split", "mask", "ict", "index"])
def test_a_folder_that_cannot_be_written_in(
    world: World, refuses: Run, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    command = world.command(verb, tmp_path / "out")
    monkeypatch.setattr(Path, "mkdir", refuse)
    refuses(*command, told=("Permission denied", str(tmp_path), "permissions"))


def test_a_read_only_folder(world: World, refuses: Run, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the test above simulates it")
    (tmp_path / "locked").mkdir(mode=0o500)
    told = ("Permission denied", "mend the permissions")
    refuses(*world.command("split", tmp_path / "locked" / "out"), told=told)


def test_a_file_that_cannot_be_read(
    world: World, refuses: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "articles.jsonl":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    command = world.command("split", tmp_path / "out")
    monkeypatch.setattr(Path, "open", refuse)
    told = (f"cannot read {world / 'articles.jsonl'}", "Permission denied", "mend its permissions")
    refuses(*command, told=told)


# The same in a process of its own


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("split gone.jsonl --tokenizer vocab.txt --out OUT", "error: found no gone.jsonl; expect"),
        ("mask examples --out OUT", "error: examples holds 'examples', expected 'passages'"),
        ("ict passages --set stepz=1 --out OUT", "error: [ict] there is no setting 'stepz'"),
        ("ict passages", "error: Missing option '--out'. For example: `realm ict passages/ --out "),
    ],
)
def test_a_real_process_ends_with_code_2_and_one_line(
    world: World, tmp_path: Path, command: str, told: str
) -> None:
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command.split()]
    result = subprocess.run(
        [sys.executable, "-m", "realm", *words],
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(told)
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
