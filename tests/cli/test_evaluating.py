"""realm evaluate and compare, as a user calls them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.evaluation.retrievers import RETRIEVERS
from realm.mini import default_model

Run = Callable[..., Any]
World = Any


def questions(world: World) -> list[dict[str, Any]]:
    lines = (world / "questions.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def evaluated(world: World, call: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Evaluate the fine-tuned run, with more options; return (report, path of its file)."""
    folder = tmp_path_factory.mktemp("reports")
    command = ("evaluate", world / "questions.jsonl", "--config", world / "settings.toml")

    def evaluate(name: str, *more: object, model: str = "qa") -> tuple[dict[str, Any], Path]:
        out = folder / f"{name}.json"
        if not out.is_file():
            result = call(*command, "--model", world / model, "--out", out, *more)
            assert result.code == 0, result.err
        return json.loads(out.read_text("utf-8")), out

    return evaluate


def test_the_training_set_splits_the_questions(
    world: World, call: Run, evaluated: Run, tmp_path: Path
) -> None:
    """Half of the questions were trained on; a third more have an answer that was."""
    lines = questions(world)
    world.write_lines(tmp_path / "seen.jsonl", lines[:10])
    taught = [{**line, "question": "Whose street is it?"} for line in lines[10:16]]
    world.write_lines(tmp_path / "taught.jsonl", taught)
    train = ("--train", tmp_path / "seen.jsonl", "--train", tmp_path / "taught.jsonl")
    report, _ = evaluated("train", *train)
    groups = report["breakdowns"]["train_overlap"]["groups"]
    assert {name: group["num_questions"] for name, group in groups.items()} == {
        "question": 10,
        "answer only": 6,
        "none": 4,
    }
    assert [one["name"] for one in report["training_sets"]] == ["seen.jsonl", "taught.jsonl"]
    assert report["breakdowns"]["question_word"]["groups"]["who"]["num_questions"] == 20
    ranks = report["breakdowns"]["gold_rank"]["groups"]
    assert sum(group["num_questions"] for group in ranks.values()) == 20
    command = ("evaluate", world / "questions.jsonl", "--model", world / "qa", *train)
    shown = call(*command, "--set", "limit=5", "--config", world / "settings.toml").out
    assert "exact_match by training overlap" in shown
    assert re.search(r"^training set +seen.jsonl, 10 questions$", shown, re.MULTILINE)


