"""The recipe that trains the tagger runs from annotated sentences to a file that tags."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import realm
from realm.checkpoint.folders import MINILM_PACKAGE
from realm.masking.trained.weights import load_weights

RECIPE = Path(__file__).parents[2] / "reproductions" / "tagger"
SETS = {
    "uner_en_ewt": ("PER", "LOC"),
    "wnut17": ("person", "location"),
    "crossner_politics": ("politician", "country"),
    "crossner_science": ("scientist", "country"),
    "crossner_music": ("musicalartist", "country"),
    "crossner_literature": ("writer", "country"),
    "crossner_ai": ("researcher", "country"),
}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ner")
    for name, (person, place) in SETS.items():
        row = {
            "tokens": ["Ada", "Lovelace", "did", "n't", "see", "Rome", "(", "Italy", ")", "."],
            "tags": [f"B-{person}", f"I-{person}", "O", "O", "O", f"B-{place}", "O", f"B-{place}"]
            + ["O"] * 2,
        }
        for part in ("train", "dev", "test"):
            write_lines(folder / f"{name}.{part}.jsonl.gz", [row] * 6)
    return folder


def run(*arguments: str | Path) -> list[dict[str, Any]]:
    source = Path(realm.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=RECIPE,
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason="the extra demo is not installed"
)
def test_teacher_and_student_make_weights(ner: Path, tmp_path: Path) -> None:
    articles = tmp_path / "articles.jsonl.gz"
    write_lines(articles, [{"text": "The poet Ada Lovelace went to Rome. It rained."}] * 3)
    told = run(
        "teacher.py", ner, tmp_path / "silver", "--plain", articles, "--silver-words", "30",
        "--epochs", "1",
    )  # fmt: skip
    assert {"uner_en_ewt", "crossner_ai"} <= {name for row in told for name in row}
    weights = tmp_path / "weights.safetensors"
    told = run(
        "student.py", ner, weights, "--silver", tmp_path / "silver", "--gold-epochs", "1",
        "--silver-epochs", "1",
    )  # fmt: skip
    assert {"wiki", "web", "social"} <= told[-1].keys()
    assert load_weights(weights).conventions["wiki"] == ["PER", "LOC", "ORG", "MISC", "TERM"]


def test_joined_tokens_keep_their_spans_and_an_equal_tagging_scores_100(
    ner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPE))
    data, scoring = (importlib.import_module(name) for name in ("data", "scoring"))
    for name in ("data", "scoring"):
        del sys.modules[name]  # too common a name to leave behind
    sentences = data.read_annotated(ner, "crossner_music.train")
    assert sentences[0].text == "Ada Lovelace didn't see Rome (Italy)."
    spans = [(0, 12, "PER"), (24, 28, "LOC"), (30, 35, "LOC")]
    assert list(sentences[0].spans) == spans
    words = data.cut_words(sentences[0].text)
    found = scoring.spans_of(words, data.tags_of(sentences[0]), data.CONVENTIONS["wiki"])
    assert found == spans
    assert scoring.score(sentences, [found] * 6).f1 == 100
    assert scoring.score(sentences[:1], [[(0, 12, "ORG"), (24, 35, "LOC")]]) == (1, 2, 3)
    assert scoring.score(sentences[:1], [found], {"LOC"}) == (2, 2, 3)
    held = data.training_sets(ner, ["wiki"])[1]
    assert {name: len(part) for name, part in held.items()} == {"wiki": 10}
