"""Which refresh keeps the index freshest for the same builder compute (docs/index-refresh.md).

One pre-training run; beside it, each policy has an index of its own and a builder that may embed a
fixed number of passages per training step, in lockstep: no clock, so that the figures are those
of the policies and not of the machine. Each policy answers the same queries at the same steps with
the same parameters.

    python benchmarks/refresh_policies.py X Z --embedder ict --encoder mlm --out results.json

Measured for each policy: mean staleness of the passages that it retrieves (training candidates,
every step), and recall@8 against a fully fresh index (held-out queries, all passages).
"""

import argparse
import copy
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from realm.checkpoint.checkpoints import load_model
from realm.config import IndexConfig, OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.index.builder import PassageEmbedder
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.masking.store import ExampleStore
from realm.model.bert import set_dropout
from realm.model.embedder import Embedder
from realm.refresh.drift import Drift
from realm.refresh.priority import DemandCounter, next_rows
from realm.refresh.reranking import Reranked
from realm.refresh.sync import SyncRefresher
from realm.training.optimizer import (
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
    warmup_steps,
)
from realm.training.pretrain_job import PretrainJob

RECALL_AT = 8


@dataclass(kw_only=True)
class Policy:
    """An index, and a builder with a budget."""

    name: str
    kind: str
    """sweep, drift (a sweep begins when drift passes a bound) or rolling."""
    order: str = "oldest"
    write_back: bool = False
    rerank: int = 0
    bound: float = 0.0
    index: LiveIndex | None = None
    demand: DemandCounter | None = None
    drift: Drift = field(default_factory=Drift)
    saved: float = 0.0
    """Passages that may still be embedded."""
    pending: tuple[torch.Tensor, PassageEmbedder, int] | None = None
    parts: list[torch.Tensor] = field(default_factory=list)
    embedded: int = 0
    staleness: list[float] = field(default_factory=list)
    first_stage: list[float] = field(default_factory=list)
    recalls: list[tuple[int, float]] = field(default_factory=list)

    def build(self, tower: Embedder, experiment: "Experiment", step: int) -> None:
        """Let the builder work for one training step."""
        budget = experiment.budget
        self.saved = min(self.saved + budget, float(len(self.index)))
        while True:
            if self.pending is None and not self._begin(tower, experiment, step):
                self.saved = min(self.saved, budget)  # an idle builder saves nothing
                return
            rows, embed, made = self.pending
            done = sum(len(part) for part in self.parts)
            count = min(int(self.saved), len(rows) - done)
            if count <= 0:
                return
            self.parts.append(embed(rows[done : done + count].tolist()))
            self.saved -= count
            self.embedded += count
            if done + count == len(rows):
                self.index.write(rows, torch.cat(self.parts), made)
                self.pending, self.parts = None, []

    def _begin(self, tower: Embedder, experiment: "Experiment", step: int) -> bool:
        if self.kind == "rolling":
            args = experiment.args
            demand = self.demand.take(keep=0.5 ** (args.chunk_steps / args.sweep_steps))
            rows = next_rows(self.index.row_steps, step, demand, experiment.chunk, self.order)
        elif self.kind == "drift" and self.drift.fall <= self.bound:
            return False
        else:
            rows = torch.arange(len(self.index) if step > self.index.oldest_step() else 0)
        if not len(rows):
            return False
        self.drift.restart()
        frozen = copy.deepcopy(tower).eval()
        embed = PassageEmbedder(frozen, experiment.store, experiment.index_config)
        self.pending = (rows, embed, step)
        return True


def searched(
    policy: Policy, queries: torch.Tensor, embed: "Cached", step: int
) -> LiveIndex | Reranked:
    """Return what a policy searches."""
    index = policy.index
    if not policy.rerank:
        return index
    _, wide = index.search(queries, policy.rerank)
    policy.first_stage.append(index.mean_staleness(step, wide.reshape(-1)))

    def write_back(rows: torch.Tensor, vectors: torch.Tensor) -> None:
        index.write(rows, vectors, step)

    return Reranked(
        index,
        embed,
        num_passages=policy.rerank,
        write_back=write_back if policy.write_back else None,
    )


