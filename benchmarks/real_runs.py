"""Three real runs of at least 100,000 passages, each beside what the planner said of it.

1. `realm split` of a whole corpus; 2. `realm index` of 100,000 passages and more by an embedder of
2 layers of width 128; 3. `realm pretrain` over the same passages, first index, some steps, one
refresh. What the plan is told of the corpus is the number of passages and wordpieces, nothing else.
"""

import gzip
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from realm.config import IctConfig, MlmConfig, PretrainConfig
from realm.corpus.store import PassageStore
from realm.planning.encoders import parse_encoder
from realm.planning.machine import Calibration
from realm.planning.plan import Plan, make_plan
from realm.planning.workload import Workload

ENCODER = "2x128"
NUM_ARTICLES = 84_000
"""Of the corpus, for the second and third run."""
TRAIN = ["--set", "threads=1", "--set", "save_every_steps=3", "--set", "num_eval_examples=16"]
PRETRAIN = PretrainConfig(
    steps=6,
    batch_size=16,
    save_every_steps=3,
    num_eval_examples=16,
    refresh={"every_steps": 4},  # type: ignore[arg-type] - pydantic makes the table
)


def measure_runs(articles: Path, work: Path) -> list[dict[str, Any]]:
    """Return one row for each run: predicted and measured seconds, memory, disk."""
    shape = parse_encoder(ENCODER)
    subprocess.run(  # noqa: S603 - a process of its own: a child's peak memory starts at ours
        [
            *(sys.executable, "-m", "realm", "plan", "--calibrate", "--encoder", ENCODER),
            *("--threads", "1", "--quiet"),
        ],
        env={**os.environ, "XDG_CACHE_HOME": str(work), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    calibration = Calibration.load(work / "realm" / f"calibration-{ENCODER}-1.json")
    known = Known(work / "measured.json")
    some, small = work / "some", ["--set", "steps=1", "--set", "batch_size=4", "--set", "threads=1"]
    start = [*("--init", f"scratch:{ENCODER}"), *small]
    known("split, all", "split", articles, "--out", work / "passages")
    known("split, some", "split", head(articles, work / "articles.jsonl"), "--out", some)
    known("mask", "mask", some, "--out", work / "examples")
    known("ict", "ict", some, "--out", work / "ict", *start)
    known("mlm", "mlm", some, "--out", work / "mlm", *start)
    known("index", "index", work / "ict", some, "--out", work / "index")
    told = [
        *("--embedder", work / "ict", "--encoder", work / "mlm", "--out", work / "pretrain"),
        *("--set", "steps=6", "--set", "batch_size=16", "--set", "refresh.every_steps=4", *TRAIN),
    ]
    known("pretrain", "pretrain", work / "examples", some, *told)

    def plan(folder: Path) -> Plan:
        store = PassageStore.open(folder)
        asked = Workload(
            passages=len(store),
            encoder=shape,
            embedder=shape,
            passage_wordpieces=float(store.lengths().mean()),
            ict=IctConfig(),
            mlm=MlmConfig(),
            pretrain=PRETRAIN,
        )
        return make_plan(asked, calibration.rates)

    first, second = plan(work / "passages"), plan(work / "some")
    training = second.stage("pretrain")
    joint = replace(
        training,
        seconds=training.seconds
        + second.stage("first index").seconds
        + second.work.num_refreshes * second.refresh_seconds,
    )
    stages = {
        "split, all": (first, first.stage("split"), "passages"),
        "split, some": (second, second.stage("split"), "some"),
        "mask": (second, second.stage("mask"), "examples"),
        "index": (second, second.stage("first index"), "index"),
        "pretrain": (second, joint, "pretrain"),
    }
    return [
        row(name, plan, stage, known.values[name], work / folder)
        for name, (plan, stage, folder) in stages.items()
    ]


class Known:
    """Runs verbs to their end and remembers what they took: a second start goes on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.values: dict[str, dict[str, float]] = (
            json.loads(file.read_text()) if file.is_file() else {}
        )

    def __call__(self, name: str, *words: object) -> None:
        """Run a verb, unless its measurement is known."""
        if name not in self.values:
            self.values[name] = realm(*words)
            self.file.write_text(json.dumps(self.values, indent=1))


def row(name: str, plan: Plan, stage: Any, measured: dict[str, float], out: Path) -> dict[str, Any]:  # noqa: ANN401
    """Return predicted and measured values and the error of each, relative to the measured."""
    predicted = {
        "seconds": stage.seconds,
        "memory_bytes": stage.memory_bytes + sum(stage.mapped.values()),
        "disk_bytes": stage.disk_bytes,
    }
    uses_wall = name.startswith("split")  # the tokenizer's threads
    found = {
        "seconds": measured["wall_seconds" if uses_wall else "cpu_seconds"],
        "memory_bytes": measured["memory_bytes"],
        "disk_bytes": float(sum(f.stat().st_size for f in out.rglob("*") if f.is_file())),
    }
    return {
        "run": name,
        "passages": plan.work.passages,
        "passage_wordpieces": plan.work.passage_wordpieces,
        "predicted": predicted,
        "measured": {**found, **measured},
        "error": {key: predicted[key] / found[key] - 1 for key in predicted},
        "memory_parts": {**stage.memory, **stage.mapped},
    }


def head(articles: Path, out: Path) -> Path:
    """Write the first articles of a corpus."""
    with gzip.open(articles, "rt", encoding="utf-8") as lines, out.open("w") as file:
        file.writelines(itertools.islice(lines, NUM_ARTICLES))
    return out


def realm(*words: object) -> dict[str, float]:
    """Run a verb with one thread; return CPU and wall seconds and the largest resident size."""
    command = [sys.executable, "-m", "realm", *(str(word) for word in words), "--quiet"]
    sys.stderr.write(" ".join(command[2:]) + "\n")
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a run failed with exit code {process.returncode}")
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "wall_seconds": time.perf_counter() - began,
        "memory_bytes": float(used.ru_maxrss * 1024),
    }


def show_runs(rows: list[dict[str, Any]]) -> None:
    """Print predicted / measured and the error of each."""
    for one in rows:
        told = [f"{one['run']:<12} {one['passages']:>9,} passages"]
        for key, unit, scale in (
            ("seconds", "s", 1),
            ("memory_bytes", "GB", 1e9),
            ("disk_bytes", "GB", 1e9),
        ):
            values = [one[side][key] / scale for side in ("predicted", "measured")]
            told.append(f"{values[0]:.2f} / {values[1]:.2f} {unit} ({one['error'][key]:+.0%})")
        sys.stdout.write("   ".join(told) + "\n")
    sys.stdout.write(json.dumps([one["memory_parts"] for one in rows]) + "\n")
