"""One step of fine-tuning on claims: -log p(label | x), and its gradient.

The index stands still. The early retriever loss of Open-QA has no meaning without answers:
Embed_input learns from the labels alone, through p(z|x).
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.config import ClassifyConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.index.snapshot import Snapshot
from realm.model.bert import evaluating
from realm.model.classifier import Classifier, label_logits
from realm.model.embedder import Towers
from realm.model.inputs import TokenSequence
from realm.model.likelihood import label_log_likelihood
from realm.model.realm import Budget
from realm.ranks import ALONE, Ranks
from realm.records import Claim
from realm.retrieval.dense import DenseRetriever
from realm.retrieval.reading import joint_inputs
from realm.training.averaging import over_batches, over_ranks
from realm.training.packing import pack_largest_first
from realm.training.sampling import batch_at, is_held_out, sample

NUM_EVAL = 128


class ClassifyJob:
    """One step: a batch of claims, each with the passages that the snapshot gives now.

    Embed_input and the classifier learn; Embed_doc stays as the index has it.
    """

    def __init__(
        self,
        claims: Sequence[Claim],
        store: PassageStore,
        snapshot: Snapshot,
        towers: Towers,
        classifier: Classifier,
        config: ClassifyConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self.store = store
        self.towers = towers
        self.classifier = classifier
        self.config = config
        self.ranks = ranks
        self.retriever = DenseRetriever(
            towers.query,
            snapshot,
            store.tokenizer,
            question_wordpieces=config.question_wordpieces,
            batch_tokens=config.batch_tokens,
        )
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=config.batch_tokens)
        held = [one for one in claims if is_held_out(one.claim, config.held_out)]
        self.train_claims = [one for one in claims if not is_held_out(one.claim, config.held_out)]
        if not self.train_claims:
            self.train_claims, held = held, []
        self.eval_claims = [held[i] for i in sample(range(len(held)), NUM_EVAL, config.seed)]
        towers.passage.requires_grad_(requires_grad=False)

    @property
    def model(self) -> Model:
        """Both towers and the classifier."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers, classifier=self.classifier)

    @property
    def retriever_learns(self) -> bool:
        """Whether Embed_input is trained."""
        return self.config.retriever_rate > 0

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the classifier, and the question tower where it learns."""
        classifier: dict[str, tuple[nn.Module, float]] = {"classifier": (self.classifier, 1.0)}
        if not self.retriever_learns:
            return classifier
        return {"embedder": (self.towers.query, self.config.retriever_rate), **classifier}

    def before_step(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: the index stands still."""
        return {}

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of claims."""
        numbers = batch_at(
            step,
            num_items=len(self.train_claims),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        mine = [self.train_claims[n] for n in self.ranks.share(numbers)]
        measured = self.run(mine, learn=True, share=len(mine) / len(numbers)) if mine else {}
        return over_ranks(self.ranks, len(mine), measured)

    @torch.inference_mode()
    def evaluate(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return the same numbers on held-out claims."""
        return over_batches(
            self.eval_claims, self.config.batch_size, lambda batch: self.run(batch, learn=False)
        )

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""

    def run(self, claims: Sequence[Claim], *, learn: bool, share: float = 1.0) -> dict[str, float]:
        """Retrieve, classify, and (with `learn`) leave gradients; return loss and accuracy.

        Args:
            claims: this rank's.
            learn: whether to leave gradients.
            share: by what they are multiplied: this rank's share of the claims.

        Returns:
            Means over the claims, and `tokens`, the wordpieces read in all.
        """
        texts = [one.claim for one in claims]
        retriever_learns = learn and self.retriever_learns
        vectors = self._vectors(texts, learns=retriever_learns)
        num_read = min(self.config.num_passages, len(self.store))
        _, found = self.retriever.snapshot.search(vectors, num_read)
        fresh = torch.einsum("qd,qkd->qk", vectors, self.retriever.snapshot.exact[found])
        inputs = self._inputs(texts, found)
        targets = torch.tensor([self.classifier.labels.index(one.label) for one in claims])
        # Groups are read one by one against detached scores, whose gradient is then sent back
        # through the tower once.
        scores = fresh.detach().requires_grad_(retriever_learns)
        total = torch.zeros(())
        hits = 0
        sizes = [sum(len(ids) for ids, _ in one) for one in inputs]
        for group in pack_largest_first(sizes, self.budget.batch_tokens):
            flat = [sequence for number in group for sequence in inputs[number]]
            with autocast_to(self.config.autocast, device_of(self.classifier)):
                logits = label_logits(self.classifier, flat, self.budget)
            log_p = label_log_likelihood(scores[group], logits.view(len(group), num_read, -1))
            right = log_p.gather(1, targets[group][:, None])
            part = -right.sum() / len(claims)
            if learn:
                (share * part).backward()
            total += part.detach()
            hits += int((log_p.argmax(dim=-1) == targets[group]).sum())
        if retriever_learns:
            fresh.backward(scores.grad)
        return {
            "loss": float(total),
            "accuracy": hits / len(claims),
            "tokens": float(sum(len(ids) for one in inputs for ids, _ in one)),
        }

    def _vectors(self, claims: Sequence[str], *, learns: bool) -> Float[Tensor, "claims dim"]:
        """Return Embed_input of claims, without gradients or dropout where it does not learn."""
        with (
            nullcontext() if learns else evaluating(self.towers),
            autocast_to(self.config.autocast, device_of(self.towers)),
            torch.set_grad_enabled(learns),
        ):
            return self.retriever.embed(claims).float()

    def _inputs(
        self, claims: Sequence[str], rows: Int[Tensor, "claims read"]
    ) -> list[list[TokenSequence]]:
        """Return each claim joined with each of its passages; a claim too long is cut."""
        longest = self.config.question_wordpieces - 2
        return [
            joint_inputs(
                self.store, pieces.ids[:longest], chosen.tolist(), self.config.joint_wordpieces
            )
            for pieces, chosen in zip(self.store.tokenizer.encode_batch(claims), rows, strict=True)
        ]
