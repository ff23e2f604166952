"""Scripts that work in slices: stopped whenever it is, a call loses little and brings results home.

`realm` is a stand-in: a shell script under the name of `python3`.
"""

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from realm.study.settings import StudySettings

pytestmark = pytest.mark.skipif(not shutil.which("timeout"), reason="needs GNU coreutils")
FOLDER = Path(__file__).parents[2] / "reproductions"
DATA = (
    *("simplewiki_2021.jsonl.gz", "enwiki_sample.jsonl.zst", "squad_open_passages.jsonl.gz"),
    *("squad_open.train.jsonl.gz", "squad_open.dev.jsonl.gz", "nq_open.orqa_dev.jsonl.gz"),
)
OVER = "slice over; call again to go on"
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Run a script with a stand-in for `python3 -m realm`, and a folder of empty data files."""
    for name in DATA:
        file = tmp_path / "data" / "some" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def run(
        script: str, stand_in: str, *options: str, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        python = tmp_path / "bin" / "python3"
        python.parent.mkdir(exist_ok=True)
        told = f'#!/bin/bash\nshift 2\necho "$@" >> {tmp_path}/called\n{stand_in}\n'
        python.write_text(told, encoding="utf-8")
        python.chmod(0o755)
        paths = [str(tmp_path / name) for name in ("data", "out", "home")]
        return subprocess.run(
            ["bash", str(FOLDER / script), *paths, *options],
            env={
                **os.environ,
                "PATH": f"{python.parent}:{os.environ['PATH']}",
                "SLICE": "30",
                "LEAST": "0",
                "PATIENCE": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def called(tmp_path: Path) -> list[str]:
    return (tmp_path / "called").read_text(encoding="utf-8").splitlines()


def brought_home(tmp_path: Path) -> list[str]:
    parts = sorted((tmp_path / "home").glob("results.tar.gz.*"))
    whole = tmp_path / "whole.tar.gz"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(whole) as archive:
        return sorted(archive.getnames())


def test_all_stages_of_the_big_run_in_their_order(call: Call, tmp_path: Path) -> None:
    done = call("gpu.sh", f'echo "{{}}" > {tmp_path}/out/$1.json')
    assert (done.returncode, done.stdout) == (0, "all done\n"), done.stderr
    verbs = [line.split()[0] for line in called(tmp_path)]
    assert verbs == [
        *("split", "split", "mask", "mask", "ict", "mlm", "pretrain", "finetune"),
        *("pack", "evaluate", "evaluate"),
    ]
    assert all(f"--config {FOLDER}/gpu.toml" in line for line in called(tmp_path)[:8])
    assert brought_home(tmp_path) == sorted(f"./{verb}.json" for verb in set(verbs))


@pytest.mark.parametrize(
    "stand_in",
    [
        "exec sleep 30",
        "trap '' INT; while true; do sleep 0.1; done",  # as a shell in the background starts it
    ],
)
def test_a_slice_ends_in_time_and_brings_home_what_there_is(
    call: Call, tmp_path: Path, stand_in: str
) -> None:
    began = time.monotonic()
    write = f"echo {{}} > {tmp_path}/out/metrics.jsonl; "
    done = call("table2-gpu.sh", write + stand_in, SLICE="3")
    assert time.monotonic() - began < 25
    assert (done.returncode, done.stdout) == (0, f"{OVER}\n"), done.stderr
    assert len(called(tmp_path)) == 1
    assert brought_home(tmp_path) == ["./metrics.jsonl"]


def test_nothing_is_begun_that_has_no_time(call: Call, tmp_path: Path) -> None:
    done = call("gpu.sh", "true", LEAST="60")
    assert (done.returncode, done.stdout) == (0, f"{OVER}\n"), done.stderr
    assert not (tmp_path / "called").exists()


def test_an_error_is_an_error_and_results_come_home_all_the_same(
    call: Call, tmp_path: Path
) -> None:
    done = call("gpu.sh", f"echo {{}} > {tmp_path}/out/report.json; exit 2")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(called(tmp_path)) == 1
    assert brought_home(tmp_path) == ["./report.json"]


@pytest.mark.parametrize("script", ["gpu.sh", "table2-gpu.sh"])
def test_data_that_are_missing_are_told_before_anything_runs(
    call: Call, tmp_path: Path, script: str
) -> None:
    (tmp_path / "data" / "some" / "squad_open.dev.jsonl.gz").unlink()
    done = call(script, "true")
    assert done.returncode == 2
    assert "error: found no squad_open.dev* below" in done.stderr
    assert not (tmp_path / "called").exists()


def test_what_comes_home_is_small_and_in_parts(call: Call, tmp_path: Path) -> None:
    made = (
        'mkdir -p "$(dirname "$0")/../out/packed" && cd "$(dirname "$0")/../out" && '
        "head -c 5000 /dev/urandom > packed/packed.safetensors && "
        "head -c 5000 /dev/urandom > weights.safetensors && "
        "head -c 5000 /dev/urandom | base64 > metrics.jsonl && touch tokenizer.json"
    )
    done = call("gpu.sh", made, PART="2k")
    assert done.returncode == 0, done.stderr
    parts = {path.name: path.stat().st_size for path in (tmp_path / "home").iterdir()}
    assert max(parts.values()) <= 2_048
    assert {name.rpartition(".")[0] for name in parts} == {"results.tar.gz", "packed.tar"}
    assert brought_home(tmp_path) == ["./metrics.jsonl"]
    whole = tmp_path / "packed.tar"
    packed = sorted((tmp_path / "home").glob("packed.tar.*"))
    whole.write_bytes(b"".join(part.read_bytes() for part in packed))
    with tarfile.open(whole) as archive:
        assert "packed/packed.safetensors" in archive.getnames()


def test_the_reader_of_a_row_that_is_done_is_packed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "out" / "seed-0" / "finetune-a").mkdir(parents=True)
    done = call("table2-gpu.sh", "true")
    assert (done.returncode, done.stdout) == (0, "all done\n"), done.stderr
    run = tmp_path / "out" / "seed-0" / "finetune-a"
    assert called(tmp_path)[1] == f"pack {run} --out {tmp_path}/out/packed/a"


def test_the_rows_of_table_2_have_settings_that_the_study_takes(call: Call, tmp_path: Path) -> None:
    options = ("--zero-shot", "--set", "pretrain.steps=8")
    done = call("table2-gpu.sh", "true", *options, ROWS="a,e", SEEDS="1", MINILM="weights")
    assert (done.returncode, done.stdout) == (0, "all done\n"), done.stderr
    told = called(tmp_path)[0].split()
    assert told[:2] == ["study", f"{FOLDER}/table2.toml"]
    assert told[told.index("--rows") + 1 : told.index("--rows") + 4] == ["a,e", "--seeds", "1"]
    assert "--zero-shot" in told
    sets = [after for before, after in pairwise(told) if before == "--set"]
    assert sets[-1] == "pretrain.steps=8"
    assert "mlm.encoder.init=weights" in sets
    StudySettings.load(FOLDER / "table2.toml", overrides=sets)
