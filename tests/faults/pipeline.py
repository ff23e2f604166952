"""Every kind of file that realm writes, written once by the small world's own commands."""

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import torch

from realm.cache import VARIABLE
from realm.checkpoint.calibration import Calibration, save_calibration
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion
from realm.library.loading import load
from realm.model.confidence import FEATURES, Calibrator
from realm.planning.machine import ACCELERATORS, computed_rates
from realm.planning.machine import Calibration as MachineCalibration
from realm.refresh.parameters import publish_parameters
from realm.refresh.patches import publish_patch
from realm.refresh.priority import Demand
from realm.storage import MANIFEST, read_json
from tests.towns import World, articles, call_realm, write_world

DOCS = "docs"
LIBRARY = "library"
CACHE = "cache"
QUESTION = "Who was born in the town?"
STOPPED = "stopped"
"""A copy of the ict run, as a kill after step 2 leaves it."""
INPUTS = {"articles.jsonl", "questions.jsonl", "vocab.txt", "settings.toml", DOCS}
"""What the user brings; everything else in the world's folder is ours."""
SMALL_APPROXIMATE = ("lists=4", "subquantizers=4", "bits=4", "probes=2", "widen=4")


def make_everything(folder: Path) -> World:
    """Run every verb that writes, once."""
    world = World(write_world(folder)).make(call_realm)
    passages, questions = world / "passages", world / "questions.jsonl"
    docs = folder / DOCS
    docs.mkdir()
    for article in articles()[:6]:
        (docs / f"{article['id']}.txt").write_text(article["text"], encoding="utf-8")
    qa = ["--model", world / "qa"]
    config = ["--config", world / "settings.toml"]
    for command in (
        approximate(world, world / "approximate"),
        ["evaluate", questions, *qa, "--out", world / "report.json", *config],
        ["evaluate", questions, *qa, "--retriever", "bm25", "--out", world / "bm25.json", *config],
        ["pack", world / "qa", "--out", world / "packed"],
        [
            "export",
            world / "pretrain",
            "--to",
            "sentence-transformers",
            "--out",
            world / "exported",
        ],
        [
            *("align", world / "examples", "--model", world / "pretrain", "--limit", 4),
            *("--passages", passages, "--out", world / "pairs.jsonl"),
        ],
        ["docs", "add", world / LIBRARY, *sorted(docs.iterdir()), "--model", world / "packed"],
        ["docs", "remove", world / LIBRARY, "town-1.txt"],
    ):
        ended = call_realm(*command)
        assert ended.code == 0, (command, ended.err)
    save_calibration(world / "qa", _calibration(world / "qa"))
    answer_from_files(world)
    answer_from_kept_library(world)
    _rates().save(world / "rates.json")
    _publish_for_builders(world)
    leave_stopped(world, world / STOPPED)
    return world


def approximate(world: World, out: Path) -> list[object]:
    """Return the command that makes a small approximate index."""
    cut = [part for one in SMALL_APPROXIMATE for part in ("--set", one)]
    return ["approximate", world / "index", "--out", out, *cut]


def _calibration(run: Path) -> Calibration:
    """Return one such as `realm calibrate` fits to a run that is right sometimes."""
    width = len(FEATURES)
    calibrator = Calibrator(
        names=FEATURES,
        means=(0.5,) * width,
        scales=(1.0,) * width,
        weights=(0.25,) * width,
        bias=-1.0,
    )
    return Calibration(
        model_fingerprint=str(read_json(find_checkpoint(run) / MANIFEST)["fingerprint"]),
        retriever="dense",
        num_passages=5,
        calibrator=calibrator,
        min_probability=0.2,
    )


def answer_from_files(world: World) -> object:
    """Ask the folder of documents; what is read of it is kept in the cache."""
    from realm.asking import FolderAnswerer, placed_as_json

    opened = FolderAnswerer.open(world / DOCS, model=world / "packed", cache=world / CACHE)
    (answered,) = opened.answer([QUESTION], num_answers=3)
    return placed_as_json(answered, opened)


def answer_from_kept_library(world: World) -> object:
    """Load the folder of documents into the library that is kept of it in the cache."""
    with (
        mock.patch.dict(os.environ, {VARIABLE: str(world / CACHE)}),
        load(world / "packed", docs=world / DOCS) as opened,
    ):
        documents = [opened.document(info.id) for info in opened.documents()]
        return documents, opened.answer(QUESTION, num_answers=3).as_dict()


def leave_stopped(world: World, out: Path) -> None:
    """Leave an ict run as a kill between the steps 2 and 4 does."""
    shutil.copytree(world / "ict", out)
    (out / "manifest.json").unlink()
    shutil.rmtree(out / "checkpoints" / "step-4")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= 3)
    (out / "metrics.jsonl").write_text(kept, encoding="utf-8")


def _rates() -> MachineCalibration:
    """Return what `realm plan --calibrate` measures."""
    rates = computed_rates(ACCELERATORS["h100"], network_gbits=400.0)
    return MachineCalibration(
        rates=rates,
        encoder="2x128",
        threads=1,
        hardware="made up",
        versions={},
        date="2026-01-01",
        seconds=1.0,
    )


def _publish_for_builders(world: World) -> None:
    """Publish what trainer and builders of an asynchronous refresh hand to each other."""
    store = PassageStore.open(world / "passages")
    model = load_model(world / "ict")
    tower = model.need_towers().passage
    version = EmbedderVersion(model_hash=tower_hash(tower), step=4)
    run, rows = world / "refreshed", torch.arange(3)
    publish_parameters(
        run,
        tower,
        version=version,
        tokenizer=store.tokenizer,
        index=IndexConfig(),
        passages_fingerprint=store.fingerprint,
        demand=Demand(rows=rows, retrievals=torch.ones(3), drift=torch.zeros(3)),
    )
    publish_patch(
        run,
        rows,
        torch.ones(3, tower.dim),
        version=version,
        passages_fingerprint=store.fingerprint,
    )
