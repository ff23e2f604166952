"""Targets that read what runs leave behind, and weights and texts that others wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from hostile.scratch import chosen, fresh_folder, from_file, scratch
from hostile.target import Target
from hostile.world import packed_model
from realm.checkpoint.calibration import CALIBRATION, Calibration, load_calibration
from realm.checkpoint.checkpoints import load_state
from realm.checkpoint.packed import read_packed, write_packed
from realm.checkpoint.run_records import (
    METRICS,
    newest_metrics,
    read_held_out,
    read_metrics,
    read_run,
)
from realm.checkpoint.sources import SOURCES, passages_of
from realm.checkpoint.stored import StoredWeights
from realm.evaluation.alignment import read_alignment
from realm.evaluation.comparing import ReportFile
from realm.exchange.block_records import BlockRecords, write_block_records
from realm.fine_tuned import FineTuned
from realm.library.head import HEAD, Head, SegmentState, read_head, write_head
from realm.model.confidence import Calibrator, calibrator_from
from realm.planning.machine import ACCELERATORS, computed_rates
from realm.planning.machine import Calibration as Machine
from realm.records import Evidence
from realm.refresh.status import run_status
from realm.reporting.about import provenance_of, settings_of
from realm.reporting.curves import read_curves
from realm.storage import MANIFEST, lines_manifest, open_folder

REQUEST = {
    "format_version": 1,
    "kind": "run",
    "settings": {"stage": "pretrain", "steps": 5, "refresh": {"mode": "sync"}, "optimizer": {}},
    "inputs": {"passages": "0" * 64},
}
CONTENT = {"steps": 5, "seconds": 1.5, "metrics": {"loss": 2.0}, "peak_memory_bytes": 1 << 20}
FINISHED = {**REQUEST, "fingerprint": "f" * 64, "content": CONTENT}
LINES = b'{"step": 0, "loss": 3.5}\n{"step": 1, "loss": 3, "index/refreshed": 1}\n{"step": 2, "lo'
EVIDENCE = Evidence(
    probability=0.5,
    margin=0.1,
    best_logit=3.0,
    score=2.0,
    score_gap=0.5,
    agreement=0.5,
    overlap=0.2,
    p_null=None,
)
CALIBRATOR = Calibrator(
    names=("log_odds", "margin"), means=(0.0, 0.5), scales=(1.0, 2.0), weights=(1.0, -1.0), bias=0.1
)
CALIBRATED = Calibration(
    model_fingerprint="f" * 64,
    retriever="realm",
    num_passages=5,
    calibrator=CALIBRATOR,
    min_probability=0.3,
)
RECORD: dict[str, Any] = {
    "id": "1",
    "question": "a",
    "answers": ["b"],
    "answer_patterns": [],
    "exact_match": 1.0,
    "f1": 1.0,
    "regex_match": None,
    "rank": 1,
    "answer_was_read": True,
}
REPORT: dict[str, Any] = {
    **{name: {} for name in ("model", "corpus", "split", "settings", "metrics")},
    "kind": "report",
    "retriever": "realm",
    "normalizer": "x",
    "questions": [RECORD],
}
MACHINE = Machine(
    rates=computed_rates(ACCELERATORS["a100"], network_gbits=1.0),
    encoder="minilm",
    threads=1,
    hardware="x",
    versions={"torch": "2"},
    date="2026-01-01",
    seconds=1.0,
)
PROCESS = {"state": "embedding", "beat": 3, "done": 1, "total": 2, "host": "a", "pid": 1}


def _run(data: bytes) -> None:
    """Look at a run in which one file is the input."""
    files = ("request.json", MANIFEST, METRICS, "held-out.json", "processes/trainer.json")
    number, content = chosen(data, len(files))
    run = fresh_folder("run")
    (run / "processes").mkdir()
    (run / "request.json").write_text(json.dumps(REQUEST), encoding="utf-8")
    (run / files[number]).write_bytes(content)
    for line in read_metrics(run, after=1):
        assert line["step"] > 1, "a line from before"
    newest_metrics(run)
    read_held_out(run)
    record = read_run(run)
    curves = read_curves(run)
    json.dumps(curves.as_dict(), allow_nan=False)
    f"{record.stage}{record.num_steps}"
    settings_of(record)
    provenance_of(record)
    run_status(run).as_json()


def _calibration(path: Path) -> None:
    found = load_calibration(path.parent)
    assert found is not None, "a file that is not seen"
    probability = found.calibrator.probability(EVIDENCE)
    assert 0.0 <= probability <= 1.0, f"a probability of {probability}"
    assert 0.0 <= found.min_probability <= 1.0, "a threshold that is no probability"
    again = calibrator_from(found.calibrator.as_json())
    assert again == found.calibrator, "another calibrator after writing and reading"


def _checkpoint(data: bytes) -> None:
    """Open a packed model of which one file is the input, and nobody checks its hash."""
    files = ("model.json", "tokenizer.json", MANIFEST, "training.json")
    number, content = chosen(data, len(files))
    folder = fresh_folder("checkpoint")
    for file in packed_model().iterdir():
        (folder / file.name).hardlink_to(file)
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest["content"] = {}
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (folder / files[number]).unlink(missing_ok=True)
    (folder / files[number]).write_bytes(content)
    if files[number] == "training.json":
        (folder / "training.safetensors").write_bytes(save({"a": torch.zeros(2)}))
        load_state(folder)
    else:
        FineTuned.load(folder)


def _sources(path: Path) -> None:
    passages_of(path.parent)


def _alignment(path: Path) -> None:
    lines_manifest(path).write_text("{}", encoding="utf-8")
    read_alignment(path)


def _report(path: Path) -> None:
    for record in ReportFile.read(path).records:
        str(record["question"])


def _stored(data: bytes) -> None:
    """Read the weights that somebody published: safetensors, a torch file, an index of parts."""
    files = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
    number, content = chosen(data, len(files))
    folder = fresh_folder("weights")
    (folder / "part-1.safetensors").write_bytes(WEIGHTS)
    (folder / files[number]).write_bytes(content)
    stored = StoredWeights.open(folder)
    for name, shape in stored.items():
        assert tuple(stored.tensor(name).shape) == shape, "a tensor of another shape"


def _blocks(path: Path) -> None:
    """Read block records, whole and from the middle."""
    records = BlockRecords.open(path)
    texts = list(records)
    assert len(texts) == len(records), "more or fewer texts than the header says"
    assert list(records.texts(len(texts) // 2)) == texts[len(texts) // 2 :], "other texts"
    for text in texts:
        text.encode()


def _manifest(path: Path) -> None:
    open_folder(path.parent, "passages")


def _head(path: Path) -> None:
    head = read_head(path.parent)
    for state in head.segments:
        assert "/" not in state.name and ".." not in state.name, "a name that leads away"  # noqa: PT018


def _written(write: Callable[[Path], object]) -> bytes:
    path = scratch() / "seed"
    write(path)
    return path.read_bytes()


def _torch_file(path: Path) -> None:
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, path)


def _objects(path: Path, texts: list[Any], version: int) -> None:
    import pickle

    array = np.array(texts, dtype=object)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": (len(texts),)}
        )
        pickle.dump(array, file, protocol=version)


def _array(path: Path, texts: list[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, np.array(texts))


WEIGHTS = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)})


def _run_seeds() -> list[bytes]:
    files = (REQUEST, FINISHED, LINES, {"steps": [0, 5]}, PROCESS)
    told = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in files]
    return [bytes([number]) + content for number, content in enumerate(told)]


def _checkpoint_seeds() -> list[bytes]:
    names = ("model.json", "tokenizer.json", MANIFEST)
    files = [(packed_model() / name).read_bytes() for name in names]
    return [bytes([n]) + content for n, content in enumerate([*files, b'{"step": 3, "x": 1}'])]


def _weight_seeds() -> list[bytes]:
    index = json.dumps({"weight_map": {"a": "part-1.safetensors"}}).encode()
    return [b"\0" + WEIGHTS, b"\1" + _written(_torch_file), b"\2" + index]


def _block_seeds() -> list[bytes]:
    texts = ["April is a month.", "", "\u65e5\u672c\u8a9e e\u0301", "x" * 300]
    raw = [text.encode() for text in texts]
    return [
        _written(lambda path: write_block_records(path, texts, len(texts))),
        *(_written(lambda path, v=v: _objects(path, raw, v)) for v in (2, 3, 4, 5)),
        _written(lambda path: _objects(path, texts, 4)),
        _written(lambda path: _array(path, texts[:2])),
        _written(lambda path: _array(path, raw[:2])),
    ]


def _packed_seeds() -> list[bytes]:
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3)}
    return [_written(lambda path: write_packed(weights, path))]


def _head_seeds() -> list[bytes]:
    head = Head(
        version=3,
        made_with={"dim": 16},
        model="x",
        segments=(SegmentState(name="segment-00000001", removed=(0, 2)),),
    )

    def write(path: Path) -> None:
        write_head(path.parent, head)
        (path.parent / HEAD).rename(path)

    return [_written(write)]


def _in_folder(folder: str, name: str, read: Callable[[Path], None]) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        (scratch() / folder).mkdir(exist_ok=True)
        from_file(f"{folder}/{name}", read)(data)

    return take


FOLDER_TARGETS = (
    Target(name="run", take=_run, seeds=_run_seeds),
    Target(
        name="calibration",
        take=_in_folder("calibrated", CALIBRATION, _calibration),
        seeds=lambda: [json.dumps(CALIBRATED.as_json()).encode()],
    ),
    Target(
        name="manifest",
        take=_in_folder("passages", MANIFEST, _manifest),
        seeds=lambda: [json.dumps({**FINISHED, "kind": "passages"}).encode()],
    ),
    Target(name="library-head", take=_in_folder("a-library", HEAD, _head), seeds=_head_seeds),
    Target(
        name="sources",
        take=_in_folder("a-run", SOURCES, _sources),
        seeds=lambda: [b'{"passages": "."}', b'{"passages": "../gone"}'],
    ),
    Target(
        name="alignment",
        take=from_file("pairs.jsonl", _alignment),
        seeds=lambda: [b'{"text": "a", "origin": 0, "passages": [{"row": 1}], "nearest": "a#0"}\n'],
    ),
    Target(
        name="report",
        take=from_file("report.json", _report),
        seeds=lambda: [json.dumps(REPORT).encode()],
    ),
    Target(
        name="machine",
        take=from_file("machine.json", Machine.load),
        seeds=lambda: [_written(lambda path: MACHINE.save(path))],
    ),
    Target(name="checkpoint", take=_checkpoint, seeds=_checkpoint_seeds),
    Target(name="packed", take=from_file("packed.safetensors", read_packed), seeds=_packed_seeds),
    Target(name="weights", take=_stored, seeds=_weight_seeds),
    Target(name="block-records", take=from_file("records.npy", _blocks), seeds=_block_seeds),
)
