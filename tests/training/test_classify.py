"""Fine-tuning on claims: labels that only the right passage tells, and what learns from them."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from realm.checkpoint.checkpoints import load_model, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_records import read_metrics
from realm.checkpoint.sources import ANSWER, CLASSIFY, passages_of, task_of
from realm.classifying import ClaimClassifier
from realm.config import ClassifyConfig, EncoderConfig, IctConfig, OptimizerConfig, SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ConfigError, CorpusError
from realm.index.snapshot import Snapshot
from realm.model.bert import set_dropout
from realm.model.classifier import label_logits
from realm.model.encoder import build_encoder
from realm.records import Claim
from realm.retrieval.reading import joint_inputs
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer
from realm.training.classify import classify
from realm.training.classify_job import ClassifyJob
from realm.training.ict import ict
from realm.training.sampling import batch_at, is_held_out

ENDS = ("an", "es", "or", "iv", "um", "el", "ot", "ad")
NAMES = [a + b + c for a in ("ba", "do", "fi", "gu") for b in "klmnrs" for c in ENDS]
SCRATCH = EncoderConfig(init="scratch:1x32")
DEEDS = {
    "true": "kept every promise and paid each debt",
    "false": "broke all vows then stole our gold",
}
MakeStore = Callable[[Mapping[str, str]], PassageStore]
MakeShort = Callable[[PassageStore], dict[str, Path]]
MakeJob = Callable[..., ClassifyJob]


def told(seed: int = 0) -> dict[str, str]:
    """Return name -> label, half of them true."""
    labels = np.random.default_rng(seed).permutation(["true", "false"] * (len(NAMES) // 2))
    return dict(zip(NAMES, labels.tolist(), strict=True))


def articles(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """A passage each: nothing but its words says which label a name has."""
    return [
        {"id": name, "title": name, "text": f"Can you trust {name}. {name} {DEEDS[label]}."}
        for name, label in labels.items()
    ]


def claims_of(labels: Mapping[str, str]) -> list[Claim]:
    return [
        Claim(id=name, claim=f"you can trust {name}", label=label) for name, label in labels.items()
    ]


def config(**changed: Any) -> ClassifyConfig:
    settings: dict[str, Any] = {
        "steps": 60,
        "batch_size": 12,
        "num_passages": 3,
        "retriever_rate": 0.1,
        "question_wordpieces": 16,
        "joint_wordpieces": 64,
        "autocast": "none",
        "dropout": 0.0,
        "held_out": 0.33,
        "threads": 1,
        "eval_every_steps": 60,
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=5),
    }
    return ClassifyConfig(**{**settings, **changed})


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Split a world in which the names have these labels."""

    def make(labels: Mapping[str, str]) -> PassageStore:
        folder = tmp_path_factory.mktemp("world")
        lines = "".join(json.dumps(article) + "\n" for article in articles(labels))
        (folder / "articles.jsonl").write_text(lines, encoding="utf-8")
        words = sorted(
            set(re.findall(r"\w+|[.]", lines.lower())) | set("abcdefghijklmnopqrstuvwxyz")
        )
        split(
            [folder / "articles.jsonl"],
            folder / "out",
            config=SplitConfig(max_wordpieces=48),
            tokenizer=WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *words]),
        )
        return PassageStore.open(folder / "out")

    return make


@pytest.fixture(scope="session")
def store(make_store: MakeStore) -> PassageStore:
    return make_store(told())


