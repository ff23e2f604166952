"""Two ranks train what one does; a killed rank costs the steps since the last checkpoint."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.run_records import read_metrics
from realm.config import TrainConfig
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.masking.store import ExampleStore
from realm.ranks import Ranks
from realm.training.loop import check_ranks

Torchrun = Callable[..., subprocess.CompletedProcess[str]]
AssertSameRun = Callable[[Path, Path], None]

SHARED: dict[str, Any] = {
    "steps": 8,
    "batch_size": 4,
    "save_every_steps": 3,
    "eval_every_steps": 4,
    "autocast": "none",
    "dropout": 0.0,
    "held_out": 0.3,
    "threads": 1,
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2},
}
ICT = {**SHARED, "encoder": {"init": "scratch:1x32"}, "projection_size": 16}
JOINT: dict[str, Any] = {
    **SHARED,
    "num_candidates": 4,
    "num_eval_examples": 20,
    "batch_tokens": 256,  # several groups in a batch, not equally many on both ranks
    "retriever_frozen_steps": 2,
    "refresh": {"mode": "sync", "every_steps": 2},
}
LIVE = {"mode": "sync", "every_steps": 4, "write_back": True}
RERANKED = {**LIVE, "rerank_passages": 12}
ASYNC = {"every_steps": 2, "max_staleness_steps": 3, "shard_rows": 8}
NOISY = {**JOINT, "dropout": 0.1, "steps": 10}
ASKED = {**SHARED, "num_passages": 3, "retriever_beam": 8, "span_hidden": 16}
LEARNT = {**ASKED, "train_passages": True, "fresh_passages": 4, "batch_tokens": 256}
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "ict": ("ict", ICT),
    "unequal": ("ict", {**ICT, "batch_size": 2, "share_towers": False}),
    "mlm": ("mlm", {**SHARED, "encoder": {"init": "scratch:1x32"}}),
    "pretrain": ("pretrain", JOINT),
    "deeper": ("pretrain", {**JOINT, "retriever_frozen_steps": 0}),
    "live": ("pretrain", {**JOINT, "refresh": LIVE}),
    "reranked": ("pretrain", {**JOINT, "refresh": RERANKED}),
    "async": ("pretrain", {**JOINT, "refresh": {**ASYNC, "order": "sweep"}}),
    "rolling": ("pretrain", {**JOINT, "refresh": ASYNC}),
    "finetune": ("finetune", ASKED),
    "passages": ("finetune", {**LEARNT, "refresh": LIVE}),
    "alone": ("finetune", {**LEARNT, "batch_size": 2, "held_out": 0.0, "refresh": RERANKED}),
    "passages-rolling": ("finetune", {**LEARNT, "refresh": ASYNC}),
    "classify": (
        "classify",  # Adam makes steps of rounding errors where a gradient is nothing: small ones
        {**SHARED, "num_passages": 3, "optimizer": {"learning_rate": 1e-4, "warmup_steps": 2}},
    ),
    "whole": ("pretrain", NOISY),
    "killed": ("pretrain", NOISY),
}
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch

torch.set_num_threads(1)
from realm.config import ClassifyConfig, FinetuneConfig, IctConfig, MlmConfig, PretrainConfig
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.torchrun import started_ranks
from realm.records import Claim, Question
from realm.retrieval.candidates import CandidateFinder
from realm.training.classify import classify
from realm.training.finetune import finetune
from realm.training.ict import IctJob, ict
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain
from realm.training.pretrain_job import PretrainJob

out, passages, masked, embedder, encoder = map(Path, sys.argv[2:])
store, examples = PassageStore.open(passages), ExampleStore.open(masked)
questions = [
    Question(id=str(n), question=f"where was the builder {name} born", answers=(town,))
    for n, (name, town) in enumerate(
        [("arlo", "Tarvik"), ("bexa", "Ulmer"), ("cimo", "Vosta"), ("dule", "Welan")]
    )
]
stage = ""

def step(self, number, run=PretrainJob.step):
    if (stage, number, self.ranks.rank) == ("killed", 7, 1):
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
    return run(self, number)

def draw(self, row, rng, remove=None, run=IctJob._draw):  # one passage in two gives no pair
    drawn = run(self, row, rng, remove=remove)
    return None if stage == "unequal" and row % 2 else drawn

def are_own(self, example, rows, run=CandidateFinder.are_own):  # most of the best for some examples
    own = run(self, example, rows)
    return [
        o or (stage == "deeper" and (row + example.row) % 4 != 0) for o, row in zip(own, rows)
    ]

PretrainJob.step, IctJob._draw, CandidateFinder.are_own = step, draw, are_own
with started_ranks() as ranks:
    for stage, (kind, settings) in json.loads(sys.argv[1]).items():
        if kind == "ict":
            config = IctConfig.model_validate(settings)
            report = ict(store, out / stage, config=config, ranks=ranks)
        elif kind == "mlm":
            config = MlmConfig.model_validate(settings)
            report = mlm(store, out / stage, config=config, examples=examples, ranks=ranks)
        elif kind == "pretrain":
            config = PretrainConfig.model_validate(settings)
            start = {"embedder": embedder, "encoder": encoder}
            report = pretrain(examples, store, out / stage, config=config, ranks=ranks, **start)
        elif kind == "classify":
            config = ClassifyConfig.model_validate(settings)
            start = {"run": embedder, "encoder": encoder}
            claims = [Claim(id=q.id, claim=q.question, label=q.answers[0][:1]) for q in questions]
            report = classify(claims, store, out / stage, config=config, ranks=ranks, **start)
        else:
            config = FinetuneConfig.model_validate(settings)
            start = {"run": embedder, "encoder": encoder}
            asked = questions[:1] if stage == "alone" else questions  # one rank has none
            report = finetune(asked, store, out / stage, config=config, ranks=ranks, **start)
        told = {"resumed_from": report.resumed_from, "already_done": report.already_done}
        with (out / f"reports-{ranks.rank}.jsonl").open("a") as stream:
            stream.write(json.dumps({"stage": stage, **told}) + "\\n")
"""


