"""What ties a model to its passages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from realm.checkpoint.parts import Model
from realm.checkpoint.sources import check_vocabulary, passages_of, run_of, write_sources
from realm.config import SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

TOKENS = [*SPECIAL_TOKENS, "one", "two", "three", "."]


@pytest.fixture
def store(tmp_path: Path) -> PassageStore:
    article = {"id": "a", "title": "one", "text": "One two three."}
    (tmp_path / "articles.jsonl").write_text(json.dumps(article) + "\n")
    split(
        [tmp_path / "articles.jsonl"],
        tmp_path / "data" / "passages",
        config=SplitConfig(),
        tokenizer=WordpieceTokenizer.from_vocabulary(TOKENS),
    )
    return PassageStore.open(tmp_path / "data" / "passages")


def test_a_run_finds_its_passages(tmp_path: Path, store: PassageStore) -> None:
    run = tmp_path / "runs" / "qa"
    run.mkdir(parents=True)
    write_sources(run, store)
    assert passages_of(run) == store.folder.resolve()


def test_run_and_passages_may_be_moved_together(tmp_path: Path, store: PassageStore) -> None:
    (tmp_path / "data" / "run").mkdir()
    write_sources(tmp_path / "data" / "run", store)
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    expected = tmp_path / "elsewhere" / "passages"
    assert passages_of(tmp_path / "elsewhere" / "run") == expected.resolve()


def test_a_run_reached_through_a_link_finds_them_too(
    tmp_path: Path, store: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "er" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er" / "run")
    monkeypatch.chdir(tmp_path)
    write_sources(Path("link"), store)
    for run in (Path("link"), tmp_path / "link", tmp_path / "deep" / "er" / "run"):
        assert passages_of(run) == store.folder.resolve()


def test_passages_that_are_gone_are_told(tmp_path: Path, store: PassageStore) -> None:
    with pytest.raises(ArtifactError, match=r"does not say.*--passages"):
        passages_of(tmp_path)
    write_sources(tmp_path, store)
    shutil.rmtree(store.folder)
    with pytest.raises(ArtifactError, match=r"which is gone.*--passages"):
        passages_of(tmp_path)


def test_a_checkpoint_belongs_to_its_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.json").write_text("{}")
    assert run_of(checkpoint) == (tmp_path / "run").resolve()
    assert run_of(tmp_path / "run") == tmp_path / "run"
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "model.json").write_text("{}")
    assert run_of(exported) == exported


@pytest.mark.parametrize(
    ("tokens", "fits"), [(TOKENS, True), ([*TOKENS, "four"], False), (TOKENS[::-1], False)]
)
def test_another_vocabulary_is_refused(
    store: PassageStore,
    tokens: list[str],
    fits: bool,  # noqa: FBT001
    recwarn: pytest.WarningsRecorder,
) -> None:
    model = Model(tokenizer=WordpieceTokenizer.from_vocabulary(tokens))
    check: Callable[[], None] = lambda: check_vocabulary(model, store)  # noqa: E731
    if fits:
        check()
    else:
        with pytest.raises(ConfigError, match="another tokenizer"):
            check()
    assert not recwarn.list
