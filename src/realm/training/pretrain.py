"""Joint pre-training: the REALM loop (sections 3.1 to 3.4).

Each step: embed the masked sentences, select candidates in the snapshot, score those afresh, read
them, and climb log p(y|x) of Eq. 1 through both towers and the encoder. Between steps the index
is refreshed.
"""

from collections.abc import Mapping, Sequence
from functools import partial
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
from realm.index.builder import autocast_to
from realm.index.refresh import Refresher
from realm.index.sharded import ShardedIndex
from realm.masking.store import ExampleStore
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood, token_marginal_log_likelihood
from realm.model.realm import Budget, read_candidates, score_candidates
from realm.ranks import ALONE, Ranks
from realm.records import MaskedExample, Progress
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.retriever import CandidateFinder
from realm.storage import MANIFEST, Request, read_json
from realm.training.examples import ExampleSampler, check_examples
from realm.training.loop import OnMetrics, check_ranks, train
from realm.training.measures import (
    ForwardPass,
    average,
    leave_out_null,
    measure_held_out,
    step_measures,
)
from realm.training.packing import pack

CPU = torch.device("cpu")


def pretrain(  # noqa: PLR0913 - each is one input of the stage
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
    ranks: Ranks = ALONE,
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
        progress: called while the index is rebuilt.
        ranks: the processes that train together.

    Raises:
        ConfigError: more candidates than passages, or different vocabularies, or the ranks cannot
            share a batch.
        ArtifactError: a folder is missing, damaged, or from another corpus.
        RankError: another rank died, or does not answer.
    """
    check_ranks(config, ranks)
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
    with open_run(out, request, rebuild=rebuild, ranks=ranks) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out, ranks)) is not None:
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
        refresher = Refresher(
            out,
            store,
            config=config.refresh,
            index=IndexConfig(
                passage_wordpieces=config.passage_wordpieces, autocast=config.autocast
            ),
            progress=progress,
        )
        job = PretrainJob(examples, towers, reading, refresher, config, ranks)
        ranks.from_first(partial(start_run, out, request))
        ranks.from_first(partial(write_sources, out, store))
        return train(
            job,
            out,
            request,
            config=config,
            on_metrics=on_metrics,
            tensorboard=tensorboard,
            ranks=ranks,
        )


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
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.store = refresher.store
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
            ranks=ranks,
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
            ranks=ranks,
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
        self._advance(step)
        return {
            "index/refreshed": float(self.refresher.snapshot.step == step),
            "index/staleness_steps": float(self.refresher.staleness(step)),
        }

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch: select, score afresh, read, differentiate."""
        whole_batch = self.sampler.batch(step, self.config.batch_size)
        drawn = self.ranks.share(whole_batch)
        rows, stale = self.candidates(drawn)
        is_frozen = step < self.config.retriever_frozen_steps
        parts: list[Mapping[str, float]] = []
        for group in self._groups(drawn, rows):
            batch = candidate_batch(
                self.store, [drawn[i] for i in group], [rows[i] for i in group], self.lengths
            )
            if not self.config.null_passage:
                leave_out_null(batch)
            with autocast_to(self.config.autocast, CPU):
                scores = score_candidates(self.towers, batch, self.budget)
                log_probs = read_candidates(self.encoder, batch, self.budget)
            if is_frozen:
                scores = scores.detach()
            likelihood = self.objective(scores.float(), log_probs, batch.mask_is_real)
            (-likelihood.sum() / len(whole_batch)).backward()
            measured = step_measures(
                scores.detach().float(), log_probs.detach(), batch, stale[group]
            )
            measured["objective"] = -float(likelihood.detach().mean())
            parts.append(measured)
        everything = [part for found in self.ranks.gather_values(parts) for part in found]
        return average(everything, sums={"tokens"})

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
        """Return (candidate rows, their scores in the snapshot): selection only, no gradient."""
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
        snapshot = self.refresher.snapshot
        index = ShardedIndex(snapshot, self.ranks) if self.ranks.are_several else snapshot
        return self.finder.find(index, vectors.float(), drawn)

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure held-out examples with and without retrieval."""
        self._advance(step)
        return measure_held_out(self.forward, self.sampler.held_out)

    def state(self) -> Mapping[str, Any]:
        """Return which snapshot is in use."""
        return {"snapshot_step": self.refresher.snapshot.step}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Reopen the snapshot that was in use."""
        self.refresher.reopen(int(values["snapshot_step"]))

    def _advance(self, step: int) -> None:
        with self.ranks.first_goes_first():  # to go once ranks can share a build: builder.py
            self.refresher.advance(self.towers.passage, step)

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