class Cached:
    """Embeds each passage once: all policies of a step have the same parameters."""

    def __init__(self, embed: PassageEmbedder, num_passages: int, dropout: float) -> None:
        self.embed = embed
        self.dropout = dropout
        self.vectors = torch.zeros(num_passages, embed.tower.dim)
        self.is_known = torch.zeros(num_passages, dtype=torch.bool)

    def __call__(self, rows: list[int]) -> torch.Tensor:
        """Return fresh embeddings."""
        wanted = torch.tensor(rows)
        missing = wanted[~self.is_known[wanted]].unique()
        if len(missing):
            self.vectors[missing] = self.embed(missing.tolist())
            self.is_known[missing] = True
        return self.vectors[wanted]

    def as_in_training(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the embeddings that a training step has at hand: with dropout's noise."""
        if not self.dropout:
            return self(rows.tolist())
        self.embed.tower.train()
        set_dropout(self.embed.tower, self.dropout)
        vectors = self.embed(rows.tolist())
        self.embed.tower.eval()
        return vectors


def recall(policy: Policy, queries: torch.Tensor, fresh: torch.Tensor) -> float:
    """Return recall@8 against an exact search with fresh vectors of all passages."""
    wanted = (queries @ fresh.T).topk(RECALL_AT, dim=-1).indices
    if policy.rerank:
        _, wide = policy.index.search(queries, policy.rerank)
        scores = torch.einsum("qd,qkd->qk", queries, fresh[wide])
        found = wide.gather(-1, scores.topk(RECALL_AT, dim=-1).indices)
    else:
        _, found = policy.index.search(queries, RECALL_AT)
    return float((found[:, :, None] == wanted[:, None, :]).any(-1).float().mean())


def policies(bound: float, wide: int) -> list[Policy]:
    """Return what is compared; the first is the plain full sweep."""
    rolling, hottest = {"kind": "rolling"}, {"kind": "rolling", "order": "hottest"}
    return [
        Policy(name="full sweep", kind="sweep"),
        Policy(name="(a) sweep, write-back", kind="sweep", write_back=True),
        Policy(name=f"(b) sweep, re-rank {wide}", kind="sweep", rerank=wide),
        Policy(name="(c) rolling, oldest first", **rolling),
        Policy(name="(d) rolling, hottest first", **hottest),
        Policy(name="(d) rolling, drifted first", kind="rolling", order="drifted"),
        Policy(name="(e) sweep when drift passes the bound", kind="drift", bound=bound),
        Policy(name="(a+c) rolling, write-back", write_back=True, **rolling),
        Policy(name="(a+d) hottest, write-back", write_back=True, **hottest),
        Policy(
            name=f"(a+b+d) hottest, re-rank {wide}, write-back",
            rerank=wide,
            write_back=True,
            **hottest,
        ),
    ]


class Experiment:
    """One run, its policies beside it."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.store = PassageStore.open(args.passages)
        self.config = PretrainConfig(
            steps=args.steps,
            batch_size=args.batch_size,
            num_candidates=8,
            dropout=args.dropout,
            seed=args.seed,
            num_eval_examples=128,
            optimizer=OptimizerConfig(learning_rate=args.rate, warmup_steps=20),
            refresh=RefreshConfig(mode="off", audit_passages=0),
        )
        self.index_config = IndexConfig(passage_wordpieces=self.config.passage_wordpieces)
        self.towers = load_model(args.embedder).need_towers()
        encoder = load_model(args.encoder).need_encoder()
        keeper = SyncRefresher(
            folder, self.store, config=self.config.refresh, index=self.index_config
        )
        examples = ExampleStore.open(args.examples)
        self.job = PretrainJob(examples, self.towers, encoder, keeper, self.config)
        keeper.advance(self.towers.passage, 0)
        known = policies(args.bound, args.wide)
        self.policies = [known[number] for number in args.only or range(len(known))]
        for policy in self.policies:
            policy.index = LiveIndex(Snapshot.open(keeper.snapshot.folder))
            policy.demand = DemandCounter(len(self.store))
        # The run itself trains on what the plain sweep retrieves.
        keeper._index = self.policies[0].index
        self.optimizer = build_optimizer(self.job.trained(), self.config.optimizer)
        self.budget = len(self.store) / args.sweep_steps
        self.chunk = max(1, round(self.budget * args.chunk_steps))

    def run(self) -> None:
        """Train, and let every policy answer before each step and build after it."""
        began = time.monotonic()
        for step in range(self.config.steps):
            for part in self.job.model.modules.values():
                part.eval()
            embed = PassageEmbedder(self.towers.passage, self.store, self.index_config)
            cached = Cached(embed, len(self.store), self.config.dropout)
            if step % self.args.audit_every == 0:
                self._audit(cached, step)
            self._retrieve(cached, step)
            loss = self._train(step)
            for policy in self.policies:
                policy.build(self.towers.passage, self, step + 1)
            if step % 10 == 0:
                told = "  ".join(
                    f"{p.staleness[-1]:.0f}/{p.recalls[-1][1]:.2f}" for p in self.policies
                )
                seconds = time.monotonic() - began
                sys.stdout.write(f"{step} loss {loss:.2f} {seconds:.0f} s  {told}\n")
                sys.stdout.flush()
                self.write(step)
        self.write(self.config.steps)

    def write(self, steps: int) -> None:
        """Write what was measured so far."""
        given = vars(self.args).items()
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in given}
        content = {
            "settings": settings | {"passages": len(self.store), "steps_done": steps},
            "policies": {
                p.name: {
                    "staleness": p.staleness,
                    "first_stage": p.first_stage,
                    "recalls": p.recalls,
                    "embedded": p.embedded,
                }
                for p in self.policies
            },
        }
        self.args.out.write_text(json.dumps(content), encoding="utf-8")

    def _audit(self, embed: "Cached", step: int) -> None:
        fresh = embed(list(range(len(self.store))))
        queries = self.job._query_vectors(self.job.sampler.held_out)
        for policy in self.policies:
            policy.recalls.append((step, recall(policy, queries, fresh)))

    def _retrieve(self, embed: "Cached", step: int) -> None:
        drawn = self.job.sampler.batch(step, self.config.batch_size)
        queries = self.job._query_vectors(drawn)
        for policy in self.policies:
            found = self.job.finder.find(searched(policy, queries, embed, step), queries, drawn)
            account(policy, found, queries, embed, step)

    def _train(self, step: int) -> float:
        optimizer, config = self.optimizer, self.config
        for part in self.job.model.modules.values():
            part.train()
            set_dropout(part, config.dropout)
        warmup = warmup_steps(config.optimizer, config.steps)
        factor = learning_rate_factor(step, num_steps=config.steps, warmup=warmup)
        set_learning_rate(optimizer, config.optimizer.learning_rate * factor)
        torch.manual_seed(config.seed * 1_000_003 + step)
        measured = self.job.step(step)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return measured["loss"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sweep-steps", type=int, default=50, help="steps that a full sweep takes")
    parser.add_argument("--chunk-steps", type=float, default=4, help="steps that a patch takes")
    parser.add_argument("--audit-every", type=int, default=25)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--bound", type=float, default=0.15)
    parser.add_argument("--wide", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of policies (default: all)")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        Experiment(args, Path(folder)).run()


def account(
    policy: Policy,
    found: tuple[list[list[int]], torch.Tensor],
    queries: torch.Tensor,
    embed: "Cached",
    step: int,
) -> None:
    """Note the age of a policy's candidates; write them back, count the demand."""
    chosen, stale = torch.tensor(found[0]), found[1]
    is_passage = chosen >= 0
    seen = chosen[is_passage]
    policy.staleness.append(policy.index.mean_staleness(step, seen))
    distinct = seen.unique()
    vectors = torch.zeros(len(policy.index), queries.shape[1])
    vectors[distinct] = embed(distinct.tolist())
    fresh = torch.einsum("qd,qcd->qc", queries, vectors[chosen.clamp_min(0)])
    policy.demand.count(seen, (fresh - stale).abs()[is_passage])
    if policy.write_back:
        policy.index.write(distinct, embed.as_in_training(distinct), step)
    correlations: list[float] = []
    for row in range(len(chosen)):
        new, old = fresh[row, is_passage[row]], stale[row, is_passage[row]]
        if len(new) > 1:
            ranks = torch.stack([new.argsort().argsort(), old.argsort().argsort()]).float()
            correlations.append(float(torch.corrcoef(ranks)[0, 1]))
    policy.drift.observe(sum(correlations) / max(1, len(correlations)))


if __name__ == "__main__":
    main()
