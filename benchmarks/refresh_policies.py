"""Which refresh keeps the index freshest for the same builder compute? (docs/index-refresh.md)

One pre-training run; beside it, each policy has an index of its own and a builder that may embed a
fixed number of passages per training step, in lockstep: no clock, so that the figures are those
of the policies and not of the machine. Each policy answers the same queries at the same steps with
the same parameters.

    python benchmarks/refresh_policies.py X Z --embedder ict --encoder mlm --out results.json

Measured for each policy: mean staleness of the passages that it retrieves (training candidates,
every step), and recall@8 against a fully fresh index (held-out queries, all passages, now and then).
"""

import argparse
import copy
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from realm.checkpoint.checkpoints import load_model, tower_hash
from realm.config import IndexConfig, OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion, PassageEmbedder, build_index
from realm.index.live import LiveIndex
from realm.index.snapshot import Snapshot
from realm.masking.store import ExampleStore
from realm.model.bert import set_dropout
from realm.refresh.drift import Drift
from realm.refresh.priority import DemandCounter, next_rows
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

    def build(self, tower, store, config, step: int, budget: float, chunk: int) -> None:
        """Let the builder work for one training step."""
        self.saved = min(self.saved + budget, float(len(store)))
        while True:
            if self.pending is None and not self._begin(tower, store, config, step, chunk):
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

    def _begin(self, tower, store, config, step: int, chunk: int) -> bool:
        if self.kind == "rolling":
            # The demand lags by a chunk, as it does where it is published with the parameters.
            rows = next_rows(self.index.row_steps, step, self.demand.take(), chunk, self.order)
        elif self.kind == "drift" and self.drift.fall <= self.bound:
            return False
        else:
            rows = torch.arange(len(store)) if step > self.index.oldest_step() else torch.arange(0)
        if not len(rows):
            return False
        self.drift.restart()
        frozen = copy.deepcopy(tower).eval()
        self.pending = (rows, PassageEmbedder(frozen, store, config), step)
        return True


def retrieve(policy: Policy, job: PretrainJob, drawn, queries, embed, step: int):
    """Return the candidates that a policy finds, and account for their age."""
    index = policy.index
    if policy.rerank:
        _, wide = index.search(queries, policy.rerank)
        policy.first_stage.append(index.mean_staleness(step, wide.reshape(-1)))
        distinct = wide.unique()
        if policy.write_back:
            index.write(distinct, embed(distinct.tolist()), step)
            return job.finder.find(index, queries, drawn)
        return job.finder.find(Fresh(index, embed, policy.rerank), queries, drawn)
    return job.finder.find(index, queries, drawn)


class Cached:
    """Embeds each passage once: all policies of a step have the same parameters."""

    def __init__(self, embed: PassageEmbedder, num_passages: int) -> None:
        self.embed = embed
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


class Fresh:
    """Re-ranks without writing back."""

    def __init__(self, index, embed, wide):
        self.index, self.embed, self.wide = index, embed, wide

    def __len__(self):
        return len(self.index)

    def search(self, queries, k):
        """Return the best by fresh scores."""
        _, rows = self.index.search(queries, min(len(self), max(k, self.wide)))
        distinct, places = rows.unique(return_inverse=True)
        scores = torch.einsum("qd,qkd->qk", queries, self.embed(distinct.tolist())[places])
        best, chosen = scores.topk(k, dim=-1)
        return best, rows.gather(-1, chosen)