@pytest.fixture(scope="session")
def start(store: PassageStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An embedder that finds a name's passage, and an encoder that knows nothing."""
    folder = tmp_path_factory.mktemp("start")
    settings = IctConfig(
        encoder=SCRATCH,
        projection_size=16,
        initial_score_scale=8.0,
        steps=25,
        batch_size=24,
        autocast="none",
        dropout=0.0,
        held_out=0.0,
        threads=1,
        eval_every_steps=100,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
    )
    ict(store, folder / "embedder", config=settings)
    torch.manual_seed(0)
    shape = load_pretrained(SCRATCH, tokenizer=store.tokenizer).settings
    encoder = build_encoder({"bert": {**shape, "initializer_range": 0.05}})
    save_checkpoint(
        folder / "encoder",
        Model(tokenizer=store.tokenizer, encoder=encoder),
        settings={},
        inputs={},
    )
    return {"run": folder / "embedder", "encoder": folder / "encoder"}


@pytest.fixture(scope="session")
def trained(
    store: PassageStore, start: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("claims") / "run"
    classify(claims_of(told()), store, run, config=config(), **start)
    return run


@pytest.fixture
def make_job(trained: Path, store: PassageStore) -> MakeJob:
    snapshot = Snapshot.open(trained / "index" / "step-0")

    def make(**changed: Any) -> ClassifyJob:
        model = load_model(trained)
        parts = model.need_towers(), model.need_classifier()
        settings = config(**{"held_out": 0.0, **changed})
        return ClassifyJob(claims_of(told()), store, snapshot, *parts, settings)

    return make


def gradients(job: ClassifyJob) -> list[Tensor]:
    return [
        torch.zeros_like(p) if p.grad is None else p.grad
        for part in (job.towers.query, job.classifier)
        for p in part.parameters()
    ]


def share_right(run: Path, passages: Path | None = None) -> float:
    """Return the share of the held-out claims whose label a run tells."""
    held = [one for one in claims_of(told()) if is_held_out(one.claim, config().held_out)]
    said = ClaimClassifier.load(run, passages=passages).classify([one.claim for one in held])
    return sum(one.label == own.label for own, one in zip(held, said, strict=True)) / len(held)


def mean_p_own(job: ClassifyJob) -> float:
    """Return the mean p(z|x) of the passage on the claim's own name, over those read."""
    with torch.inference_mode():
        vectors = job.retriever.embed([one.claim for one in job.train_claims])
        scores, rows = job.retriever.snapshot.search(vectors, job.config.num_passages)
    own = [
        [job.store[row].title == one.id for row in found]
        for one, found in zip(job.train_claims, rows.tolist(), strict=True)
    ]
    return float((scores.softmax(dim=-1) * torch.tensor(own)).sum(dim=-1).mean())


def blur(module: torch.nn.Module) -> None:
    """Add noise to the parameters."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)


def test_labels_of_names_never_trained_on_are_read_from_the_right_passage(trained: Path) -> None:
    """A name says nothing about its label: only a reader of its passage can be right."""
    lines = [line for line in read_metrics(trained) if "eval/accuracy" in line]
    assert 0.3 < lines[0]["eval/accuracy"] < 0.7
    assert lines[-1]["eval/accuracy"] > 0.9
    assert lines[-1]["eval/loss"] < 0.5 * lines[0]["eval/loss"]


def test_over_a_corpus_that_says_the_opposite_the_labels_are_the_opposite(
    trained: Path, make_store: MakeStore
) -> None:
    flipped = {name: "false" if label == "true" else "true" for name, label in told().items()}
    assert share_right(trained) > 0.9
    assert share_right(trained, make_store(flipped).folder) < 0.1


def test_question_tower_and_classifier_learn_the_passages_stand_still(
    trained: Path, start: dict[str, Path], store: PassageStore
) -> None:
    before, after = load_model(start["run"]).need_towers(), load_model(trained)
    towers = after.need_towers()
    assert not towers.shared
    assert tower_hash(towers.passage) == tower_hash(before.passage)
    assert tower_hash(towers.query) != tower_hash(before.query)
    assert after.need_classifier().labels == ("false", "true")
    snapshot = Snapshot.open(trained / "index" / "step-0", verify=True)
    assert snapshot.model_hash == tower_hash(towers.passage)
    assert passages_of(trained) == store.folder.resolve()
    assert (task_of(trained), task_of(start["run"])) == (CLASSIFY, ANSWER)


@pytest.mark.parametrize("batch_tokens", [64, 4_096])
def test_the_gradient_sent_back_in_two_parts_is_that_of_one_graph(
    make_job: MakeJob, store: PassageStore, batch_tokens: int
) -> None:
    """Loss = -log sum_z p(z|x) p(label|z,x), the mean over the claims; nothing else."""
    job = make_job(batch_tokens=batch_tokens)
    blur(job.classifier)
    measured = job.step(0)
    found = gradients(job)

    plain = make_job()
    blur(plain.classifier)
    numbers = batch_at(0, num_items=len(NAMES), batch_size=12, seed=0)
    claims = [plain.train_claims[number] for number in numbers]
    vectors = plain.retriever.embed([one.claim for one in claims])
    _, rows = plain.retriever.snapshot.search(vectors, 3)
    scores = torch.einsum("qd,qkd->qk", vectors, plain.retriever.snapshot.exact[rows])
    losses: list[Tensor] = []
    for number, one in enumerate(claims):
        ids = store.tokenizer.encode(one.claim).ids
        inputs = joint_inputs(store, ids, rows[number].tolist(), 64)
        p_given = label_logits(plain.classifier, inputs, plain.budget).softmax(dim=-1)
        p_label = scores[number].softmax(dim=0) @ p_given[:, ["false", "true"].index(one.label)]
        losses.append(-p_label.log())
    total = torch.stack(losses).mean()
    total.backward()
    assert measured["loss"] == pytest.approx(float(total.detach()), rel=1e-5)
    expected = gradients(plain)
    in_tower = len(list(plain.towers.query.parameters()))
    assert sum(float(value.abs().sum()) for value in expected[:in_tower]) > 1e-3
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in job.towers.passage.parameters())


def test_labels_alone_teach_the_question_tower_which_passage_to_read(make_job: MakeJob) -> None:
    """A classifier that can read and stands still, a retriever that was blurred: p(z|x) rises."""
    job = make_job(batch_size=24, num_passages=6)
    job.train_claims = job.train_claims[:24]
    blur(job.towers.query.projection)
    optimizer = torch.optim.Adam(job.towers.query.parameters(), lr=1e-3)
    before = mean_p_own(job)
    for step in range(15):
        job.step(step)
        optimizer.step()
        optimizer.zero_grad()
    assert mean_p_own(job) > 1.5 * before


def test_a_question_tower_at_rate_0_stands_still_and_costs_the_classifier_nothing(
    make_job: MakeJob,
) -> None:
    """Its gradient would shorten the classifier's step, by the clip of the norm of both."""
    job = make_job(retriever_rate=0.0)
    job.step(0)
    assert list(job.trained()) == ["classifier"]
    assert all(p.grad is None for p in job.towers.query.parameters())
    assert any(p.grad is not None for p in job.classifier.parameters())


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_dropout_changes_what_is_read_only_where_the_question_tower_learns(
    make_job: MakeJob, rate: float
) -> None:
    job = make_job(retriever_rate=rate)
    set_dropout(job.towers.train(), 0.3)
    losses: set[float] = set()
    for seed in range(3):
        torch.manual_seed(seed)
        losses.add(job.step(0)["loss"])
    assert (len(losses) == 1) == (rate == 0)
    assert job.towers.query.training


def test_a_classifier_of_the_same_labels_goes_on_another_gets_a_new_output_layer(
    trained: Path, store: PassageStore, tmp_path: Path
) -> None:
    still = config(steps=1, optimizer=OptimizerConfig(learning_rate=1e-12))
    classify(claims_of(told()), store, tmp_path / "same", run=trained, config=still)
    other = [Claim(id=one.id, claim=one.claim, label="?") for one in claims_of(told())[::3]]
    classify([*claims_of(told()), *other], store, tmp_path / "other", run=trained, config=still)
    old, same, new = (
        load_model(run).need_classifier()
        for run in (trained, tmp_path / "same", tmp_path / "other")
    )
    for name, value in old.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], value)
        if name.startswith("bert."):
            torch.testing.assert_close(new.state_dict()[name], value)
    assert new.labels == ("?", "false", "true")


