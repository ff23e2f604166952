"""The scripts in reproductions/ run on any run, and end as commands do."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from realm.aligning import Aligner, align
from realm.answering import Answerer
from realm.checkpoint.calibration import Calibration, save_calibration
from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import write_sources
from realm.corpus.store import PassageStore
from realm.model.confidence import Calibrator
from realm.predicting import Predictor
from realm.tokenizer import WordpieceTokenizer

Make = Callable[..., Any]
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def script(name: str) -> ModuleType:
    path = ROOT / "reproductions" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(
    tokenizer: WordpieceTokenizer,
    store: PassageStore,
    make_towers: Make,
    make_encoder: Make,
    tmp_path: Path,
) -> Path:
    """A run of `pretrain`, untrained."""
    model = Model(tokenizer=tokenizer, towers=make_towers(), encoder=make_encoder())
    settings = {"query_wordpieces": 40, "passage_wordpieces": 64, "joint_wordpieces": 96}
    save_checkpoint(checkpoint_folder(tmp_path / "run", 3), model, settings=settings, inputs={})
    write_sources(tmp_path / "run", store)
    return tmp_path / "run"


def questions(path: Path) -> Path:
    """Nine questions on three articles, from word for word to in other words."""
    asked = (
        *("Fermat was born in the year?", "in what century did Fermat come into being?", "Fermat"),
        *("Euler was born in the year?", "in what century did Euler come into being?", "Euler"),
        *("Gauss was born in the year?", "in what century did Gauss come into being?", "Gauss"),
    )
    years = ("1607", "1707", "1777")
    lines = [
        {"question": text, "answer": years[n // 3], "passage_id": f"p{n // 3}"}
        for n, text in enumerate(asked)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_beyond_words_compares_the_thirds(
    run: Path,
    store: PassageStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = questions(tmp_path / "questions.jsonl")
    main = script("beyond_words").main
    arguments = [str(file), str(store.folder), str(run), "--baselines"]
    assert main([*arguments[:3], str(checkpoint_folder(run, 3)), "--baselines"]) == 0
    head, _, first, second = capsys.readouterr().out.splitlines()
    told = ("least (33 to 33", "middle (100 to 100", "most (100 to 100")
    thirds = [f"{part} % of its words)" for part in told]
    assert head == f"| recall@5 of | all 9 | {' | '.join(thirds)} |"
    cells = first.split(" | ")
    assert cells[0] == f"| {run}"
    assert len(cells) == 5
    assert second.split(" | ")[1:] == cells[1:]  # the same parameters
    assert main([*arguments, "--limit", "6"]) == 0
    assert "| all 6 |" in capsys.readouterr().out


def test_beyond_words_puts_bm25_beside(
    run: Path, store: PassageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bm25s")
    module = script("beyond_words")
    monkeypatch.setattr(module, "open_zero_shot", lambda *_, **__: None)  # its vocabulary differs
    rows = module.retrievers([run], store, ["bm25", "minilm"], tmp_path / "cache")
    assert [name for name, _ in rows] == [str(run), "BM25", "all-MiniLM, as it comes"]
    assert list((tmp_path / "cache" / "bm25").iterdir())


def test_an_alignment_is_compared_with_bm25(
    run: Path,
    store: PassageStore,
    make_examples: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("bm25s")
    aligner = Aligner(Predictor.load(run), num_candidates=4)
    pairs = tmp_path / "pairs.jsonl"
    align(make_examples(store), pairs, aligner, limit=6)
    arguments = [str(pairs), str(store.folder), str(store.folder)]
    assert script("alignment").main([*arguments, "--out", str(tmp_path / "table.md")]) == 0
    told = capsys.readouterr().out
    assert told == (tmp_path / "table.md").read_text()
    assert "all 6 sentences" in told
    assert "| BM25, whole sentence | " in told


def test_abstention_asks_every_question_with_and_without_its_passages(
    tokenizer: WordpieceTokenizer,
    store: PassageStore,
    make_towers: Make,
    make_reader: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, out = tmp_path / "qa", tmp_path / "found.json"
    model = Model(tokenizer=tokenizer, towers=make_towers(share=False), reader=make_reader())
    settings = {"question_wordpieces": 24, "joint_wordpieces": 96}
    save_checkpoint(checkpoint_folder(run, 3), model, settings=settings, inputs={})
    write_sources(run, store)
    calibration = Calibration(
        model_fingerprint=Answerer.load(run).model_fingerprint,
        retriever="dense",
        num_passages=5,
        calibrator=Calibrator(names=(), means=(), scales=(), weights=(), bias=-1.0),
        min_probability=0.5,
    )
    save_calibration(run, calibration)
    file = questions(tmp_path / "questions.jsonl")
    arguments = [str(file), "--model", str(run), "--limit", "4", "--out", str(out)]
    assert script("abstention").main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("dense, 4 questions")
    assert lines[2] == "| | raw | calibrated |"
    assert '| "no answer", % of all | | 100.0 |' in lines
    assert lines[-1] == "| ... of those without their passages | | 100.0 |"
    found = json.loads(out.read_text())
    assert len(found["cases"]) == 4
    assert found["told"]["is_calibrated"]
    assert script("abstention").main([str(tmp_path / "none"), "--model", str(run)]) == 2


def test_articles_of_shared_titles_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, titles in (("x", "abcb"), ("z", "bd")):
        lines = [
            {"id": f"{name}{n}", "title": title, "text": f"Of {n}."}
            for n, title in enumerate(titles)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    files = [str(tmp_path / f"{name}.jsonl") for name in ("x", "z", "out")]
    main = script("shared_titles").main
    assert main(files) == 0
    assert capsys.readouterr().out == "2 articles, 1 titles\n"
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(one["id"], one["title"], one["text"]) for one in kept] == [
        ("x1", "b", "Of 1."),
        ("x3", "b", "Of 3."),
    ]
    other = tmp_path / "y.jsonl"
    other.write_text(json.dumps({"id": "y0", "title": "c", "text": "Of y."}) + "\n")
    assert main([files[0], files[1], str(other), files[2]]) == 0
    assert capsys.readouterr().out == "3 articles, 2 titles\n"
    assert main([str(tmp_path / "gone.jsonl"), *files[1:]]) == 2
    assert capsys.readouterr().err.startswith("error: found no")


@pytest.mark.parametrize("name", ["beyond_words", "alignment"])
def test_what_is_missing_is_told(
    name: str, store: PassageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = script(name).main
    with pytest.raises(SystemExit):
        main([])
    assert "required" in capsys.readouterr().err
    assert main([str(tmp_path / "gone"), str(store.folder), str(store.folder)]) == 2
    assert capsys.readouterr().err.startswith("error: found no file")
