"""The quickstart: stages in order, resumed where it was stopped, done the second time."""

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realm import encyclopedia, mini, quickstart
from realm.checkpoint.folders import MINILM_PACKAGE
from realm.cli import quickstart_display
from realm.cli.main import run
from realm.config import (
    EncoderConfig,
    FinetuneConfig,
    IctConfig,
    MlmConfig,
    PretrainConfig,
    RefreshConfig,
    SplitConfig,
)
from realm.errors import ArtifactError, DamagedError
from realm.quickstart import Quickstart
from realm.storage import MANIFEST, REQUEST, write_json

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None,
    reason=f"{MINILM_PACKAGE} is not installed (extra `demo`): nothing for the quickstart to start",
)

STAGES = ["split", "mask", "before", "ict", "mlm", "pretrain", "finetune", "after"]
FOLDERS = ["passages", "examples", "start-index", "ict", "mlm", "pretrain", "finetune"]
NUM_ARTICLES = 24
ENCODER = EncoderConfig(init="scratch:1x32")
TRAIN: dict[str, Any] = {"steps": 2, "batch_size": 4, "threads": 1, "held_out": 0.1}


@pytest.fixture(scope="module")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cut the encyclopedia, its questions, the encoder and every training short."""
    folder = tmp_path_factory.mktemp("encyclopedia")
    for name, count in (("articles", NUM_ARTICLES), ("train", 8), ("test", 6)):
        whole = encyclopedia.articles_file() if name == "articles" else None
        whole = whole or encyclopedia.questions_file("train" if name == "train" else "test")
        lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encyclopedia, "articles_file", lambda: folder / "articles.jsonl")
        patch.setattr(encyclopedia, "questions_file", lambda split: folder / f"{split}.jsonl")
        patch.setattr(quickstart, "SPLIT", SplitConfig(max_wordpieces=64))
        patch.setattr(quickstart, "ICT", IctConfig(encoder=ENCODER, projection_size=16, **TRAIN))
        patch.setattr(
            quickstart, "MLM", MlmConfig(encoder=ENCODER, window=24, head_init="random", **TRAIN)
        )
        refresh = RefreshConfig(mode="sync", every_steps=1, max_staleness_steps=2)
        joint = PretrainConfig(num_candidates=3, num_eval_examples=4, refresh=refresh, **TRAIN)
        patch.setattr(quickstart, "PRETRAIN", joint)
        finetune = FinetuneConfig(num_passages=2, retriever_beam=10, span_hidden=8, **TRAIN)
        patch.setattr(quickstart, "FINETUNE", finetune)
        yield


@pytest.fixture(scope="module")
def stopped(_tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a quickstart that was stopped as joint pre-training began."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path_factory.mktemp("quickstart") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "pretrain", stop)
        with pytest.raises(KeyboardInterrupt):
            quickstart_display.run_quickstart(out, rebuild=False)
    return out


@pytest.fixture(scope="module")
def times_when_stopped(stopped: Path) -> dict[str, int]:
    return times(stopped)


@pytest.fixture(scope="module")
def shown(stopped: Path, times_when_stopped: dict[str, int]) -> str:
    """Return what the second call prints, which goes on to the end."""
    assert times_when_stopped
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        quickstart_display.run_quickstart(stopped, rebuild=False)
    return out.getvalue()


def times(out: Path) -> dict[str, int]:
    """Return when each finished folder was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob(f"*/{MANIFEST}")}


def test_a_stopped_quickstart_keeps_what_is_finished(times_when_stopped: dict[str, int]) -> None:
    assert sorted(times_when_stopped) == sorted(FOLDERS[:5])


def test_the_stages_run_in_order_and_say_what_they_are_for(stopped: Path, shown: str) -> None:
    stages = Quickstart(stopped).stages()
    assert [stage.name for stage in stages] == STAGES
    headings = [f"{n}/8 {stage.name}  {stage.meaning}" for n, stage in enumerate(stages, 1)]
    places = [shown.index(heading) for heading in headings]
    assert places == sorted(places)


def test_a_stopped_quickstart_goes_on_where_it_was(
    stopped: Path, shown: str, times_when_stopped: dict[str, int]
) -> None:
    assert "all stages in" in shown
    now = times(stopped)
    assert sorted(now) == sorted(FOLDERS)
    assert {name: now[name] for name in times_when_stopped} == times_when_stopped


def test_it_ends_with_what_changed_evidence_and_what_comes_next(stopped: Path, shown: str) -> None:
    assert "6 test questions" in shown
    assert "answer recall@5" in shown
    assert "(2 index refreshes)" in shown
    assert shown.count("p(z|x)=") >= 3
    assert "p(y|z,x)" in shown
    assert f'realm ask "Who wrote War and Peace?" --model {stopped / "finetune"}' in shown
    measured = Quickstart(stopped).measured
    assert measured.keys() == {"before", "after"}
    assert {"recall@5", "exact_match", "f1"} <= measured["after"].keys()
    assert (stopped / "report.json").is_file()