def test_two_training_sets_of_one_name_are_told_apart(
    world: World, evaluated: Run, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    files = [
        world.write_lines(folder / "train.jsonl", questions(world)[:2])
        for folder in (tmp_path / "a", tmp_path)
    ]
    report, _ = evaluated("twice", "--train", files[0], "--train", files[1], "--set", "limit=2")
    assert [one["name"] for one in report["training_sets"]] == [str(file) for file in files]


def test_any_runs_retriever_is_a_baseline(world: World, evaluated: Run) -> None:
    report, _ = evaluated("ict", "--retriever", world / "ict")
    assert re.fullmatch(r"ict \([0-9a-f]{12}\)", report["retriever"])
    own, _ = evaluated("dense")
    assert own["retriever"] == "dense"
    assert report["model"] == own["model"]


def test_without_a_model_the_shipped_one_answers_and_keeps_its_indexes_in_the_cache(
    world: World, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
    passages = tmp_path / "passages"
    cut = call("split", world / "articles.jsonl", "--out", passages, "--tokenizer", default_model())
    assert cut.code == 0, cut.err
    command = ("evaluate", world / "questions.jsonl", "--passages", passages, "--json")
    settings = ("--set", "limit=4", "--set", "bootstrap_samples=100")

    def asked(retriever: str) -> tuple[dict[str, Any], set[str]]:
        ended = call(*command, *settings, "--retriever", retriever)
        assert ended.code == 0, ended.err
        kept = (tmp_path / "cache" / "realm-mini").iterdir()
        return json.loads(ended.out), {path.name for path in kept}

    words, was_kept = asked("bm25")
    assert was_kept == {"bm25"}, "passages are not embedded for a retriever that does not look"
    own, is_kept = asked("own")
    settings += ("--model", "realm-mini")
    named, is_kept_by_name = asked("own")
    assert (named["metrics"], is_kept_by_name) == (own["metrics"], is_kept)
    assert is_kept == {"bm25", "other-passages"}
    assert {report["model"]["name"] for report in (own, words)} == {"realm-mini"}
    assert [own["retriever"], words["retriever"]] == ["hybrid", "bm25"]


def test_closed_book_needs_no_reader_and_says_nothing_of_passages(
    world: World, evaluated: Run
) -> None:
    alone, _ = evaluated("closed", "--retriever", "closed-book", model="pretrain")
    assert set(alone["metrics"]) == {"exact_match", "f1"}
    assert (alone["retriever"], alone["model"]["name"]) == ("closed-book", "pretrain")
    assert all(one["prediction"] for one in alone["questions"])
    lent, _ = evaluated("lent", "--retriever", "closed-book", "--encoder", world / "pretrain")
    assert lent["questions"] == alone["questions"]
    assert lent["model"] == alone["model"]


def test_dropped_answers_are_counted(world: World, call: Run, tmp_path: Path) -> None:
    lines = questions(world)[:4]
    lines[0]["answers"] = ["one two three four five six"]
    asked = world.write_lines(tmp_path / "asked.jsonl", lines)
    command = ("evaluate", asked, "--model", world / "qa", "--set", "max_answer_tokens=5")
    report = json.loads(call(*command, "--json", "--set", "bootstrap_samples=100").out)
    assert report["dropped"] == {"long answers": 1, "questions without a short answer": 1}
    assert report["split"]["num_asked"] == 3


def test_compare_tells_the_difference_of_two_runs(world: World, call: Run, evaluated: Run) -> None:
    (first, a), (second, b) = evaluated("dense"), evaluated("ict", "--retriever", world / "ict")
    result = call("compare", a, b, "--json", "--samples", "100")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert set(found["metrics"]) == set(first["metrics"])
    for name, one in found["metrics"].items():
        assert one["first"] == pytest.approx(first["metrics"][name]["mean"])
        assert one["second"] == pytest.approx(second["metrics"][name]["mean"])
        assert one["difference"] == pytest.approx(one["first"] - one["second"])
        assert one["low"] <= one["difference"] <= one["high"]
    shown = call("compare", a, b).out
    assert re.search(r"^metric +A +B +A - B .*McNemar p$", shown, re.MULTILINE)
    assert re.search(r"^exact_match +\d", shown, re.MULTILINE)


def test_compare_with_closed_book_compares_answers(call: Run, evaluated: Run) -> None:
    _, a = evaluated("dense")
    _, b = evaluated("closed", "--retriever", "closed-book", model="pretrain")
    assert set(json.loads(call("compare", a, b, "--json").out)["metrics"]) == {"exact_match", "f1"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("limit=6",), r"found asked questions 20 \(\w+\) and 6 \(\w+\), expected the same; evalu"),
        (("normalizer=squad",), "found normaliser squad-orqa-v1 and squad-v1, expected the same"),
    ],
)
def test_reports_on_other_questions_are_refused(
    call: Run, evaluated: Run, settings: tuple[str, ...], told: str
) -> None:
    _, a = evaluated("dense")
    _, b = evaluated(settings[0], *(part for one in settings for part in ("--set", one)))
    assert re.search(f"{a} and {b} do not compare: {told}", call("compare", a, b).message)


def test_a_report_of_another_corpus_is_refused(world: World, call: Run, evaluated: Run) -> None:
    _, a = evaluated("dense")
    _, b = evaluated("other", "--passages", world / "other")
    assert "found corpus" in call("compare", a, b).message


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("compare no.json questions.jsonl", "found no file no.json, expected a report"),
        ("compare questions.jsonl questions.jsonl", "expected a report of `realm evaluate"),
        ("compare qa/sources.json qa/sources.json", "found kind None, expected a report"),
        ("evaluate questions.jsonl --model qa --retriever bm52", "found no retriever 'bm52'; exp"),
        ("evaluate questions.jsonl --model qa --retriever mlm", "has no embedder (found: encoder)"),
        ("evaluate questions.jsonl --model qa --retriever closed-book", "name a run of `realm pre"),
        ("evaluate questions.jsonl", "found neither --model nor --passages; expected --model RUN"),
        ("evaluate questions.jsonl --retriever closed-book", "expected a run with an encoder"),
        ("evaluate questions.jsonl --model qa --encoder mlm", "found --encoder beside --retriever"),
        ("evaluate questions.jsonl --model qa --train no.jsonl", "found no file no.jsonl"),
        (
            "evaluate questions.jsonl --model mlm --retriever closed-book",
            "does not say which passages it uses; pass --passages FOLDER",
        ),
    ],
)
def test_what_is_wrong_is_told(
    world: World, call: Run, monkeypatch: pytest.MonkeyPatch, command: str, told: str
) -> None:
    monkeypatch.chdir(world.folder)
    assert told in call(*command.split()).message


def test_the_help_names_every_retriever(call: Run) -> None:
    shown = " ".join(call("evaluate", "--help").out.split())
    assert [name for name in (*RETRIEVERS, "closed-book") if name not in shown] == []


@pytest.mark.parametrize("option", ["--train", "--encoder"])
def test_what_is_of_no_use_with_claims_is_refused(
    call: Run, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr("realm.cli.claim_commands.is_of_claims", lambda _: True)
    told = call("evaluate", "claims.jsonl", "--model", "runs/claims", option, "other").message
    assert f"runs/claims classifies claims: found {option}, expected it with a run" in told
