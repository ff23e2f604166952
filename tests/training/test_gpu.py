"""On a GPU: the same numbers as on the CPU, and every stage to its end. Skipped without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.answering import Answerer
from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.run_records import read_metrics
from realm.config import (
    EncoderConfig,
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MlmConfig,
    OptimizerConfig,
    PretrainConfig,
    RefreshConfig,
)
from realm.corpus.store import PassageStore
from realm.explaining import Explainer
from realm.index.builder import PassageEmbedder
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.masking.store import ExampleStore
from realm.model.embedder import embed_in_groups
from realm.records import Question
from realm.training.finetune import finetune
from realm.training.ict import ict
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
CUDA = torch.device("cuda")
SCRATCH = EncoderConfig(init="scratch:1x32")
COMMON: dict[str, Any] = {
    "autocast": "none",
    "dropout": 0.0,
    "held_out": 0.2,
    "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
}
QUESTIONS = [Question(id="1", question="where was the builder arlo born", answers=("Tarvik",))]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def test_vectors_and_gradients_are_those_of_the_cpu(
    store: PassageStore, start: dict[str, Path]
) -> None:
    inputs = [
        store.tokenizer.passage_input([], store.wordpieces(row).tolist(), 64) for row in range(8)
    ]
    found = []
    for device in (torch.device("cpu"), CUDA):
        tower = load_model(start["embedder"]).need_towers().query.to(device)
        vectors = embed_in_groups(tower, inputs, pad_id=store.tokenizer.pad_id, batch_tokens=128)
        assert vectors.device.type == "cpu"
        vectors.square().sum().backward()
        found.append((vectors.detach(), tower.projection.weight.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    assert torch.allclose(found[0][1], found[1][1].cpu(), rtol=1e-3, atol=1e-3)


def test_an_index_on_a_gpu_finds_what_one_in_main_memory_finds(
    make_snapshot: Callable[..., Snapshot], make_towers: Callable[..., Any]
) -> None:
    snapshot = make_snapshot(make_towers())
    both = [LiveIndex(Snapshot.open(snapshot.folder), d) for d in (torch.device("cpu"), CUDA)]
    queries = torch.randn(5, snapshot.exact.dim)
    rows, vectors = torch.tensor([1, 3]), torch.randn(2, snapshot.exact.dim)
    for _ in range(2):
        answers = [index.search(queries, 3) for index in both]
        assert torch.equal(answers[0][1], answers[1][1])
        assert torch.allclose(answers[0][0], answers[1][0], atol=1e-5)
        for index in both:
            index.write(rows, vectors, 7)


@pytest.mark.parametrize("drawn", [None, 2])
def test_a_step_on_a_gpu_shows_the_loss_of_the_cpu_and_a_run_goes_on(
    examples: ExampleStore,
    store: PassageStore,
    start: dict[str, Path],
    tmp_path: Path,
    drawn: int | None,
) -> None:
    for device in ("cpu", "cuda"):
        pretrain(
            examples,
            store,
            tmp_path / device,
            embedder=start["embedder"],
            encoder=start["encoder"],
            config=PretrainConfig(
                steps=4,
                batch_size=4,
                num_candidates=4,
                gradient_candidates=drawn,
                num_eval_examples=4,
                device=device,
                save_every_steps=2,
                refresh=RefreshConfig(mode="sync", every_steps=2),
                **COMMON,
            ),
        )
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)
    Explainer.load(tmp_path / "cuda").explain("the builder [MASK] was born", num_candidates=4)


def test_every_other_stage_runs_on_a_gpu(
    examples: ExampleStore, store: PassageStore, tmp_path: Path
) -> None:
    few = {"steps": 3, "batch_size": 4, "device": "cuda", "save_every_steps": 2}
    ict(store, tmp_path / "ict", config=IctConfig(encoder=SCRATCH, **few, **COMMON))
    mlm(
        store,
        tmp_path / "mlm",
        examples=examples,
        config=MlmConfig(encoder=SCRATCH, **few, **COMMON),
    )
    pretrain(
        examples,
        store,
        tmp_path / "run",
        embedder=tmp_path / "ict",
        encoder=tmp_path / "mlm",
        config=PretrainConfig(
            **few,
            **COMMON,
            num_candidates=4,
            num_eval_examples=4,
            refresh=RefreshConfig(every_steps=2),
        ),
    )
    settings = FinetuneConfig(**{**few, "batch_size": 1}, **{**COMMON, "held_out": 0.0})
    finetune(QUESTIONS, store, tmp_path / "qa", run=tmp_path / "run", config=settings)
    answered = Answerer.load(tmp_path / "qa").answer(["where was the builder arlo born"])
    assert answered[0].answers


def test_an_index_built_in_16_bits_points_where_one_in_32_bits_does(
    store: PassageStore, start: dict[str, Path]
) -> None:
    tower = load_model(start["embedder"]).need_towers().passage.to(CUDA)
    rows = range(len(store))
    found = [
        PassageEmbedder(tower, store, IndexConfig(autocast=kind))(rows)
        for kind in ("none", "bfloat16")
    ]
    assert torch.cosine_similarity(*found).min() > 0.999
