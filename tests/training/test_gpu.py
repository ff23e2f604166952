"""On a GPU: the same numbers as on the CPU, and every stage to its end.

Where there is none, on one that is pretended (`tests/pretended_gpu.py`): it refuses what a GPU
would refuse, which is what most of these tests are there to find.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
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
from realm.evaluation.closed_book import ClosedBook
from realm.explaining import Explainer
from realm.index.builder import PassageEmbedder
from realm.index.live import LiveIndex
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.masking.store import ExampleStore
from realm.model.embedder import embed_in_groups
from realm.records import Question
from realm.refresh.sync import SyncRefresher
from realm.storage import MANIFEST, read_json
from realm.training.finetune import finetune
from realm.training.head import init_head
from realm.training.ict import ict
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain
from realm.training.pretrain_job import PretrainJob
from realm.training.refreshing import index_config
from tests.pretended_gpu import PretendedGpu, pretended_gpu

IS_THERE = torch.cuda.is_available()
CUDA = torch.device("cuda")
SCRATCH = EncoderConfig(init="scratch:1x32")
COMMON: dict[str, Any] = {
    "autocast": "none",
    "dropout": 0.0,
    "held_out": 0.2,
    "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
}
QUESTIONS = [Question(id="1", question="where was the builder arlo born", answers=("Tarvik",))]


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu | None]:
    with nullcontext() if IS_THERE else pretended_gpu(monkeypatch) as entered:
        yield entered


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
            refresh=RefreshConfig(every_steps=2, builders=int(IS_THERE)),
        ),
    )
    settings = FinetuneConfig(**{**few, "batch_size": 1}, **{**COMMON, "held_out": 0.0})
    finetune(QUESTIONS, store, tmp_path / "qa", run=tmp_path / "run", config=settings)
    answered = Answerer.load(tmp_path / "qa").answer(["where was the builder arlo born"])
    assert answered[0].answers


@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_a_run_goes_on_on_another_device(
    examples: ExampleStore,
    store: PassageStore,
    start: dict[str, Path],
    tmp_path: Path,
    first: str,
) -> None:
    def run(out: str, device: str, stop_at: int = 9) -> list[float]:
        def stop(step: int, *_: object) -> None:
            if step == stop_at:
                raise KeyboardInterrupt

        settings: dict[str, Any] = {"batch_size": 2, "num_candidates": 4, "num_eval_examples": 2}
        cadence = {"steps": 4, "save_every_steps": 2, "log_every_steps": 1}
        refresh = RefreshConfig(mode="sync", every_steps=3, write_back=True)
        with suppress(KeyboardInterrupt):
            pretrain(
                examples,
                store,
                tmp_path / out,
                embedder=start["embedder"],
                encoder=start["encoder"],
                config=PretrainConfig(
                    device=device, refresh=refresh, **cadence, **settings, **COMMON
                ),
                on_metrics=stop,
            )
        return losses(tmp_path / out)

    second = "cuda" if first == "cpu" else "cpu"
    assert len(run("both", first, stop_at=3)) == 3
    assert run("both", second) == pytest.approx(run("one", first), rel=1e-3)


def test_both_towers_and_both_ways_of_retrieving_learn_on_a_gpu(
    examples: ExampleStore, store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    few: dict[str, Any] = {"steps": 2, "batch_size": 1, "save_every_steps": 1, "device": "cuda"}
    common = {**few, **COMMON, "autocast": "bfloat16", "dropout": 0.1}
    pretrain(
        examples,
        store,
        tmp_path / "run",
        embedder=start["embedder"],
        encoder=start["encoder"],
        config=PretrainConfig(
            num_candidates=4,
            null_passage=False,
            share_towers=False,
            num_eval_examples=2,
            refresh=RefreshConfig(mode="sync", every_steps=1, rerank_passages=6, write_back=True),
            **common,
        ),
    )
    ClosedBook.load(tmp_path / "run").answer(["where was the builder arlo born"])
    finetune(
        QUESTIONS,
        store,
        tmp_path / "qa",
        run=tmp_path / "run",
        config=FinetuneConfig(
            train_passages=True,
            retriever="hybrid",
            objective="emdr2",
            null_passage=True,
            refresh=RefreshConfig(mode="async", every_steps=1, builders=0),
            **{**common, "held_out": 0.0},
        ),
    )
    Answerer.load(tmp_path / "qa", autocast="auto").answer(["where was the builder arlo born"])


@pytest.mark.parametrize("drawn", [None, 2])
def test_a_step_sends_nothing_that_the_host_waits_for(
    gpu: PretendedGpu | None,
    examples: ExampleStore,
    store: PassageStore,
    start: dict[str, Path],
    tmp_path: Path,
    drawn: int | None,
) -> None:
    """Whoever copies memory that is not pinned waits until the GPU has done all it was given."""
    if gpu is None:
        pytest.skip("counted where a GPU is pretended")
    parts = [load_model(start[name]).to(CUDA) for name in ("embedder", "encoder")]
    config = PretrainConfig(
        batch_size=2, num_candidates=4, num_eval_examples=2, gradient_candidates=drawn, **COMMON
    )
    refresher = SyncRefresher(
        tmp_path,
        store,
        config=config.refresh,
        index=index_config(config, len(store)),
        device=CUDA,
    )
    towers, encoder = parts[0].need_towers(), parts[1].need_encoder()
    job = PretrainJob(examples, towers, encoder, refresher, config)
    job.before_step(0)
    gpu.counted.clear()
    job.step(0)
    assert gpu.counted["up, not waited for"]
    assert not gpu.counted["up"]


def test_the_head_that_ridge_regression_sets_is_that_of_the_cpu(
    store: PassageStore, start: dict[str, Path]
) -> None:
    found = []
    for device in (torch.device("cpu"), CUDA):
        encoder = load_model(start["encoder"]).need_encoder().to(device)
        init_head(encoder, store, list(range(len(store))), MlmConfig(autocast="none"))
        found.append([one.detach().cpu() for one in encoder.head.parameters()])
    for here, there in zip(*found, strict=True):
        assert torch.allclose(here, there, rtol=1e-2, atol=1e-2)


def test_passages_are_embedded_in_passes_as_large_as_a_gpu_wants(
    store: PassageStore, start: dict[str, Path], tmp_path: Path
) -> None:
    """One of 8,192 wordpieces, as for a CPU, would take longer to start than to run."""
    for asked, taken in ((100_000, 100_000), (4_096, 8_192)):
        assert index_config(PretrainConfig(batch_tokens=asked), 100).batch_tokens == taken
    model = load_model(start["embedder"])
    for device, taken in ((torch.device("cpu"), 8_192), (CUDA, 65_536)):
        kept_in = tmp_path / device.type
        snapshot = open_snapshot(tmp_path, model.to(device), store, kept_in=kept_in)
        assert read_json(snapshot.folder / MANIFEST)["settings"]["batch_tokens"] == taken


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
