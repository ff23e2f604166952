"""Joint pre-training: the REALM loop (sections 3.1 to 3.4).

Each step: embed the masked sentences, select candidates in the snapshot, score those afresh, read
them, and climb log p(y|x) of Eq. 1 through both towers and the encoder. Between steps the index
is refreshed.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from realm.checkpoint.checkpoints import Model, find_checkpoint, load_model
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point, start_run
from realm.checkpoint.sources import check_vocabulary, write_sources
from realm.config import IndexConfig, PretrainConfig
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.index.builder import PassageEmbedder, autocast_to
from realm.index.live import LiveIndex
from realm.masking.store import ExampleStore
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood, token_marginal_log_likelihood
from realm.model.realm import (
    Budget,
    CandidateBatch,
    candidate_vectors,
    read_candidates,
    score_vectors,
)
from realm.records import MaskedExample, Progress
from realm.refresh.audit import recall_of_index
from realm.refresh.refresher import Refresher, open_refresher
from realm.refresh.reranking import Reranked
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.retriever import CandidateFinder
from realm.storage import MANIFEST, Request, read_json
from realm.training.examples import ExampleSampler, check_examples
from realm.training.loop import OnMetrics, train
from realm.training.measures import (
    ForwardPass,
    average,
    leave_out_null,
    measure_held_out,
    step_measures,
)
from realm.training.packing import pack
from realm.training.sampling import sample

CPU = torch.device("cpu")


def pretrain(  # noqa: PLR0913
    examples: ExampleStore,
    store: PassageStore,
    out: Path,
    *,
    embedder: Path,
    encoder: Path,
    config: PretrainConfig,
    rebuild: bool = False,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainReport:
    """Train retriever and encoder together on masked examples.

    Args:
        examples: masked sentences of X.
        store: the passages Z.
        out: run folder.
        embedder: run or checkpoint with towers (from `ict`).
        encoder: run or checkpoint with an encoder (from `mlm`).
        config: settings.
        rebuild: replace a run made from other inputs.
        on_metrics: called at logged steps.
        tensorboard: also write TensorBoard events.
        progress: called while the trainer builds the index.
        tell: called with a sentence when something happens to builders or snapshots.

    Raises:
        ConfigError: more candidates than passages, or different vocabularies.
        ArtifactError: a folder is missing, damaged, or from another corpus.
    """
    check_candidates(config.num_candidates, len(store))
    check_examples(examples, store, query_wordpieces=config.query_wordpieces)
    sources = {"embedder": find_checkpoint(embedder), "encoder": find_checkpoint(encoder)}
    request = Request(
        kind="run",
        settings={"stage": "pretrain", **config.identity()},
        inputs={
            "passages": store.fingerprint,
            "examples": examples.fingerprint,
            **{name: _fingerprint(path) for name, path in sources.items()},
        },
    )
    with open_run(out, request, rebuild=rebuild) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out)) is not None:
            model = load_model(checkpoint)
            towers, reading = model.need_towers(), model.need_encoder()
        else:
            start = {name: load_model(path) for name, path in sources.items()}
            for model in start.values():
                check_vocabulary(model, store)
            towers, reading = start["embedder"].need_towers(), start["encoder"].need_encoder()
            if config.share_towers is False:
                towers = towers.untied()
            if config.share_towers is True and not towers.shared:
                raise ConfigError(
                    f"share_towers=true, but {embedder} has two towers; expected one made with "
                    "share_towers=true"
                )
        refresher = open_refresher(
            out,
            store,
            config=config.refresh,
            index=index_config(config, len(store)),
            num_steps=config.steps,
            progress=progress,
            tell=tell,
        )
        with closing(refresher):
            job = PretrainJob(examples, towers, reading, refresher, config)
            start_run(out, request)
            write_sources(out, store)
            return train(
                job,
                out,
                request,
                config=with_threads(config),
                on_metrics=on_metrics,
                tensorboard=tensorboard,
            )


def index_config(config: PretrainConfig, num_passages: int) -> IndexConfig:
    """Return how a run's passages are embedded."""
    shard_rows = config.refresh.shard_rows or min(65_536, max(1_024, -(-num_passages // 16)))
    return IndexConfig(
        passage_wordpieces=config.passage_wordpieces,
        autocast=config.autocast,
        shard_rows=shard_rows,
    )


def with_threads(config: PretrainConfig) -> PretrainConfig:
    """Leave the builders that the trainer starts some of the machine's cores."""
    refresh = config.refresh
    if config.threads or refresh.mode != "async":
        return config
    left = (os.cpu_count() or 1) - refresh.builders * refresh.builder_threads
    return config.model_copy(update={"threads": max(1, left)})


def check_candidates(num_candidates: int, num_passages: int) -> None:
    """Refuse more candidates than the corpus can give.

    Raises:
        ConfigError: the null passage, `num_candidates - 1` others and the excluded own one do not
            fit.
    """
    if num_candidates > num_passages:
        raise ConfigError(
            f"num_candidates={num_candidates} needs at least {num_candidates} passages (the null "
            f"passage is free, the example's own is excluded), found {num_passages}; "
            f"lower it with `--set num_candidates=N` or add passages"
        )


class PretrainJob:
    """One step of the REALM loop."""

    def __init__(
        self,
        examples: ExampleStore,
        towers: Towers,
        encoder: Encoder,
        refresher: Refresher,
        config: PretrainConfig,
    ) -> None:
        self.store = refresher.store
        self.step_now = 0
        self.index_config = index_config(config, len(self.store))
        self.towers = towers
        self.encoder = encoder
        self.refresher = refresher
        self.config = config
        self.sampler = ExampleSampler(
            examples,
            self.store,
            held_out=config.held_out,
            num_eval=config.num_eval_examples,
            seed=config.seed,
        )
        self.finder = CandidateFinder(
            self.store,
            num_candidates=config.num_candidates,
            overlap_limit=config.overlap_limit,
            exclude_own=config.exclude_own,
        )
        self.lengths = Lengths(
            query=config.query_wordpieces,
            passage=config.passage_wordpieces,
            joint=config.joint_wordpieces,
        )
        self.budget = Budget(pad_id=self.store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
        self.forward = ForwardPass(
            store=self.store,
            towers=towers,
            encoder=encoder,
            candidates=self.candidates,
            lengths=self.lengths,
            budget=self.budget,
            null_passage=config.null_passage,
            autocast=config.autocast,
        )

    @property
    def model(self) -> Model:
        """Towers and encoder."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers, encoder=self.encoder)

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return towers and encoder with their relative rates."""
        return {
            "embedder": (self.towers, self.config.retriever_rate),
            "encoder": (self.encoder, 1.0),
        }

    def before_step(self, step: int) -> Mapping[str, float]:
        """Refresh the index when it is time, if the measuring before this step did not."""
        self.step_now = step
        self.refresher.advance(self.towers.passage, step)
        return self.refresher.measures(step)

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch: select, score afresh, read, differentiate."""
        drawn = self.sampler.batch(step, self.config.batch_size)
        rows, stale = self.candidates(drawn)
        retrieved = torch.tensor([row for chosen in rows for row in chosen if row >= 0])
        staleness = self.refresher.index.mean_staleness(step, retrieved)
        is_frozen = step < self.config.retriever_frozen_steps
        parts: list[Mapping[str, float]] = []
        for group in self._groups(drawn, rows):
            batch = candidate_batch(
                self.store, [drawn[i] for i in group], [rows[i] for i in group], self.lengths
            )
            if not self.config.null_passage:
                leave_out_null(batch)
            with autocast_to(self.config.autocast, CPU):
                queries, passages = candidate_vectors(self.towers, batch, self.budget)
                scores = score_vectors(queries, passages, batch)
                log_probs = read_candidates(self.encoder, batch, self.budget)
            if is_frozen:
                scores = scores.detach()
            likelihood = self.objective(scores.float(), log_probs, batch.mask_is_real)
            (-likelihood.sum() / len(drawn)).backward()
            measured = step_measures(
                scores.detach().float(), log_probs.detach(), batch, stale[group]
            )
            measured["objective"] = -float(likelihood.detach().mean())
            parts.append(measured)
            self._tell_refresher([rows[i] for i in group], batch, passages, scores, stale[group])
        measures = average(parts, sums={"tokens"})
        if "index/rank_correlation" in measures:
            self.refresher.drift.observe(measures["index/rank_correlation"])
        return {**measures, "index/retrieved_staleness_steps": staleness}

    def objective(
        self, scores: torch.Tensor, log_probs: torch.Tensor, mask_is_real: torch.Tensor
    ) -> torch.Tensor:
        """Return each example's log-likelihood under the chosen marginal.

        `token` is a mean over the example's masks, so that long spans do not weigh more; the
        released code averages over all masks of the batch.
        """
        if self.config.marginal == "token":
            total = token_marginal_log_likelihood(scores, log_probs, mask_is_real)
            return total / mask_is_real.sum(dim=-1)
        return marginal_log_likelihood(scores, log_probs, mask_is_real)

    def candidates(self, drawn: Sequence[MaskedExample]) -> tuple[list[list[int]], torch.Tensor]:
        """Return (candidate rows, their scores in the index): selection only, no gradient."""
        return self.finder.find(self._searched(), self._query_vectors(drawn), drawn)

    def _query_vectors(self, drawn: Sequence[MaskedExample]) -> torch.Tensor:
        """Return Embed_input of masked sentences, without dropout or gradients."""
        queries = [self.store.tokenizer.query_input(e.query_ids, self.lengths.query) for e in drawn]
        was_training = self.towers.training
        self.towers.eval()
        with torch.no_grad(), autocast_to(self.config.autocast, CPU):
            vectors = embed_in_groups(
                self.towers.query,
                queries,
                pad_id=self.budget.pad_id,
                batch_tokens=self.budget.batch_tokens,
            )
        self.towers.train(was_training)
        return vectors.float()

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure held-out examples with and without retrieval."""
        self.step_now = step
        self.refresher.advance(self.towers.passage, step)
        measured = measure_held_out(self.forward, self.sampler.held_out)
        return {**measured, **self._audit()}

    def state(self) -> Mapping[str, Any]:
        """Return which index is in use."""
        return self.refresher.state()

    def restore(self, values: Mapping[str, Any]) -> None:
        """Search the index that was in use."""
        self.refresher.restore(values, int(values["step"]))

    def _searched(self) -> LiveIndex | Reranked:
        """Return what is searched: the index, or the index with fresh scores on top."""
        refresh, index = self.config.refresh, self.refresher.index
        if not refresh.rerank_passages:
            return index
        return Reranked(
            index,
            self._embed,
            num_passages=refresh.rerank_passages,
            write_back_step=self.step_now if refresh.write_back else None,
        )

    def _tell_refresher(
        self,
        rows: Sequence[Sequence[int]],
        batch: CandidateBatch,
        passages: torch.Tensor,
        scores: torch.Tensor,
        stale: torch.Tensor,
    ) -> None:
        """Hand on what a group's candidates tell of the index, and their fresh vectors."""
        chosen = torch.tensor(rows)
        is_passage = chosen >= 0
        drift = (scores.detach().float() - stale).abs()[is_passage]
        self.refresher.count(chosen[is_passage], drift)
        if self.config.refresh.write_back and not self.config.refresh.rerank_passages:
            fresh = passages.detach()[batch.passage_of[is_passage]]
            self.refresher.index.write(chosen[is_passage], fresh, self.step_now)

    def _embed(self, rows: Sequence[int]) -> torch.Tensor:
        """Return fresh embeddings of passages, without dropout or gradients."""
        tower = self.towers.passage
        was_training = tower.training
        tower.eval()
        vectors = PassageEmbedder(tower, self.store, self.index_config)(rows)
        tower.train(was_training)
        return vectors

    def _audit(self) -> Mapping[str, float]:
        """Return the recall of the index against fresh vectors, on a sample of the passages."""
        count = min(self.config.refresh.audit_passages, len(self.store))
        if not count or not self.sampler.held_out:
            return {}
        rows = sample(range(len(self.store)), count, self.config.seed)
        queries = self._query_vectors(self.sampler.held_out)
        recall = recall_of_index(
            self.refresher.index,
            queries,
            torch.tensor(rows),
            self._embed(rows),
            self.config.num_candidates,
            rerank=self.config.refresh.rerank_passages,
        )
        return {"eval/index_recall": recall}

    def _groups(
        self, drawn: Sequence[MaskedExample], rows: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Split a batch so that one backward pass holds about `batch_tokens`."""
        sizes = [
            sum(
                len(example.query_ids) + (len(self.store.wordpieces(row)) if row >= 0 else 0)
                for row in chosen
            )
            for example, chosen in zip(drawn, rows, strict=True)
        ]
        return pack(sizes, self.config.batch_tokens)


def _fingerprint(checkpoint: Path) -> str:
    return str(read_json(checkpoint / MANIFEST)["fingerprint"])