def test_without_the_weights_that_ship_asking_files_is_left_out_with_a_line(
    stopped: Path,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "A folder of files, asked at once" in shown
    monkeypatch.setattr(mini, "HERE", tmp_path)
    quickstart_display.show_own_files(Quickstart(stopped))
    assert "left out: this installation came without the weights" in capsys.readouterr().out


def test_with_the_weights_a_folder_of_the_encyclopedia_is_asked(
    shown: str,
    stopped: Path,
    make_packed: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown
    make_packed(name="realm-mini")
    monkeypatch.setattr(mini, "HERE", tmp_path)
    quickstart_display.show_own_files(Quickstart(stopped))
    told = capsys.readouterr().out
    question = Quickstart(stopped).test_questions[0].question
    assert f'realm ask "{question}" --docs {stopped / "files"}' in told
    assert re.search(r"  1\. .*  p=\d.\d+   [\w-]+\.md:\d+ ", told)
    files = sorted(path.name for path in (stopped / "files").iterdir())
    assert "1755-lisbon-earthquake.md" in files


def test_the_page_on_corpus_swap_can_be_followed(
    stopped: Path, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of docs/corpus-swap.md but the quickstart itself, which is done."""
    assert shown
    page = Path(__file__).parents[1] / "docs" / "corpus-swap.md"
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = [text for language, text in blocks if language == "python"]
    commands = [line for language, text in blocks if not language for line in text.splitlines()]
    assert commands[0] == "realm quickstart --out quickstart"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").symlink_to(stopped)
    exec(compile(code, str(page), "exec"), {})  # noqa: S102 - our own page
    assert "Kestrel Bridge" in (tmp_path / "changed.jsonl").read_text("utf-8")
    assert len(commands) > 8
    for line in commands[1:]:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()) as out:
            run()
        assert ended.value.code in {0, None}, line
        assert out.getvalue()


def test_a_second_run_is_already_done_and_computes_no_stage(
    stopped: Path, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = times(stopped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quickstart, "stages", lambda _: pytest.fail("ran a stage again"))
        quickstart_display.run_quickstart(stopped, rebuild=False)
    told = capsys.readouterr().out
    assert told.startswith(f"already done: everything is in {stopped}\n")
    assert told.partition("\n")[2].strip() == shown.partition("minutes\n")[2].strip()
    assert times(stopped) == before


@pytest.mark.usefixtures("_tiny")
def test_rebuild_removes_its_own_folders_and_nothing_else(tmp_path: Path) -> None:
    def make(folder: str, note: str, kind: str) -> None:
        (tmp_path / folder).mkdir()
        write_json(tmp_path / folder / note, {"kind": kind})

    for folder in ("mlm", "pretrain", "finetune"):
        make(folder, MANIFEST, "run")
    make("ict", REQUEST, "run")  # unfinished
    make(".index.partial", REQUEST, "index")
    make(".mlm.partial", REQUEST, "run")
    make("start-index", MANIFEST, "passages")  # of another kind
    make("thesis", MANIFEST, "run")  # of another name
    (tmp_path / "passages").mkdir()
    for mine in ("passages/page-1.txt", "notes.txt"):
        (tmp_path / mine).write_text("mine", encoding="utf-8")
    write_json(tmp_path / "measured.json", {"before": {}, "after": {}})
    with pytest.raises(ArtifactError, match="passages exists and is not a folder that realm"):
        quickstart_display.run_quickstart(tmp_path, rebuild=True)
    left = {".index.partial", "start-index", "thesis", "passages", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert (tmp_path / "passages" / "page-1.txt").is_file()


@pytest.mark.parametrize("damage", ["another byte", "cut short"])
def test_rebuild_makes_a_folder_again_whose_manifest_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Quickstart, "stages", stop)
    (tmp_path / "mlm").mkdir()
    note = tmp_path / "mlm" / MANIFEST
    write_json(note, {"kind": "run", "settings": {"steps": 3}})
    text = note.read_text("utf-8")
    note.write_text(text[:-40] if damage == "cut short" else text.replace("3", "4", 1), "utf-8")
    with pytest.raises(KeyboardInterrupt):
        quickstart_display.run_quickstart(tmp_path, rebuild=True)
    assert not (tmp_path / "mlm").exists()


@pytest.mark.parametrize("text", ["", '{"kind": "thesis", "of": [', '{"about": {"kind": "run"'])
def test_rebuild_keeps_what_a_damaged_manifest_does_not_say_is_its_own(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(DamagedError, match=r"mlm/manifest\.json is damaged"):
        quickstart_display.run_quickstart(tmp_path, rebuild=True)
    assert (tmp_path / "mlm" / MANIFEST).read_text("utf-8") == text


def test_ctrl_d_ends_the_questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def end(*_: object) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    monkeypatch.setattr(quickstart_display.display, "is_interactive", lambda: True)
    quickstart_display.offer_to_ask(Quickstart(tmp_path))