@pytest.fixture(scope="module")
def runs(
    torchrun: Torchrun,
    store: PassageStore,
    examples: ExampleStore,
    start: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, Path]:
    """Every stage by one rank and by two; of the two, one is killed in the last stage."""
    folders: dict[int, Path] = {}
    for world in (1, 2):
        stages = {n: s for n, s in STAGES.items() if world == 2 or n not in {"whole", "killed"}}
        folders[world] = tmp_path_factory.mktemp(f"world{world}")
        places = [folders[world], store.folder, examples.folder, *start.values()]
        restarts = 2 * (world - 1)  # one for the kill; once torch has aborted as a rank ended
        ended = torchrun(SCRIPT, json.dumps(stages), *places, world=world, restarts=restarts)
        assert ended.returncode == 0, ended.stderr
    return folders


def reports(folder: Path, rank: int, stage: str) -> list[dict[str, Any]]:
    lines = (folder / f"reports-{rank}.jsonl").read_text(encoding="utf-8").splitlines()
    return [told for line in lines if (told := json.loads(line))["stage"] == stage]


ALIKE = ["ict", "unequal", "mlm", "pretrain", "live", "reranked"]
ALIKE += ["finetune", "passages", "alone", "classify"]


@pytest.mark.parametrize("stage", [*ALIKE, "deeper"])
def test_two_ranks_show_the_numbers_of_one(runs: dict[int, Path], stage: str) -> None:
    """Losses of the whole batch, measurements and gradients; only times may differ."""
    one, two = (read_metrics(runs[world] / stage) for world in (1, 2))
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert sum("loss" in line for line in two) == 8
    for expected, found in zip(one, two, strict=True):
        assert set(found) == set(expected)
        for name, value in expected.items():
            if name in {"step_seconds", "tokens_per_second"}:
                continue
            limit = 1e-5 if "loss" in name else 1e-4
            assert found[name] == pytest.approx(value, abs=limit, rel=limit), name


def test_the_cases_that_ranks_must_not_stumble_over_occurred(runs: dict[int, Path]) -> None:
    """A step without a pair, hence ranks without one; groups that only one rank has."""
    losses = [line["loss"] for line in read_metrics(runs[2] / "unequal") if "loss" in line]
    assert 0.0 in losses
    assert max(losses) > 0.0


@pytest.mark.parametrize("stage", ["async", "rolling", "passages-rolling"])
def test_ranks_swap_together_what_a_builder_publishes(runs: dict[int, Path], stage: str) -> None:
    """The bound on staleness makes the trainer wait for the builder, so that there is a swap."""
    for world in (1, 2):
        lines = [line for line in read_metrics(runs[world] / stage) if "loss" in line]
        assert len(lines) == 8
        assert sum(line["index/refreshed"] for line in lines) >= 2
        assert max(line["index/staleness_steps"] for line in lines) <= 3


@pytest.mark.parametrize("stage", ALIKE)
def test_two_ranks_end_with_the_parameters_of_one(runs: dict[int, Path], stage: str) -> None:
    one, two = (load_model(runs[world] / stage).modules for world in (1, 2))
    for name, part in one.items():
        for found, expected in zip(two[name].parameters(), part.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


def test_a_killed_rank_restarts_all_and_the_run_ends_as_if_nothing_had_happened(
    runs: dict[int, Path], assert_same_run: AssertSameRun
) -> None:
    """Killed in step 7: both ranks go on from the checkpoint of step 6, bit for bit."""
    assert_same_run(runs[2] / "killed", runs[2] / "whole")
    for rank in (0, 1):
        told, *_ = reports(runs[2], rank, "killed")
        assert told == {"stage": "killed", "resumed_from": 6, "already_done": False}
        first, again, *_ = reports(runs[2], rank, "whole")
        assert (first["already_done"], again["already_done"]) == (False, True)


@pytest.mark.parametrize(
    ("size", "world", "advice"), [(5, 2, "4 or 6"), (8, 3, "6 or 9"), (2, 3, "=3")]
)
def test_a_batch_that_cannot_be_shared_is_refused(size: int, world: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"batch_size={size} .*{advice}"):
        check_ranks(TrainConfig(batch_size=size), Ranks(world=world))
    check_ranks(TrainConfig(batch_size=2 * world), Ranks(world=world))