def recall(policy: Policy, queries, fresh: torch.Tensor) -> float:
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
    return [
        Policy(name="full sweep", kind="sweep"),
        Policy(name="(a) sweep, write-back", kind="sweep", write_back=True),
        Policy(name=f"(b) sweep, re-rank {wide}", kind="sweep", rerank=wide),
        Policy(name="(c) rolling, oldest first", kind="rolling"),
        Policy(name="(d) rolling, hottest first", kind="rolling", order="hottest"),
        Policy(name="(d) rolling, drifted first", kind="rolling", order="drifted"),
        Policy(name="(e) sweep when drift passes the bound", kind="drift", bound=bound),
        Policy(name="(a+c) rolling, write-back", kind="rolling", write_back=True),
        Policy(name="(a+d) rolling, hottest, write-back", kind="rolling", order="hottest", write_back=True),
        Policy(name=f"(a+b+d) hottest, re-rank {wide}, write-back", kind="rolling", order="hottest", rerank=wide, write_back=True),
    ]  # fmt: skip


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sweep-steps", type=int, default=50, help="steps that a full sweep takes")
    parser.add_argument("--chunk-steps", type=float, default=4, help="steps that a patch takes")
    parser.add_argument("--audit-every", type=int, default=20)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--bound", type=float, default=0.15)
    parser.add_argument("--wide", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=4)
    args = parser.parse_args()
    examples, store = ExampleStore.open(args.examples), PassageStore.open(args.passages)
    config = PretrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        num_candidates=8,
        dropout=args.dropout,
        seed=args.seed,
        num_eval_examples=128,
        optimizer=OptimizerConfig(learning_rate=args.rate, warmup_steps=20),
        refresh=RefreshConfig(mode="off", audit_passages=0),
    )
    towers = load_model(args.embedder).need_towers()
    encoder = load_model(args.encoder).need_encoder()
    index_config = IndexConfig(passage_wordpieces=config.passage_wordpieces)
    budget = len(store) / args.sweep_steps
    chunk = max(1, round(budget * args.chunk_steps))
    with TemporaryDirectory() as folder:
        keeper = SyncRefresher(Path(folder), store, config=config.refresh, index=index_config)
        job = PretrainJob(examples, towers, encoder, keeper, config)
        keeper.advance(towers.passage, 0)
        compared = policies(args.bound, args.wide)
        for policy in compared:
            policy.index = LiveIndex(Snapshot.open(keeper.snapshot.folder))
            policy.demand = DemandCounter(len(store))
        keeper._index = compared[0].index  # noqa: SLF001 - the run trains on the plain sweep
        optimizer = build_optimizer(job.trained(), config.optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        warmup = warmup_steps(config.optimizer, config.steps)
        held_out = job.sampler.held_out
        began = time.monotonic()
        for step in range(config.steps):
            for part in job.model.modules.values():
                part.eval()
            embed = Cached(PassageEmbedder(towers.passage, store, index_config), len(store))
            if step % args.audit_every == 0:
                fresh, queries = embed(list(range(len(store)))), job._query_vectors(held_out)  # noqa: SLF001
                for policy in compared:
                    policy.recalls.append((step, recall(policy, queries, fresh)))
            drawn = job.sampler.batch(step, config.batch_size)
            queries = job._query_vectors(drawn)  # noqa: SLF001
            for policy in compared:
                rows, stale = retrieve(policy, job, drawn, queries, embed, step)
                account(policy, rows, stale, queries, embed, step)
            for part in job.model.modules.values():
                part.train()
                set_dropout(part, config.dropout)
            factor = learning_rate_factor(step, num_steps=config.steps, warmup=warmup)
            set_learning_rate(optimizer, config.optimizer.learning_rate * factor)
            torch.manual_seed(config.seed * 1_000_003 + step)
            job.step_now = step
            measured = job.step(step)
            torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for policy in compared:
                policy.build(towers.passage, store, index_config, step + 1, budget, chunk)
            if step % 10 == 0:
                told = "  ".join(f"{p.staleness[-1]:.0f}/{p.recalls[-1][1]:.2f}" for p in compared)
                print(
                    f"{step} loss {measured['loss']:.2f} {time.monotonic() - began:.0f}s {told}",
                    flush=True,
                )
                write(args, compared, len(store), step)
        write(args, compared, len(store), config.steps)


def account(policy: Policy, rows, stale, queries, embed, step: int) -> None:
    """Note the age of a policy's candidates; write them back, count the demand."""
    chosen = torch.tensor(rows)
    is_passage = chosen >= 0
    seen = chosen[is_passage]
    policy.staleness.append(policy.index.mean_staleness(step, seen))
    distinct = seen.unique()
    vectors = torch.zeros(len(policy.index), queries.shape[1])
    vectors[distinct] = embed(distinct.tolist())
    fresh = torch.einsum("qd,qcd->qc", queries, vectors[chosen.clamp_min(0)])
    policy.demand.count(seen, (fresh - stale).abs()[is_passage])
    if policy.write_back:
        policy.index.write(distinct, vectors[distinct], step)
    correlations = []
    for row in range(len(chosen)):
        a, b = fresh[row, is_passage[row]], stale[row, is_passage[row]]
        if len(a) > 1:
            ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).float()
            correlations.append(float(torch.corrcoef(ranks)[0, 1]))
    policy.drift.observe(sum(correlations) / max(1, len(correlations)))


def write(args, compared: list[Policy], num_passages: int, steps: int) -> None:
    """Write what was measured so far."""
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    content = {
        "settings": settings | {"passages": num_passages, "steps_done": steps},
        "policies": {
            p.name: {
                "staleness": p.staleness,
                "first_stage": p.first_stage,
                "recalls": p.recalls,
                "embedded": p.embedded,
            }
            for p in compared
        },
    }
    args.out.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
