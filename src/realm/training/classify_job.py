"""One step of fine-tuning on claims: -log p(label | x), and its gradient.

The early retriever loss of Open-QA has no meaning without answers: Embed_input learns from the
labels alone, through p(z|x).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.config import ClassifyConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, device_of
from realm.index.snapshot import Snapshot
from realm.model.classifier import Classifier, label_logits
from realm.model.embedder import Towers
from realm.model.inputs import TokenSequence
from realm.model.likelihood import label_log_likelihood
from realm.ranks import ALONE, Ranks
from realm.records import Claim
from realm.retrieval.reading import joint_inputs
from realm.training.packing import pack_largest_first
from realm.training.question_job import QuestionJob


class ClassifyJob(QuestionJob[Claim]):
    """One step: a batch of claims, each with the passages that the snapshot gives now."""

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
        super().__init__(claims, lambda one: one.claim, store, snapshot, towers, config, ranks)
        self.classifier = classifier
        self.config = config

    @property
    def model(self) -> Model:
        """Both towers and the classifier."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers, classifier=self.classifier)

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the question tower and the classifier; Embed_doc stays as the index has it."""
        return {
            "embedder": (self.towers.query, self.config.retriever_rate),
            "classifier": (self.classifier, 1.0),
        }

    def run(
        self, questions: Sequence[Claim], *, learn: bool, share: float = 1.0
    ) -> dict[str, float]:
        """Retrieve, classify, and (with `learn`) leave gradients; return loss and accuracy."""
        texts = [one.claim for one in questions]
        with autocast_to(self.config.autocast, device_of(self.towers)):
            vectors = self.retriever.embed(texts).float()
        num_read = min(self.config.num_passages, len(self.store))
        _, found = self.retriever.snapshot.search(vectors, num_read)
        fresh = torch.einsum("qd,qkd->qk", vectors, self.retriever.snapshot.exact[found])
        inputs = self._inputs(texts, found)
        targets = torch.tensor([self.classifier.labels.index(one.label) for one in questions])
        # Groups are read one by one against detached scores, whose gradient is then sent back
        # through the tower once.
        scores = fresh.detach().requires_grad_(learn)
        total = torch.zeros(())
        hits = 0
        sizes = [sum(len(ids) for ids, _ in one) for one in inputs]
        for group in pack_largest_first(sizes, self.budget.batch_tokens):
            flat = [sequence for number in group for sequence in inputs[number]]
            with autocast_to(self.config.autocast, device_of(self.classifier)):
                logits = label_logits(self.classifier, flat, self.budget)
            log_p = label_log_likelihood(scores[group], logits.view(len(group), num_read, -1))
            right = log_p.gather(1, targets[group][:, None])
            part = -right.sum() / len(questions)
            if learn:
                (share * part).backward()
            total += part.detach()
            hits += int((log_p.argmax(dim=-1) == targets[group]).sum())
        if learn:
            fresh.backward(scores.grad)
        return {
            "loss": float(total),
            "accuracy": hits / len(questions),
            "tokens": float(sum(len(ids) for one in inputs for ids, _ in one)),
        }

    def _inputs(self, claims: Sequence[str], rows: Tensor) -> list[list[TokenSequence]]:
        """Return each claim joined with each of its passages; a claim too long is cut."""
        longest = self.config.question_wordpieces - 2
        return [
            joint_inputs(
                self.store, pieces.ids[:longest], chosen.tolist(), self.config.joint_wordpieces
            )
            for pieces, chosen in zip(self.store.tokenizer.encode_batch(claims), rows, strict=True)
        ]