def test_a_claim_of_another_length_is_cut_in_training(
    store: PassageStore, make_job: MakeJob
) -> None:
    job = make_job(question_wordpieces=8)
    job.train_claims = [Claim(id="1", claim="you can trust bakan " * 9, label="true")]
    assert job.step(0)["tokens"] == 3 * (6 + 3 + len(store.wordpieces(0)))


def test_held_out_claims_are_never_trained_on(make_job: MakeJob) -> None:
    job = make_job(held_out=0.33)
    trained_on, held = ({one.id for one in p} for p in (job.train_claims, job.eval_claims))
    assert held
    assert not trained_on & held
    measured = job.evaluate(0)
    assert set(measured) == {"eval/loss", "eval/accuracy"}
    assert all(value.abs().sum() == 0 for value in gradients(job))
    assert make_job(held_out=0.0).evaluate(0) == {}


@pytest.mark.parametrize("num_claims", [0, 3])
def test_fewer_than_two_labels_are_refused_and_leave_no_run(
    store: PassageStore, start: dict[str, Path], tmp_path: Path, num_claims: int
) -> None:
    claims = [Claim(id=str(n), claim=NAMES[n], label="true") for n in range(num_claims)]
    with pytest.raises(CorpusError, match="two labels or more"):
        classify(claims, store, tmp_path / "run", config=config(), **start)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("run", "missing"), [("run", "has no encoder"), ("encoder", "has no embedder")]
)
def test_a_start_without_its_parts_is_refused_and_leaves_no_run(
    store: PassageStore, start: dict[str, Path], tmp_path: Path, run: str, missing: str
) -> None:
    with pytest.raises(ConfigError, match=missing):
        classify(claims_of(told()), store, tmp_path / "run", run=start[run], config=config())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["question_wordpieces", "joint_wordpieces"])
def test_inputs_longer_than_a_part_reads_are_refused_and_leave_no_run(
    store: PassageStore, make_short: MakeShort, tmp_path: Path, name: str
) -> None:
    settings = config(**{"question_wordpieces": 60, "joint_wordpieces": 70, name: 65})
    short = make_short(store)
    start = {"run": short["embedder"], "encoder": short["encoder"]}
    with pytest.raises(ConfigError, match=f"{name}=65, expected at most 64 wordpieces"):
        classify(claims_of(told()), store, tmp_path / "run", config=settings, **start)
    assert not (tmp_path / "run").exists()
