"""One step of joint pre-training, and what it measures (sections 3.1 to 3.4)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.config import PretrainConfig
from realm.device import autocast_to, device_of
from realm.masking.store import ExampleStore
from realm.model.bert import evaluating
from realm.model.embedder import Towers, embed_in_groups
from realm.model.encoder import Encoder
from realm.model.inputs import in_packs
from realm.model.likelihood import marginal_log_likelihood, token_marginal_log_likelihood
from realm.model.realm import Budget, CandidateBatch
from realm.ranks import ALONE, Ranks
from realm.records import MaskedExample
from realm.refresh.refresher import Refresher
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import CandidateFinder
from realm.training.backward import BackwardPass, Passed
from realm.training.examples import ExampleSampler
from realm.training.held_out import HeldOutRead
from realm.training.index_in_use import IndexInUse, Seen
from realm.training.measures import (
    ForwardPass,
    average,
    leave_out_null,
    measure_held_out,
    step_measures,
)
from realm.training.refreshing import index_config
from realm.training.sampling import step_rng


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
        on_held_out: Callable[[int, HeldOutRead], None] | None = None,
    ) -> None:
        self.ranks = ranks
        self._on_held_out = on_held_out if ranks.is_first else None
        self.store = refresher.store
        self.towers = towers
        self.encoder = encoder
        self.config = config
        self.index = IndexInUse(
            refresher, towers, config.refresh, index_config(config, len(self.store)), ranks
        )
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
        self.backward = BackwardPass(
            towers=towers,
            encoder=encoder,
            budget=self.budget,
            autocast=config.autocast,
            objective=self.objective,
        )
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
        self.index.advance(step)
        return self.index.measures()

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch: select, score afresh, read, differentiate."""
        whole_batch = self.sampler.batch(step, self.config.batch_size)
        drawn = self.ranks.share(whole_batch)
        rows, stale = self.candidates(drawn)
        parts: list[Mapping[str, float]] = []
        seen: list[Seen] = []
        for group in self._groups(drawn, rows):
            batch = candidate_batch(
                self.store, [drawn[i] for i in group], [rows[i] for i in group], self.lengths
            )
            if not self.config.null_passage:
                leave_out_null(batch)
            passed = self._pass_through(batch, step, group[0], num_examples=len(whole_batch))
            measured = step_measures(passed.scores, passed.log_probs, batch, stale[group])
            measured["objective"] = -float(passed.likelihood.mean())
            if passed.posterior_drawn is not None:
                measured["posterior_drawn"] = passed.posterior_drawn
            parts.append(measured)
            seen.append(
                _seen([rows[i] for i in group], batch, passed.passages, passed.scores, stale[group])
            )
        everything = [part for found in self.ranks.gather_values(parts) for part in found]
        measures = average(everything, sums={"tokens"})
        return {**measures, **self.index.take(seen, measures)}

    def _pass_through(
        self, batch: CandidateBatch, step: int, first: int, *, num_examples: int
    ) -> Passed:
        """Leave the gradients of a group, whose first query has this place in the batch."""
        is_frozen = step < self.config.retriever_frozen_steps
        if self.config.gradient_candidates is None:
            return self.backward.through_all(batch, num_examples=num_examples, is_frozen=is_frozen)
        place = self.ranks.rank * self.config.batch_size + first
        rng = step_rng(self.config.seed, step * 1_000_003 + place)
        return self.backward.through_drawn(
            batch,
            self.config.gradient_candidates,
            rng,
            num_examples=num_examples,
            is_frozen=is_frozen,
        )

    def objective(
        self,
        scores: Float[Tensor, "batch candidates"],
        log_probs: Float[Tensor, "batch candidates masks"],
        mask_is_real: Bool[Tensor, "batch masks"],
    ) -> Float[Tensor, " batch"]:
        """Return each example's log-likelihood under the chosen marginal (`span`: Eq. 1).

        `token` is a mean over the example's masks, so that long spans do not weigh more; the
        released code averages over all masks of the batch.
        """
        if self.config.marginal == "token":
            total = token_marginal_log_likelihood(scores, log_probs, mask_is_real)
            return total / mask_is_real.sum(dim=-1)
        return marginal_log_likelihood(scores, log_probs, mask_is_real)

    def candidates(
        self, drawn: Sequence[MaskedExample]
    ) -> tuple[list[list[int]], Float[Tensor, "batch candidates"]]:
        """Return (candidate rows, their scores in the index): selection only, no gradient."""
        return self.finder.find(self.index, self._query_vectors(drawn), drawn)

    def _query_vectors(self, drawn: Sequence[MaskedExample]) -> Float[Tensor, "batch dim"]:
        """Return Embed_input of masked sentences, without dropout or gradients."""
        queries = [self.store.tokenizer.query_input(e.query_ids, self.lengths.query) for e in drawn]
        with (
            torch.no_grad(),
            evaluating(self.towers),
            autocast_to(self.config.autocast, device_of(self.towers)),
        ):
            vectors = embed_in_groups(
                self.towers.query,
                queries,
                pad_id=self.budget.pad_id,
                batch_tokens=self.budget.batch_tokens,
            )
        return vectors.float()

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure held-out examples with and without retrieval."""
        self.index.advance(step)
        held_out = self.sampler.held_out
        told = partial(self._on_held_out, step) if self._on_held_out else None
        measured = measure_held_out(self.forward, held_out, on_first=told)
        if not held_out:
            return measured
        queries = partial(self._query_vectors, held_out)
        k = self.config.num_candidates
        return {**measured, **self.index.recall(queries, k, seed=self.config.seed)}

    def state(self) -> Mapping[str, Any]:
        """Return which index is in use."""
        return self.index.state()

    def restore(self, values: Mapping[str, Any]) -> None:
        """Search the index that was in use."""
        self.index.restore(values)

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
        return list(in_packs(sizes, self.config.batch_tokens))


def _seen(
    rows: Sequence[Sequence[int]],
    batch: CandidateBatch,
    passages: Float[Tensor, "passages dim"],
    scores: Float[Tensor, "batch candidates"],
    stale: Float[Tensor, "batch candidates"],
) -> Seen:
    """Return what the candidates of a group tell of the index."""
    chosen = torch.tensor(rows)
    is_passage = chosen >= 0
    return Seen(
        rows=chosen[is_passage],
        drift=(scores.float() - stale).abs()[is_passage],
        vectors=passages[batch.passage_of[is_passage]],
    )
