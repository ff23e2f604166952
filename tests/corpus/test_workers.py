"""Worker processes that die, and workers of a process that dies."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from realm.config import SplitConfig
from realm.corpus import split as module
from realm.corpus import workers
from realm.corpus.split import split
from realm.errors import ArtifactError
from realm.storage import fingerprint, scratch_folder
from realm.tokenizer import WordpieceTokenizer

WriteJsonl = Callable[[str, Iterable[dict[str, object]]], Path]
CONFIG = SplitConfig(max_wordpieces=32)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ARTICLES", 6)


def test_a_worker_that_dies_is_reported_and_the_run_goes_on_later(
    tmp_path: Path,
    write_jsonl: WriteJsonl,
    tokenizer: WordpieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    articles = write_jsonl("articles.jsonl", [{"text": "One two."}, {"text": "Two one."}])
    out = tmp_path / "passages"
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_cut", _die)
        with pytest.raises(ArtifactError, match="a worker process of split died"):
            split([articles], out, config=CONFIG, tokenizer=tokenizer, num_processes=2)
    assert not out.exists()
    assert split([articles], out, config=CONFIG, tokenizer=tokenizer).num_articles == 2


def test_a_run_whose_process_is_killed_leaves_no_worker_and_is_resumed(
    tmp_path: Path, write_jsonl: WriteJsonl, tokenizer: WordpieceTokenizer
) -> None:
    text = "One two the of and in was april " * 40 + "end. "
    records = [{"id": str(number), "text": text * 3} for number in range(60)]
    path = write_jsonl("articles.jsonl", records)
    tokenizer.save(tmp_path / "tokenizer.json")
    out = tmp_path / "passages"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(Path(module.__file__).parents[2])}
    arguments = [sys.executable, script, path, out, tmp_path / "tokenizer.json"]
    with subprocess.Popen(arguments, env=environment) as process:
        while not (scratch_folder(out) / "passages-00000.arrow").exists():
            assert process.poll() is None
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    assert len(children) >= 2
    assert not out.exists()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert split([path], out, config=CONFIG, tokenizer=tokenizer).num_articles == 60
    split([path], tmp_path / "whole", config=CONFIG, tokenizer=tokenizer)
    assert fingerprint(out) == fingerprint(tmp_path / "whole")


SCRIPT = f"""
import sys
from pathlib import Path
from realm.config import SplitConfig
from realm.corpus import split
from realm.tokenizer import WordpieceTokenizer

if __name__ == "__main__":
    split.SHARD_ARTICLES = 6
    articles, out, tokenizer = map(Path, sys.argv[1:])
    split.split(
        [articles], out, config=SplitConfig.model_validate({CONFIG.as_dict()!r}),
        tokenizer=WordpieceTokenizer.load(tokenizer), num_processes=2,
    )
"""


def _die(task: object) -> int:
    del task
    os._exit(1)
