"""Claims -> labels with evidence: retrieve, classify with each passage, sum over the passages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import check_vocabulary, passages_of, run_of
from realm.config import ClassifyConfig
from realm.corpus.store import PassageStore
from realm.device import AUTO, choose_device
from realm.errors import AnsweringError, ConfigError
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.model.classifier import label_logits
from realm.model.likelihood import label_log_likelihood
from realm.model.realm import Budget
from realm.records import ClassifiedClaim, LabelEvidence, Progress
from realm.retrieval.dense import Retrieving, dense_over
from realm.retrieval.reading import joint_inputs, question_ids
from realm.storage import MANIFEST, read_json


class ClaimClassifier(Retrieving):
    """Says of claims which label they have, with a run of `realm finetune --task classify`."""

    def __init__(
        self,
        model: Model,
        store: PassageStore,
        snapshot: Snapshot | None,
        *,
        config: ClassifyConfig | None = None,
        name: str = "realm",
        fingerprint: str = "",
    ) -> None:
        config = config or ClassifyConfig()
        check_vocabulary(model, store)
        super().__init__(
            dense_over(model, store, snapshot, config.question_wordpieces)
            if snapshot is not None
            else None
        )
        self.store = store
        self.classifier = model.need_classifier().eval()
        self.config = config
        self.model_name = name
        self.model_fingerprint = fingerprint
        self.budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=self.config.batch_tokens)

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        passages: Path | None = None,
        device: str = AUTO,
        is_indexed: bool = True,
        progress: Progress | None = None,
    ) -> "ClaimClassifier":
        """Open a run that classifies claims.

        Args:
            run: from `realm finetune --task classify`; or one of its checkpoints.
            passages: read these instead of the passages it was trained with; they are embedded on
                first use and kept beside the run.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            is_indexed: False: passages are not embedded, and no index is opened; a `retriever` is
                to be put under it before it classifies.
            progress: called while other passages are embedded.

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the run has no classifier, or another vocabulary than the passages.
        """
        checkpoint = find_checkpoint(run)
        model = load_model(checkpoint).to(choose_device(device))
        model.need_classifier()
        run = run_of(run)
        store = PassageStore.open(passages or passages_of(run))
        manifest = read_json(checkpoint / MANIFEST)
        kept = {n: v for n, v in manifest["settings"].items() if n in ClassifyConfig.model_fields}
        return cls(
            model,
            store,
            open_snapshot(run, model, store, progress=progress) if is_indexed else None,
            config=ClassifyConfig.model_validate(kept),
            name=run.name,
            fingerprint=str(manifest["fingerprint"]),
        )

    @property
    def corpus_fingerprint(self) -> str:
        """Fingerprint of the passages it reads."""
        return self.store.fingerprint

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it knows."""
        return self.classifier.labels

    @torch.inference_mode()
    def classify(
        self, claims: Sequence[str], *, num_passages: int | None = None
    ) -> list[ClassifiedClaim]:
        """Return the labels of each claim, the most probable one first.

        Args:
            claims: one or many; many are faster together.
            num_passages: passages to read for each; None: as many as in training.

        Raises:
            AnsweringError: an empty claim, one longer than the model reads, or one for which the
                retriever finds no passage.
            ConfigError: no passages are to be read.
        """
        longest = self.config.question_wordpieces
        pieces = [question_ids(self.store.tokenizer, c, longest, kind="claim") for c in claims]
        if not pieces:
            return []
        num_read = self.config.num_passages if num_passages is None else num_passages
        if num_read < 1:
            raise ConfigError(f"found {num_read} passages to read, expected at least one")
        retrieved = self.retriever.retrieve(claims, num_read)
        for claim, (rows, _) in zip(claims, retrieved, strict=True):
            if not rows:  # as BM25, which knows words alone
                raise AnsweringError(
                    f"found no passage that shares a word with the claim {claim[:80]!r}; expected "
                    "words of the passages, or another retriever"
                )
        inputs = [
            sequence
            for ids, (rows, _) in zip(pieces, retrieved, strict=True)
            for sequence in joint_inputs(self.store, ids, rows, self.config.joint_wordpieces)
        ]
        logits = label_logits(self.classifier, inputs, self.budget)
        parts = logits.split([len(rows) for rows, _ in retrieved])
        return [
            self._judge(claim, rows, torch.tensor(scores) * self.retriever.score_weight, part)
            for claim, (rows, scores), part in zip(claims, retrieved, parts, strict=True)
        ]

    def _judge(
        self,
        claim: str,
        rows: list[int],
        scores: Float[Tensor, " read"],
        logits: Float[Tensor, "read labels"],
    ) -> ClassifiedClaim:
        """Return what the passages that were read say of one claim."""
        p_labels = label_log_likelihood(scores[None], logits[None])[0].exp()
        p_passages = scores.softmax(dim=0)
        p_given = logits.softmax(dim=-1)
        best = (p_passages[:, None] * p_given).argmax(dim=0).tolist()
        labels = [
            LabelEvidence(
                label=self.labels[number],
                probability=min(1.0, float(p_labels[number])),
                passage=self.store[rows[best[number]]],
                passage_probability=float(p_passages[best[number]]),
                label_probability=float(p_given[best[number], number]),
            )
            for number in p_labels.argsort(descending=True, stable=True).tolist()
        ]
        return ClassifiedClaim(claim=claim, labels=tuple(labels), read_rows=tuple(rows))


def classified_as_json(classified: ClassifiedClaim) -> dict[str, Any]:
    """Return what `realm ask --json` prints of a claim."""
    return {
        "claim": classified.claim,
        "labels": [
            {
                "label": one.label,
                "probability": one.probability,
                "passage": one.passage.as_json()
                | {
                    "probability": one.passage_probability,
                    "label_probability": one.label_probability,
                },
            }
            for one in classified.labels
        ],
    }
