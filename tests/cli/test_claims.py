"""Claims on the command line: train, ask, evaluate; what is wrong ends with code 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
World = Any
FEW = """
[classify]
steps = 3
batch_size = 4
num_passages = 3
threads = 1
autocast = "none"
held_out = 0.1
[evaluate]
bootstrap_samples = 100
"""


@pytest.fixture(scope="module")
def claims(world: World, call: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with claims of the world, and a run trained on them."""
    folder = tmp_path_factory.mktemp("claims")
    told = [
        {"claim": f"{world.articles()[2 * number]['title']} is a town", "label": label}
        for number, label in enumerate(["true", "false"] * 10)
    ]
    world.write_lines(folder / "claims.jsonl", told)
    (folder / "settings.toml").write_text(FEW, encoding="utf-8")
    result = call(*training(world, folder))
    assert result.code == 0, result.err
    return folder


def training(world: World, folder: Path, out: str = "run") -> list[object]:
    return [
        *("finetune", folder / "claims.jsonl", world / "passages", "--task", "classify"),
        *("--model", world / "pretrain", "--out", folder / out),
        *("--config", folder / "settings.toml"),
    ]


def test_training_is_told_and_free_the_second_time(world: World, call: Run, claims: Path) -> None:
    again = call(*training(world, claims))
    assert again.code == 0
    assert "already done" in again.out
    assert 'next: realm ask "..." --model' in again.err


def test_a_claim_is_answered_with_labels_and_passages(call: Run, claims: Path) -> None:
    shown = call("ask", "Doba is a town", "--model", claims / "run")
    assert shown.code == 0, shown.err
    assert "true" in shown.out
    assert "p(z|x)=" in shown.out
    told = call("ask", "Doba is a town", "--model", claims / "run", "--json", "--read", 2)
    found = json.loads(told.out)
    assert {one["label"] for one in found["labels"]} == {"true", "false"}
    assert sum(one["probability"] for one in found["labels"]) == pytest.approx(1.0)
    assert all(one["passage"]["text"] for one in found["labels"])
    refused = call("ask", "Doba", "--model", claims / "run", "--min-probability", 0.5)
    assert "classifies claims: found --min-probability" in refused.message


def test_claims_are_evaluated(call: Run, claims: Path, tmp_path: Path) -> None:
    command = ["evaluate", claims / "claims.jsonl", "--model", claims / "run"]
    command += ["--config", claims / "settings.toml"]
    shown = call(*command, "--out", tmp_path / "report.json")
    assert shown.code == 0, shown.err
    assert "accuracy" in shown.out
    assert "precision  recall" in shown.out
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert found["split"]["num_asked"] == 20
    assert found["settings"]["num_passages"] == 3, "as many as in training"
    assert sum(sum(row.values()) for row in found["confusion"].values()) == 20
    again = call(*command, "--json", "--retriever", "bm25", "--set", "limit=5")
    assert again.code == 0, again.err
    told = json.loads(again.out)
    assert (told["retriever"], told["split"]["num_asked"]) == ("bm25", 5)


def test_the_settings_of_both_tasks_stand_in_the_help(call: Run) -> None:
    told = call("finetune", "--help").out
    assert "--task" in told
    assert "With --task classify" in " ".join(told.split())


BAD = {
    "one label": ['{"claim": "a town", "label": "true"}'] * 2,
    "no label": ['{"claim": "a town"}'],
    "no claim": ['{"label": "true"}'],
    "questions": ['{"question": "what", "answers": ["a town"]}'],
    "no json": ["true"],
    "nothing": [],
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_holds_no_claims_is_refused(
    world: World, call: Run, claims: Path, tmp_path: Path, name: str
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f"{line}\n" for line in BAD[name]), encoding="utf-8")
    (tmp_path / "claims.jsonl").write_bytes(bad.read_bytes())
    (tmp_path / "settings.toml").write_text(FEW, encoding="utf-8")
    assert "expected" in call(*training(world, tmp_path)).message
    assert not (tmp_path / "run").exists()
    if name != "one label":
        assert "expected" in call("evaluate", bad, "--model", claims / "run").message


def test_what_does_not_fit_together_is_refused(
    world: World, call: Run, claims: Path, tmp_path: Path
) -> None:
    other = world.write_lines(tmp_path / "other.jsonl", [{"claim": "a town", "label": "maybe"}])
    told = call("evaluate", other, "--model", claims / "run").message
    assert "found label 'maybe', expected one that the run was trained with" in told
    answers = call("evaluate", claims / "claims.jsonl", "--model", world / "qa").message
    assert "found keys ['claim', 'label'] and no question" in answers
    assert "`realm finetune --task classify`" in answers
    told = call(*training(world, claims, "new"), "--also", other).message
    assert "--also" in told
    told = call(*training(world, claims, "new"), "--set", "span_hidden=8").message
    assert "there is no setting 'span_hidden'" in told
    empty = call("ask", "", "--model", claims / "run").message
    assert "no word that the model knows in the claim" in empty
